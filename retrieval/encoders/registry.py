"""From a kind, a model and settings to an encoder; and back from what an index recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from ...index.arguments import path_of
from ...index.errors import EncoderMismatchError
from ...index.manifest import EncoderRecord
from ..models import SHIPPED
from .base import Encoder
from .methods import KINDS, check_settings, imported, method_of

CHANGED = "the model at {place} is another, or its files have changed; say where the index's is (--model FIELD=DIR_OR_ID)"


def load_encoder(kind: str | None = None, *, model: str | None = None, device: str = "cpu", **settings: Any) -> Encoder:
    """Make an encoder.

    Parameters
    ----------
    kind : str or None
        "bm25", "splade", "inference-free", "colbert", "slim", "dense", "tct", "sae", "hypencoder", "gaussian" or "vectors"
        (ready-made, no encoder); None: bm25 without a model, else what the model's files state, never "slim" or "tct".
    model : str or None
        A folder, or a model id that is looked up in the Hugging Face cache, then on the hub. None: the model of this kind that
        comes with lexmax.
    device : str
        Where a model runs: "cpu", "cuda", ...
    **settings
        The encoder's own, such as ``k1`` or ``document_top_k``. A model that comes with lexmax takes the precision that the
        device runs fastest, unless ``dtype`` is given.

    Raises
    ------
    ValueError, TypeError
        Unknown kind or setting, a value of another type, or a model missing or too much.
    RepresentationError
        The model's files are not of this kind, or not recognised.

    >>> load_encoder("bm25", stemmer="german").settings["stemmer"]
    'german'
    """
    if kind is None and model is None:
        kind = "bm25"
    if kind is not None:
        method = method_of(kind)
        if method.layout is None and model is not None:
            raise ValueError(f"{kind} takes no model" if kind == "bm25" else "an index of ready-made vectors takes no model")
        if method.layout is not None and model is None:
            model = method.shipped
            if model is None:
                raise ValueError(f"encoder {kind!r} needs a model: a folder or a model id")
    if model is not None:
        model = str(path_of(model, "model")) if not isinstance(model, str) else model
        settings = {**default_settings(model, device), **settings}
    return _made(kind, model, device, settings)


def default_settings(model: str, device: str) -> dict[str, Any]:
    """Settings of a model that comes with lexmax, where none are given: the precision that the device runs fastest."""
    if model not in SHIPPED or Path(model).is_dir():  # a folder of that name comes first
        return {}
    from .networks.loading import fastest_dtype

    return {"dtype": fastest_dtype(device)}


def _made(kind: str | None, model: str | None, device: str, settings: dict[str, Any]) -> Encoder:
    if model is not None:
        from .loader import load_model_encoder

        return cast(Encoder, load_model_encoder(model, kind=kind, device=device, **settings))
    if kind not in KINDS:
        raise ValueError(f"unknown encoder {kind!r}; there are {', '.join(KINDS)}")
    if kind == "vectors" and "dim" in settings:
        from .precomputed import DenseVectorsEncoder, TokenVectorsEncoder

        made = DenseVectorsEncoder if settings.get("representation") == "dense" else TokenVectorsEncoder
        return cast(Encoder, made(**settings))
    check_settings(kind, settings)
    return cast(Encoder, imported(method_of(kind).encoder)(**settings))


def encoder_of(record: EncoderRecord, *, model: str | None = None, **overrides: Any) -> Encoder:
    """Make an index's encoder again and hold it to the index's fingerprint.

    Parameters
    ----------
    record : EncoderRecord
        From the index's manifest.
    model : str or None
        Where the model is now, when it has moved.
    **overrides
        What does not change vectors, such as ``device``.

    Raises
    ------
    EncoderMismatchError
        The encoder that its settings give today is another one.
    """
    settings: dict[str, Any] = {**record.settings, **overrides}
    place = model if model is not None else settings.get("model")
    settings.pop("model", None)
    if model is not None and method_of(record.kind).layout is None:
        raise ValueError(f"an encoder of kind {record.kind} takes no model")
    encoder = _made(record.kind, place, settings.pop("device", "cpu"), settings)
    check_encoder(record, encoder, hint="" if place is None else CHANGED.format(place=place))
    return encoder


def check_encoder(record: EncoderRecord, encoder: Encoder, *, hint: str = "") -> None:
    """Raise EncoderMismatchError unless ``encoder`` is the one that made the index, TypeError where it is no encoder."""
    if not hasattr(encoder, "fingerprint"):
        raise TypeError(f"an encoder is expected, not {type(encoder).__name__}: load_encoder(...) makes one")
    if encoder.fingerprint != record.fingerprint:
        raise EncoderMismatchError(index=record.fingerprint, encoder=encoder.fingerprint, hint=hint)
