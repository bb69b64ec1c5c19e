"""Encoders as they are typed: ``[NAME=]MODEL[,SETTING=VALUE]...``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from ...index.fde.config import FdeConfig
from ..terminal import json_or_text, split_setting
from .base import Encoder
from .methods import METHODS, MUVERA, check_settings
from .registry import load_encoder

STORAGE = {
    "tokens": ("nbits", "exact", "n_centroids"),
    "dense": (
        "keep", "structure", "quantise", "pq_bytes", "n_lists", "coarse_dim", "search_dim", "n_links", "ef_construction",
        "order",
    ),
    "nets": ("keep", "n_neighbours"),
}  # fmt: skip
"""Representation -> settings of its fields, which are none of an encoder."""
FIELD = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """An encoder of a field as it was typed.

    Attributes
    ----------
    name : str
        Of the field.
    model : str or None
        None: of the kind, the one that comes with lexmax; BM25 has none.
    kind : str or None
        None: what the model's files state.
    settings, storage : mapping
        Of the encoder, and of the field. Of kind "muvera", which encodes the vectors of another field: those of `FdeConfig`.
    """

    name: str
    model: str | None = None
    kind: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    storage: Mapping[str, Any] = field(default_factory=dict)


def parse_encoder_spec(text: str) -> EncoderSpec:
    """Read ``[NAME=]MODEL[,SETTING=VALUE]...``.

    >>> parse_encoder_spec("tokens=lexmax-colbert,nbits=2").storage
    {'nbits': 2}

    Raises
    ------
    ValueError, TypeError
        A text of another form; of a known kind, a setting that it does not take.
    """
    if not isinstance(text, str):
        raise TypeError(f"an encoder is typed as a string, not as {type(text).__name__}")
    head, *texts = text.split(",")
    name, equals, model = head.partition("=")
    if not equals or not FIELD.fullmatch(name):
        name, model = "", head
    if not model:
        raise ValueError(f"an encoder is [NAME=]MODEL[,SETTING=VALUE]..., not {text!r}")
    pairs = [split_setting(each, f"a setting of {model!r}") for each in texts]
    keys = [key for key, _ in pairs]
    twice = [key for key in keys if keys.count(key) > 1 or key in ("model", "device")]
    if twice:
        raise ValueError(f"{text!r}: {twice[0]} is given twice, or is no setting")
    values = {key: json_or_text(value) for key, value in pairs}
    storage = {key: values.pop(key) for names in STORAGE.values() for key in names if key in values}
    kind = values.pop("kind", None)
    short = re.sub(r"[^A-Za-z0-9_-]", "-", PurePath(model).name.removeprefix("lexmax-"))
    place: str | None = model
    if model in METHODS and kind is None and not Path(model).is_dir():  # bm25, or a kind whose model comes with lexmax
        kind, place = model, None
    if model == MUVERA and kind is None and not Path(model).is_dir():
        kind, place = model, None
        check_settings(kind, values, FdeConfig)
        if "of" not in values:
            raise ValueError(f"{text!r}: encodings are made of a token field: name it, as in {text},of=colbert")
    elif kind is not None:
        check_settings(kind, values)
    if not name and not FIELD.fullmatch(short):
        raise ValueError(f"{text!r}: name the field, as in NAME={text}")
    return EncoderSpec(name=name or short, model=place, kind=kind, settings=values, storage=storage)


def load_spec(spec: EncoderSpec, *, device: str = "cpu") -> Encoder:
    """Load the encoder of a spec; errors are those of `registry.load_encoder`, ValueError for encodings of another field."""
    if spec.kind == MUVERA:
        raise ValueError(f"{spec.name}: muvera encodes the vectors of a field of the same index, and no texts")
    return load_encoder(spec.kind, model=spec.model, device=device, **spec.settings)
