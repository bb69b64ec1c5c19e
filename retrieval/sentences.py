"""Sentences of a text, by punctuation."""

from __future__ import annotations

import re

SENTENCE_ENDS = re.compile(r"(?<=[.!?])\s+|\n+")


def sentences_of(text: str) -> list[tuple[int, int]]:
    """Where the sentences of a text are: (start, end) each, white space at the ends left out.

    >>> sentences_of("One. Two!")
    [(0, 4), (5, 9)]
    """
    gaps = [match.span() for match in SENTENCE_ENDS.finditer(text)]
    starts, ends = [0, *(end for _, end in gaps)], [*(start for start, _ in gaps), len(text)]
    return [(first, last) for first, last in zip(starts, ends, strict=True) if text[first:last].strip()]
