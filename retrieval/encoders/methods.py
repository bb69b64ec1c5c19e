"""Placeholder."""

from __future__ import annotations

from .specs import EncoderSpec


def precision_of(spec: EncoderSpec, device: str) -> str | None:
    """Precision."""
    return None
