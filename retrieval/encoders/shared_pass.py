"""Naive placeholder until the shared pass is in: every encoder runs by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...index.representations import Vectors
from .base import Encoder


class SharedPass:
    """Encoders of several fields."""

    def __init__(self, encoders: Mapping[str, Encoder]) -> None:
        self.encoders = dict(encoders)

    def encode_documents(self, texts: Sequence[str], names: Sequence[str] | None = None) -> dict[str, Vectors]:
        """Encode documents for each field."""
        return {name: self.encoders[name].encode_documents(texts) for name in names or self.encoders}

    def encode_queries(self, texts: Sequence[str], names: Sequence[str] | None = None) -> dict[str, Vectors]:
        """Encode queries for each field."""
        return {name: self.encoders[name].encode_queries(texts) for name in names or self.encoders}
