"""Encoders as they are typed: ``[NAME=]MODEL[,SETTING=VALUE]...``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from ..terminal import json_or_text, split_setting
from .base import Encoder
from .registry import load_encoder

STORAGE = ("nbits", "exact", "n_centroids")
"""Settings of a token field, not of its encoder."""
FIELD = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """An encoder of a field as it was typed.

    Attributes
    ----------
    name : str
        Of the field.
    model : str or None
        None: BM25.
    kind : str or None
        None: what the model's files state.
    settings, storage : mapping
        Of the encoder, and of the field.
    """

    name: str
    model: str | None = None
    kind: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    storage: Mapping[str, Any] = field(default_factory=dict)


def parse_encoder_spec(text: str) -> EncoderSpec:
    """Read ``[NAME=]MODEL[,SETTING=VALUE]...``; raises ValueError for another form."""
    head, *texts = text.split(",")
    name, equals, model = head.partition("=")
    if not equals or not FIELD.fullmatch(name):
        name, model = "", head
    if not model:
        raise ValueError(f"an encoder is [NAME=]MODEL[,SETTING=VALUE]..., not {text!r}")
    pairs = [split_setting(each, f"a setting of {model!r}") for each in texts]
    values = {key: json_or_text(value) for key, value in pairs}
    storage = {key: values.pop(key) for key in STORAGE if key in values}
    kind = values.pop("kind", None)
    if model == "bm25":
        kind, model_name = "bm25", None
    else:
        model_name = model
    short = re.sub(r"[^A-Za-z0-9_-]", "-", PurePath(model).name.removeprefix("lexmax-"))
    return EncoderSpec(name=name or short, model=model_name, kind=kind, settings=values, storage=storage)


def load_spec(spec: EncoderSpec, *, device: str = "cpu") -> Encoder:
    """Load the encoder of a spec."""
    return load_encoder(spec.kind, model=spec.model, device=device, **spec.settings)
