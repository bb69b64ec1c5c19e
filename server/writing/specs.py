"""Which encoders clients may name: those that come with lexmax. Others would have the server read files that a client chose."""

import re

from ...retrieval.encoders.methods import MUVERA
from ...retrieval.encoders.specs import EncoderSpec, parse_encoder_spec
from ...retrieval.models import SHIPPED, shipped_names
from ..errors import RefusedError

WORD = re.compile(r"[A-Za-z0-9_-]{1,64}")
WORDS = frozenset({"stemmer", "stop_words", "tokenizer", "of", "keep", "structure", "quantise", "order", "cells"})
"""Settings that may be words; of stop_words, those of a list that comes with lexmax."""
STOP_WORDS = ("english", "none")


def checked_spec(text: str) -> EncoderSpec:
    """Return an encoder as a client typed it.

    Raises
    ------
    RefusedError
        422: malformed, of a model that does not come with lexmax, or with a setting that may name a file.
    """
    try:
        spec = parse_encoder_spec(text)
    except (ValueError, TypeError) as error:
        raise RefusedError(422, "invalid_request", f"encoder: {error}") from None
    if spec.kind == "vectors" or (spec.model is not None and spec.model not in SHIPPED):
        known = ", ".join(["bm25", *shipped_names(), MUVERA])
        message = f"encoder: over HTTP there are {known}; on the server's machine `lexmax field add` takes others"
        raise RefusedError(422, "invalid_request", message)
    for name, value in {**spec.settings, **spec.storage}.items():
        if not isinstance(value, int | float) and not _is_word(name, value):
            raise RefusedError(422, "invalid_request", f"encoder: the setting {name}={value!r} is not taken over HTTP"[:300])
    return spec


def _is_word(name: str, value: object) -> bool:
    if name == "stop_words":
        return value in STOP_WORDS
    return name in WORDS and isinstance(value, str) and WORD.fullmatch(value) is not None
