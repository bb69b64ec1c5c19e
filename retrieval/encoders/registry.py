"""From a name and settings to an encoder: the one table of methods."""

from __future__ import annotations

from typing import Any

from ...index.errors import EncoderMismatchError
from ...index.manifest import EncoderRecord
from .base import Encoder
from .lexical import LexicalEncoder
from .precomputed import VectorsEncoder
from .precomputed_tokens import TokenVectorsEncoder

KINDS = ("bm25", "splade", "inference-free", "colbert", "slim", "vectors")


def load_encoder(kind: str | None = None, *, model: str | None = None, device: str = "cpu", **options: Any) -> Encoder:
    """Make an encoder.

    Parameters
    ----------
    kind : str or None
        "bm25", "splade", "inference-free", "colbert", "slim" or "vectors" (ready-made, no encoder); None: bm25 without a
        model, else what the model's files say, which is never "slim".
    model : str or None
        A folder, or a model id that is looked up in the Hugging Face cache, then on the hub.
    device : str
        Where a model runs: "cpu", "cuda", ...
    **options
        The encoder's own settings, such as ``k1`` or ``document_top_k``.

    Raises
    ------
    ValueError, TypeError
        Unknown kind or option, or a model missing or too much.
    RepresentationError
        The model's files are not of this kind, or not recognised.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"unknown encoder {kind!r}; there are {', '.join(KINDS)}")
    if kind == "bm25" or (kind is None and model is None):
        if model is not None:
            raise ValueError("bm25 takes no model")
        return LexicalEncoder(**options)
    if kind == "vectors":
        if model is not None:
            raise ValueError("an index of ready-made vectors takes no model")
        return TokenVectorsEncoder(**options) if "dim" in options else VectorsEncoder(**options)
    if model is None:
        raise ValueError(f"encoder {kind!r} needs a model: a folder or a model id")
    from .loader import load_model_encoder

    return load_model_encoder(model, kind=kind, device=device, **options)


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
    if model is not None:
        settings["model"] = model
    encoder = load_encoder(record.kind, **settings)
    check_encoder(record, encoder)
    return encoder


def check_encoder(record: EncoderRecord, encoder: Encoder) -> None:
    """Raise EncoderMismatchError unless ``encoder`` is the one that made the index."""
    if encoder.fingerprint != record.fingerprint:
        raise EncoderMismatchError(index=record.fingerprint, encoder=encoder.fingerprint)
