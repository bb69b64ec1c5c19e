"""Long documents as passages: cut where sentences end, until an encoder reads each piece whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from ...index.documents import Document
from ..sentences import SENTENCE_ENDS

WORD_ENDS = re.compile(r"\s+")
PARENT = "parent"
"""Metadata field that names the document which a passage was cut from."""


def passages_of(document: Document, fits: Callable[[str], bool]) -> Iterator[Document]:
    """Cut a document into passages that an encoder reads whole.

    Parameters
    ----------
    document : Document
    fits : callable
        Whether a title and text are short enough.

    Yields
    ------
    Document
        The document itself when it fits; else passages ``DOC_ID#1``, ``DOC_ID#2``, ... with its title and metadata, and its
        doc_id in the metadata field "parent". A word that alone is too long stays whole, and the encoder cuts it.
    """
    if fits(document.content):
        yield document
        return
    metadata = {**document.metadata, PARENT: document.doc_id}
    for number, text in enumerate(_pieces(document, document.text, fits), 1):
        yield replace(document, doc_id=f"{document.doc_id}#{number}", text=text, metadata=metadata)


def _pieces(document: Document, text: str, fits: Callable[[str], bool]) -> Iterator[str]:
    if fits(replace(document, text=text).content):
        yield text
        return
    cut = _middle(text, SENTENCE_ENDS) or _middle(text, WORD_ENDS)
    if cut is None:
        yield text
        return
    yield from _pieces(document, text[: cut[0]], fits)
    yield from _pieces(document, text[cut[1] :], fits)


def _middle(text: str, ends: re.Pattern[str]) -> tuple[int, int] | None:
    """Return the gap nearest to the middle of the text that leaves something on both sides."""
    gaps = [match.span() for match in ends.finditer(text) if match.start() > 0 and match.end() < len(text)]
    return min(gaps, key=lambda gap: abs(gap[0] + gap[1] - len(text)), default=None)
