"""Feedback: the clicks of a log, ready to move queries.

The log is read when a `Feedback` is made and at each `refresh`. Logged queries are encoded for a field when a query first asks
which of them are near it; then they stay in memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ...index.representations import Vectors
from ...index.snapshot import Snapshot
from ..searchers.common import single
from ..searchers.fde import FdeSearcher
from ..searchers.registry import FieldSearcher, made_options
from ..searchers.sparse import SparseSearcher
from .clicks import LoggedQuery
from .log import ClickLog, Position
from .rocchio import Movable, Neighbourhood, Rocchio, is_movable, joined, moved, unit

MAX_NEIGHBOURS = 10_000
"""Logged queries, those first asked last, that an unlogged one is compared with."""
ENCODED_AT_ONCE = 256

Choice = bool | Mapping[str, Any] | Rocchio | None
"""What a search says of feedback: True or options, by name or not; False or None: none."""
Encode = Callable[[str, Sequence[str]], Vectors]
"""Field and texts -> encoded queries."""
Notes = Mapping[str, Sequence[str]]
"""Field -> for each query what moved it, empty where nothing did."""
NO_NOTES: Notes = {}


def rocchio_of(choice: Choice) -> Rocchio | None:
    """Return the options of a choice, None for no feedback.

    Raises
    ------
    ValueError, TypeError
        Unknown options, values of another type or out of range.
    """
    if isinstance(choice, bool) or choice is None:
        return Rocchio() if choice else None
    return made_options(Rocchio, choice, "feedback")


@dataclass(frozen=True)
class _Logged:
    """Logged queries as vectors of one field.

    Attributes
    ----------
    queries : mapping of str to LoggedQuery
        What the log held then.
    made_by : object
        What the vectors depend on besides the encoder.
    texts : list of str
        Query of each row.
    near : Neighbourhood
    """

    queries: Mapping[str, LoggedQuery]
    made_by: object
    texts: list[str]
    near: Neighbourhood


class _Sources(NamedTuple):
    """Records that move a query, the share of each, and whether they are the query's own."""

    records: list[LoggedQuery]
    share: float
    own: bool


