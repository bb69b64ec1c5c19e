"""Small inverted indexes of the documents that a filter allows, for filters that come again.

A scan for a filter that keeps one document in a hundred adds all postings all the same, and a row of one costs a hundred
nanoseconds. So the rows of the allowed documents are inverted once more, in memory, as soon as searches with the filter have
cost as much as that will: at most twice what the best decision in hindsight would have cost.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ...index.arrays import Floats, Int32s
from ...index.sparse.field import SparseField
from ...index.sparse.inverted import ImpactRows, MemoryIndex
from ..kernels.search import search_weighed
from .allowed import FEW, Allowed
from .common import WindowScores
from .queries import IntegerQuery, answers

NS_INVERTED = 60.0
"""What inverting a posting costs. It steers, and never changes an answer."""
MAX_POSTINGS = 1 << 24
"""Postings that all indexes of a field's filters hold together, some 8 bytes each."""
MAX_FILTERS = 256
"""Filters whose costs are remembered."""


class FilteredIndex:
    """The allowed documents of all segments as one inverted index; scores are those of the field."""

    def __init__(self, sparse: SparseField, allowed: Sequence[Allowed]) -> None:
        parts, doc_nums = [], []
        for segment, these in zip(sparse.segments, allowed, strict=True):
            positions = these.positions(segment.n_docs)
            parts.append(segment.inverted.rows_of(positions))
            doc_nums.append(positions + np.int32(segment.base))
        self._doc_nums = np.concatenate(doc_nums)
        self._index = MemoryIndex(ImpactRows.joined(parts))

    def search(self, query: IntegerQuery, k: int, scores: WindowScores) -> tuple[Int32s, Floats]:
        """Return the k best."""
        index, n_docs = self._index, len(self._doc_nums)
        k = min(k, max(1, n_docs))
        keys = search_weighed(
            index.packed, index.terms, index.window, n_docs, query.terms, query.weights, k, scores.narrow, scores.wide
        )  # fmt: skip
        positions, found = answers(keys, k, query.divisor)
        return self._doc_nums[positions], found


@dataclass(eq=False)
class _Filter:
    """One filter: what it allows, what an index of that would hold and has been saved up for, and the index."""

    allowed: Sequence[Allowed]
    n_postings: int
    spent_ns: float = 0.0
    index: FilteredIndex | None = None
    building: threading.Lock = field(default_factory=threading.Lock)


class FilteredIndexes:
    """Indexes by filter: lists of `Allowed` that are the same objects, as `CountedMasks` gives them for read-only masks."""

    def __init__(self, sparse: SparseField) -> None:
        self._field = sparse
        self._filters: OrderedDict[tuple[int, ...], _Filter] = OrderedDict()
        self._lock = threading.Lock()
        self._n_total = max(1, sum(segment.n_docs for segment in sparse.segments))
        self._n_postings = sum(segment.inverted.n_postings for segment in sparse.segments)

    def of(self, allowed: Sequence[Allowed]) -> FilteredIndex | None:
        """Return the index of a filter, made now where searches with it have cost enough; None where there is none yet."""
        with self._lock:
            found = self._filters.get(tuple(map(id, allowed)))
            if found is None or found.index is not None:
                return None if found is None else found.index
        if found.spent_ns < NS_INVERTED * found.n_postings or not found.building.acquire(blocking=False):
            return None
        try:
            index = FilteredIndex(self._field, allowed)
        finally:
            found.building.release()
        with self._lock:
            found.index = index
            self._make_room(found)
        return index

    def pay(self, allowed: Sequence[Allowed], seconds: float) -> None:
        """Note what a search with a filter has cost."""
        if not all(these.is_kept for these in allowed):
            return
        with self._lock:
            found = self._known(allowed)
            if found is not None:
                found.spent_ns += 1e9 * seconds

    def _known(self, allowed: Sequence[Allowed]) -> _Filter | None:
        """What is known of a filter; None for one that allows too many."""
        key = tuple(map(id, allowed))
        found = self._filters.get(key)
        if found is None:
            pairs = zip(allowed, self._field.segments, strict=True)
            n_allowed = sum(these.count(segment.n_docs) for these, segment in pairs)
            n_postings = int(self._n_postings * n_allowed / self._n_total)
            if n_allowed > FEW * self._n_total or n_postings > MAX_POSTINGS:
                return None
            found = self._filters[key] = _Filter(list(allowed), n_postings)
            if len(self._filters) > MAX_FILTERS:
                self._filters.popitem(last=False)
        self._filters.move_to_end(key)
        return found

    def _make_room(self, newest: _Filter) -> None:
        """Drop indexes that were not used for longest until the rest is small enough."""
        held = sum(each.n_postings for each in self._filters.values() if each.index is not None)
        for each in list(self._filters.values()):
            if held <= MAX_POSTINGS:
                return
            if each.index is not None and each is not newest:
                held -= each.n_postings
                each.index, each.spent_ns = None, 0.0
