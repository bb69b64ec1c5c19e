"""What a search returns: results with their documents and explanations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .explanation_html import results_html
from .hits import ReadCounts
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
    unreadable : bool
        A reranking could not read the document's tokens, and was told to go on: the score is that of the stage before, which
        cannot be compared with others, and the document comes after them.
    """

    doc_id: str
    score: float
    title: str
    text: str
    metadata: Mapping[str, Any]
    explanation: Explanation | None = None
    unreadable: bool = False

    def _repr_html_(self) -> str:
        """For notebooks: the document, and the explanation where there is one."""
        return results_html([self])


class Results(list[Result]):
    """Answers to one query, best first.

    Attributes
    ----------
    timings_ms : dict of str to float
        Stage -> milliseconds, of the whole batch that the query was part of; empty unless asked for.
    reads : dict of str to ReadCounts
        Stage -> what it read from disk, likewise; of stages that did.
    missing_shards : tuple of str
        Shards that did not answer, of a search with ``partial``: their documents are left out.
    """

    def __init__(
        self, results: Iterable[Result] = (), timings_ms: Mapping[str, float] | None = None,
        reads: Mapping[str, ReadCounts] | None = None, missing_shards: Iterable[str] = (),
    ) -> None:  # fmt: skip
        super().__init__(results)
        self.timings_ms, self.reads, self.missing_shards = dict(timings_ms or {}), dict(reads or {}), tuple(missing_shards)

    def _repr_html_(self) -> str:
        """For notebooks: a table, with explanations where there are some."""
        return results_html(self)
