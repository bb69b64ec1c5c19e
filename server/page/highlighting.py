"""Which words of a text a query asks for: those of equal stems."""

import re
from collections.abc import Callable
from functools import lru_cache

from markupsafe import Markup

from ...retrieval.encoders.lexical import LexicalEncoder
from ...retrieval.explanation_html import marked

WORD = re.compile(r"\w+")
SHOWN_CHARS = 400
LEAD_CHARS = 80


class Highlighter:
    """Marks words of documents that have a stem of the query.

    Parameters
    ----------
    terms_of : callable or None
        A text -> its terms, as an index's BM25 field makes them; None: English ones.
    """

    def __init__(self, terms_of: Callable[[str], set[str]] | None = None) -> None:
        self._terms_of = lru_cache(10_000)(terms_of or LexicalEncoder().surface_terms)

    def snippet(self, text: str, query: str) -> Markup:
        """Return the part of a text that begins shortly before the first word asked for, with those words marked."""
        wanted = self._terms_of(query)
        spans = [match.span() for match in WORD.finditer(text) if wanted & self._terms_of(match.group())] if wanted else []
        start = 0
        if len(text) > SHOWN_CHARS and spans and spans[0][0] > LEAD_CHARS:
            start = text.rfind(" ", 0, spans[0][0] - LEAD_CHARS) + 1
        end = min(len(text), start + SHOWN_CHARS)
        inside = [(first - start, last - start) for first, last in spans if first >= start and last <= end]
        piece = marked(text[start:end], inside)
        return Markup(("... " if start else "") + piece + (" ..." if end < len(text) else ""))  # noqa: S704  `marked` escapes
