"""What the folder of a sparse autoencoder holds, read without torch.

The layout is lexmax's own::

config.json          "format": "lexmax-sae"; every key is one of `SaeLayout`'s and `BaseFiles`'
model.safetensors    or packed.safetensors: encoder, decoder (n_latents, dim), encoder_bias, idf (n_latents,), decoder_bias,
                     mean (dim,)
latents.json         a list of {"label", "tokens", "texts"}, one for each latent
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ....index.errors import RepresentationError
from .files import check_keys, read_json

FORMAT = "lexmax-sae"
VERSION = 1
BASES = ("colbert", "dense")
SaePooling = Literal["max", "sum"]
Weighting = Literal["log1p", "bm25"]
SIZES = ("dim", "n_latents", "n_active")
CHOICES = {"document_pooling": get_args(SaePooling), "query_pooling": get_args(SaePooling), "weighting": get_args(Weighting)}
NUMBERS = ("scale", "gain", "k1", "b")
OPTIONAL = ("document_top_k", "query_top_k")
KEYS = ("format", "version", "base", *SIZES, *CHOICES, *NUMBERS, *OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class BaseFiles:
    """The encoder whose vectors are decomposed.

    Attributes
    ----------
    kind : {"colbert", "dense"}
    model : str
        Shipped name, Hugging Face id or absolute folder.
    settings : mapping
        Of that encoder, the precision left out.
    fingerprint : str
        Of that encoder in float32.
    """

    kind: str
    model: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class SaeLayout:
    """A sparse autoencoder.

    Attributes
    ----------
    folder : Path
    base : BaseFiles
    dim, n_latents, n_active : int
        Numbers of a vector, latents, and how many of them a vector has.
    scale : float
        Of the vectors, once their mean is taken off.
    document_pooling, query_pooling : {"max", "sum"}
        Over the vectors of a text.
    weighting : {"log1p", "bm25"}
        log1p(gain a) of pooled activations a, with idf of the training text; or gain a as term counts of BM25, which the index
        weighs by ``k1``, ``b`` and its own collection's idf.
    gain, k1, b : float
    document_top_k, query_top_k : int or None
        Weights that a text keeps, the largest.
    """

    folder: Path
    base: BaseFiles
    dim: int
    n_latents: int
    n_active: int
    scale: float
    document_pooling: SaePooling = "sum"
    query_pooling: SaePooling = "max"
    weighting: Weighting = "bm25"
    gain: float = 8.0
    k1: float = 1.2
    b: float = 0.75
    document_top_k: int | None = None
    query_top_k: int | None = None


def is_sae(root: Path) -> bool:
    """Whether a folder holds a sparse autoencoder."""
    path = root / "config.json"
    return path.is_file() and read_json(path).get("format") == FORMAT


def read_sae_layout(root: Path) -> SaeLayout:
    """Read the sparse autoencoder in a folder.

    Raises
    ------
    RepresentationError
        When it is none, or a setting is missing, unknown or out of range; names it.
    """
    path = root / "config.json"
    config = read_json(path)
    if config.get("format") != FORMAT:
        raise RepresentationError(f'{root}: found no sparse autoencoder: its config.json says "format": "{FORMAT}"')
    if config.get("version") != VERSION:
        raise RepresentationError(f"{path}: version is {config.get('version')!r}; this lexmax reads version {VERSION}")
    check_keys(path, config, KEYS)
    found: dict[str, Any] = {name: _whole(path, config, name) for name in SIZES}
    found |= {name: _whole(path, config, name) for name in OPTIONAL if config.get(name) is not None}
    found |= {name: _positive(path, config[name], name) for name in NUMBERS if name in config}
    for name, choices in CHOICES.items():
        if config.get(name) not in choices:
            raise RepresentationError(f"{path}: {name} is {config.get(name)!r}: expected {' or '.join(choices)}")
        found[name] = config[name]
    if "scale" not in found:
        raise RepresentationError(f"{path}: scale is missing")
    if found["n_active"] > found["n_latents"]:
        raise RepresentationError(f"{path}: n_active is {found['n_active']}, of {found['n_latents']} latents")
    if found.get("b", 0) > 1:
        raise RepresentationError(f"{path}: b is {found['b']}: expected 0 to 1")
    return SaeLayout(folder=root, base=_base(path, config.get("base")), **found)


def write_sae_config(layout: SaeLayout) -> None:
    """Write config.json of a layout into its folder."""
    base = layout.base
    config: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "base": {"kind": base.kind, "model": base.model, "settings": dict(base.settings), "fingerprint": base.fingerprint},
    }
    config |= {name: getattr(layout, name) for name in KEYS if name not in config}
    (layout.folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def read_latents(layout: SaeLayout) -> list[dict[str, Any]]:
    """What is known of each latent: ``label`` (str), ``tokens`` and ``texts`` (lists of str), the most activating first.

    Raises
    ------
    RepresentationError
        The file is missing or malformed.
    """
    path = layout.folder / "latents.json"
    try:
        latents = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RepresentationError(f"{path}: cannot be read: {error}") from error
    if not isinstance(latents, list) or len(latents) != layout.n_latents:
        raise RepresentationError(f"{path}: expected a list of {layout.n_latents} latents")
    for number, each in enumerate(latents):
        lists = [each.get(name) for name in ("tokens", "texts")] if isinstance(each, dict) else [None]
        sound = all(isinstance(found, list) and all(isinstance(text, str) for text in found) for found in lists)
        if not sound or not isinstance(each.get("label"), str):
            raise RepresentationError(f"{path}: latent {number} is not a label with tokens and texts")
        check_keys(path, each, ("label", "tokens", "texts"))
    return latents


def _base(path: Path, base: Any) -> BaseFiles:
    if not isinstance(base, dict):
        raise RepresentationError(f"{path}: base is {base!r}: expected an object with kind, model and fingerprint")
    check_keys(path, base, ("kind", "model", "settings", "fingerprint"))
    kind, settings = base.get("kind"), base.get("settings") or {}
    if kind not in BASES:
        raise RepresentationError(f"{path}: base: kind is {kind!r}: expected {' or '.join(BASES)}")
    if not isinstance(base.get("model"), str) or not isinstance(base.get("fingerprint"), str) or not isinstance(settings, dict):
        raise RepresentationError(f"{path}: base: model and fingerprint must be texts, and settings an object")
    return BaseFiles(kind=kind, model=base["model"], settings=settings, fingerprint=base["fingerprint"])


def _whole(path: Path, config: Any, name: str) -> int:
    value = config.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RepresentationError(f"{path}: {name} is {value!r}: expected a whole number, 1 or more")
    return value


def _positive(path: Path, value: Any, name: str) -> float:
    least = "0 or more" if name in ("k1", "b") else "above 0"
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 <= value < float("inf")
        or (value == 0 and least == "above 0")
    ):
        raise RepresentationError(f"{path}: {name} is {value!r}: expected a number {least}")
    return float(value)
