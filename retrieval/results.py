"""What a search returns: results with their documents and explanations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .searchers.explanation import Explanation


@dataclass(frozen=True, kw_only=True)
class Result:
    """One answer.

    Attributes
    ----------
    doc_id : str
    score : float
        Of the last stage of the search.
    title, text : str
    metadata : mapping
    explanation : Explanation or None
        Given when asked for.
    """

    doc_id: str
    score: float
    title: str
    text: str
    metadata: Mapping[str, Any]
    explanation: Explanation | None = None


class Results(list[Result]):
    """Answers to one query, best first.

    Attributes
    ----------
    timings_ms : dict of str to float
        Stage -> milliseconds, of the whole batch that the query was part of; empty unless asked for.
    """

    def __init__(self, results: Iterable[Result] = (), timings_ms: Mapping[str, float] | None = None) -> None:
        super().__init__(results)
        self.timings_ms = dict(timings_ms or {})
