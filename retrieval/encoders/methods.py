"""The table of methods: which encoder, configuration, layout reader and shipped model belong to a kind.

A new method is one module and one line here. Names are imported when they are needed, so that BM25 loads no torch.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ...index.nearest import did_you_mean

if TYPE_CHECKING:
    from .specs import EncoderSpec


@dataclass(frozen=True)
class Method:
    """A method, by import strings ``module:name`` relative to this folder.

    Attributes
    ----------
    encoder : str
        The encoder's class.
    settings : str
        What takes its settings by keyword: a configuration, or the encoder itself.
    layout : str or None
        Reads a model's folder; None: the method has no model.
    shipped : str or None
        The model that comes with lexmax.
    """

    encoder: str
    settings: str
    layout: str | None = None
    shipped: str | None = None


METHODS = {
    "bm25": Method("lexical:LexicalEncoder", "lexical:LexicalEncoder"),
    "splade": Method("splade:SpladeEncoder", "splade:SpladeConfig", "checkpoints.splade:read_layout", "lexmax-splade"),
    "inference-free": Method(
        "inference_free:InferenceFreeEncoder", "inference_free:InferenceFreeConfig", "checkpoints.splade:read_layout",
        "lexmax-inference-free",
    ),
    "colbert": Method(
        "colbert:ColbertEncoder", "colbert:ColbertConfig", "checkpoints.colbert:read_colbert_layout", "lexmax-colbert"
    ),
    "slim": Method("slim:SlimEncoder", "slim:SlimConfig", "checkpoints.splade:read_layout"),
    "dense": Method("dense:DenseEncoder", "dense:DenseConfig", "checkpoints.dense:read_dense_layout", "lexmax-dense"),
    "tct": Method("tct:TctEncoder", "tct:TctConfig", "checkpoints.tct:read_tct_layout"),
    "sae": Method("sae:SaeEncoder", "sae:SaeConfig", "checkpoints.sae:read_sae_layout", "lexmax-sae"),
    "hypencoder": Method(
        "hypencoder:HypencoderEncoder", "hypencoder:HypencoderConfig", "checkpoints.hypencoder:read_hypencoder_layout"
    ),
    "gaussian": Method(
        "gaussian:GaussianEncoder", "gaussian:GaussianConfig", "checkpoints.gaussian:read_gaussian_layout", "lexmax-gaussian"
    ),
    "vectors": Method("precomputed:VectorsEncoder", "precomputed:VectorsEncoder"),
}  # fmt: skip
KINDS = tuple(METHODS)
MUVERA = "muvera"
"""Makes encodings of the vectors of another field, and is no encoder of texts."""


def method_of(kind: str) -> Method:
    """Return a method; raises ValueError that lists the kinds."""
    if not isinstance(kind, str) or kind not in METHODS:
        raise ValueError(f"unknown encoder {kind!r}; there are {', '.join(METHODS)}{did_you_mean(str(kind), METHODS)}")
    return METHODS[kind]


def imported(name: str) -> Any:
    """Import ``module:name`` of this folder."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(f".{module}", __package__), attribute)


def check_settings(kind: str, settings: Mapping[str, Any], taken: type[Any] | None = None) -> None:
    """Refuse settings that a method, or the class that takes them, does not take, before anything is loaded.

    Raises
    ------
    TypeError
        An unknown setting; the message lists the known ones.
    ValueError
        A value of another type.
    """
    taken = taken or imported(method_of(kind).settings)
    names = vars(import_module(taken.__module__)) | _type_names()
    hints = typing.get_type_hints(taken.__init__, names)
    known = [name for name in inspect.signature(taken).parameters if name not in ("model", "self", "token_dim")]
    for name, value in settings.items():
        if name not in known:
            hint = did_you_mean(name, known)
            raise TypeError(f"{kind} has no setting {name!r}: there are {', '.join(sorted(known))}{hint}")
        if name in hints and not _fits(value, hints[name]):
            raise ValueError(f"{kind}: {name} takes {_described(hints[name])}, not {value!r}")


def precision_of(spec: EncoderSpec, device: str) -> str | None:
    """Precision in which the model of a spec runs; None for an encoder without a model."""
    from .registry import default_settings

    if spec.model is None and (spec.kind in (None, MUVERA) or method_of(spec.kind).layout is None):
        return None
    model = spec.model or method_of(spec.kind or "").shipped or ""
    return str(spec.settings.get("dtype") or default_settings(model, device).get("dtype", "float32"))


def _type_names() -> dict[str, Any]:
    """Names in annotations that modules import for type checkers alone."""
    from .networks.masked_lm import Dtype

    return {"Dtype": Dtype}


def _fits(value: Any, hint: Any) -> bool:
    if typing.get_origin(hint) is typing.Literal:
        return value in typing.get_args(hint)
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return any(_fits(value, each) for each in typing.get_args(hint))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return not isinstance(hint, type) or isinstance(value, hint)


def _described(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(str, typing.get_args(hint)))
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return " or ".join(_described(each) for each in typing.get_args(hint))
    names = {int: "a whole number", float: "a number", str: "a word", bool: "true or false", type(None): "null"}
    return names.get(hint, str(hint))