class Feedback:
    """The clicks of a log; safe to use from many threads.

    Parameters
    ----------
    log : ClickLog

    Raises
    ------
    DatasetError, IndexFormatError, StorageError
        As `ClickLog.read` does.
    """

    def __init__(self, log: ClickLog) -> None:
        self.log = log
        self._queries: dict[str, LoggedQuery] = {}
        self._encoded: dict[str, _Logged] = {}
        self._position: Position | None = None
        self._lock, self._encoding = threading.Lock(), threading.Lock()
        self.refresh()

    def refresh(self) -> None:
        """Read what was logged since; raises as `ClickLog.read` does."""
        with self._lock:
            news = self.log.read(self._position)
            queries = {} if news.restarted else dict(self._queries)  # searches that run keep the one that they have
            for query, record in news.queries.items():
                known = queries.get(query, LoggedQuery(query))
                counts = {place: each for place, each in record.counts.items() if each[1]}  # what was not clicked says nothing
                queries[query] = LoggedQuery(query, known.n_times, dict(known.counts))
                queries[query].add(LoggedQuery(query, record.n_times, counts))
            if news.queries or news.restarted:
                self._queries = queries
            self._position = news.position

    def prepare(self, searchers: Mapping[str, FieldSearcher], encode: Encode) -> None:
        """Encode the logged queries for some fields now."""
        for name, searcher in searchers.items():
            if is_movable(searcher) and self._queries:
                self._logged(name, searcher, encode)

    def move(
        self, queries: Mapping[str, Vectors], texts: Sequence[str], searchers: Mapping[str, FieldSearcher], snapshot: Snapshot,
        encode: Encode, options: Rocchio,
    ) -> tuple[dict[str, Vectors], Notes]:  # fmt: skip
        """Move queries towards documents that were clicked.

        Parameters
        ----------
        queries : mapping of str to vectors
            Field -> queries that its searcher has made ready.
        texts : sequence of str
            What they were made from: those that were logged are known by them.
        searchers : mapping of str to FieldSearcher
        snapshot : Snapshot
            Which documents there are.
        encode : callable
            Encodes logged queries.
        options : Rocchio

        Returns
        -------
        queries, notes

        Raises
        ------
        ValueError
            No field's queries can be moved.
        """
        check_movable(searchers)
        found, notes = dict(queries), dict[str, list[str]]()
        for name, searcher in searchers.items():
            if is_movable(searcher):
                vectors: Any = queries[name]
                rows, notes[name] = [], []
                for number, text in enumerate(texts):
                    query = single(vectors, number)
                    sources = self._sources(name, searcher, query, text.strip(), encode, options)
                    row, note = _moved(searcher, query, sources, snapshot, options)
                    rows.append(row)
                    notes[name].append(note)
                found[name] = joined(rows) if rows else vectors
        return found, notes

    def _sources(
        self, name: str, searcher: FieldSearcher, query: Movable, text: str, encode: Encode, options: Rocchio
    ) -> _Sources:
        """The query's own record, or those of the logged queries nearest to it."""
        known = self._queries
        if text in known:
            return _Sources([known[text]], 1.0, own=True)
        if not options.n_neighbours or not known:
            return _Sources([], 0.0, own=False)
        logged = self._logged(name, searcher, encode)
        near = logged.near.cosines(query)
        best = np.argsort(-near, kind="stable")[: options.n_neighbours].tolist()
        records = [logged.queries[logged.texts[row]] for row in best if near[row] >= options.min_similarity]
        return _Sources(records, 1 / options.n_neighbours, own=False)

    def _logged(self, name: str, searcher: FieldSearcher, encode: Encode) -> _Logged:
        """The logged queries as vectors; those that were logged since the last time are encoded."""
        with self._encoding:
            queries, made_by, old = self._queries, _made_by(searcher), self._encoded.get(name)
            if old is not None and old.queries is queries and old.made_by is made_by:
                return old
            rows = {} if old is None or old.made_by is not made_by else {text: row for row, text in enumerate(old.texts)}
            wanted = list(queries)[-MAX_NEIGHBOURS:]
            kept, new = [text for text in wanted if text in rows], [text for text in wanted if text not in rows]
            batches = [old.near.vectors.select(np.array([rows[text] for text in kept], np.int64))] if old and kept else []
            for first in range(0, len(new), ENCODED_AT_ONCE):
                vectors: Any = searcher.vectors(encode(name, new[first : first + ENCODED_AT_ONCE]))
                batches.append(unit(vectors))
            self._encoded[name] = _Logged(queries, made_by, [*kept, *new], Neighbourhood.of(joined(batches)))
            return self._encoded[name]


def check_movable(searchers: Mapping[str, FieldSearcher]) -> None:
    """Raise ValueError where feedback would change nothing."""
    if not any(is_movable(searcher) for searcher in searchers.values()):
        raise ValueError(f"feedback is for dense, fde and sparse fields; the search has {', '.join(searchers)}")


def _made_by(searcher: FieldSearcher) -> object:
    """What the vectors of a field's queries depend on besides its encoder: idf, or the cells of encodings."""
    if isinstance(searcher, FdeSearcher):
        return searcher.field.encoding
    return searcher if isinstance(searcher, SparseSearcher) and searcher.field.bm25 is not None else None


def _moved(
    searcher: FieldSearcher, query: Movable, sources: _Sources, snapshot: Snapshot, options: Rocchio
) -> tuple[Movable, str]:
    """Move one query; documents that are gone are passed over. Returns a note too, empty where it stays."""
    clicks: dict[str, list[tuple[int, float]]] = {}  # doc_id -> how many, and their weight
    records = [record for record in sources.records if record.n_times >= options.min_times]
    for record in records:
        for (doc_id, rank), (_, clicked) in record.counts.items():
            weight = sources.share * clicked * rank**options.eta / record.n_times
            clicks.setdefault(doc_id, []).append((clicked, weight))
    doc_nums = snapshot.find(list(clicks)).tolist()
    there = {doc_num: each for doc_num, each in zip(doc_nums, clicks.values(), strict=True) if doc_num >= 0}
    if not there:
        return query, ""
    weights = [sum(weight for _, weight in each) for each in there.values()]
    n_clicks = sum(clicked for each in there.values() for clicked, _ in each)
    whose = "on it" if sources.own else f"on {len(records)} logged queries near it"
    return moved(searcher, query, list(there), weights, options), f"query moved by {n_clicks:,} clicks {whose}"
