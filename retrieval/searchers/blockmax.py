"""The fast exact searcher of sparse fields: Block-Max Pruning where it pays, a windowed scan elsewhere.

The scan costs half a nanosecond per posting whatever k is; block-max costs a pass over the bounds plus a microsecond per block
that it scores, and the number of those grows with k. `kernels.search` chooses for each segment.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, pairwise

import numpy as np

from ...index.arrays import Floats, Int32s, Int64s, Mask
from ...index.kernels import is_interpreted, read_only
from ...index.kernels.postings import BLOCK
from ...index.representations.sparse import SparseVectors
from ...index.sparse.field import SparseField
from ..hits import Hits
from ..kernels import Integer
from ..kernels.rows import score_rows, search_rows
from ..kernels.search import AUTO, BLOCKMAX, SCAN, scan_cost, scan_windows, search_alone, search_several, search_windows
from ..kernels.topk import Keys, new_keys
from ..workers import Workers
from .allowed import EVERYTHING, Allowed, CountedMasks, counted
from .common import Scratch, WindowScores, check_k, checked_doc_nums, checked_field, in_order, parts
from .filtered import FilteredIndex, FilteredIndexes
from .queries import IntegerQuery, answers, prepare

ALGORITHMS = {"auto": AUTO, "blockmax": BLOCKMAX, "scan": SCAN}
_SLACK_BLOCKS = (1 << 16) // BLOCK
NS_ROW, NS_ROW_TERM = 40.0, 2.0
"""What scoring a document from its row costs, and each term of the query beside. It steers, and never changes an answer."""
CHUNK = 16
"""Queries of a batch that one kernel answers."""
MAX_CHUNK_K = 10_000
"""For larger k it is one, to save memory."""
NS_HEAVY = 400_000.0
"""A single query whose scan takes longer is worth waking threads for."""


@dataclass(frozen=True, kw_only=True)
class SparseOptions:
    """Options of a search of sparse vectors.

    Attributes
    ----------
    algorithm : "auto", "blockmax", "scan" or "exhaustive"
        "auto" chooses per segment. All give the same answers with alpha at 1; "exhaustive" is the slow oracle.
    alpha : float in (0, 1]
        1: exact. Less: bounds count at this share, so fewer blocks and documents are scored. No part of "exhaustive".
    """

    algorithm: str = "auto"
    alpha: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 1:
            raise ValueError(f"alpha must be in (0, 1], not {self.alpha}")
        if self.algorithm not in (*ALGORITHMS, "exhaustive"):
            raise ValueError(f"algorithm must be one of {', '.join(ALGORITHMS)}, exhaustive, not {self.algorithm!r}")
        if self.algorithm == "exhaustive" and self.alpha < 1:
            raise ValueError("an exhaustive search scores every document: leave out alpha")


class BlockMaxSearcher:
    """Top k of a sparse field; safe to use from many threads.

    Raises
    ------
    RepresentationError
        The field holds no sparse vectors.
    """

    def __init__(self, field: SparseField) -> None:
        self.field = checked_field(field, SparseField, "sparse vectors")
        self._n_deleted = [segment.n_deleted for segment in field.segments]
        self._scores, self._scratch, self._workers, self._masks = WindowScores(), Scratch(), Workers(), CountedMasks()
        self._whole = self._windows(1)
        self._filtered = FilteredIndexes(field)
        self._is_alone = len(field.segments) == 1 and field.collection is None

    @cached_property
    def _live(self) -> list[Allowed]:
        """What searches without a filter may find."""
        return self._counted(self.field.masks())

    def search(
        self, queries: SparseVectors, k: int, allowed: Sequence[Mask | None] | None = None,
        options: SparseOptions = SparseOptions(), n_threads: int = 1,
    ) -> Hits:  # fmt: skip
        """Answer a batch of queries.

        Parameters
        ----------
        queries : SparseVectors
            In the field's term numbers (`SparseField.query_vectors`).
        k : int
            Answers per query; fewer only when fewer documents share a term with it.
        allowed : list of masks, one per segment, or None
            As `Snapshot.masks` gives them; None: all live documents.
        options : SparseOptions
            Every algorithm but "exhaustive", which is `ExhaustiveSearcher`.
        n_threads : int
            Queries answered in parallel; a single query that takes long is cut into parts of its windows instead.

        Returns
        -------
        Hits
            Exactly those of `ExhaustiveSearcher` when ``alpha`` is 1.

        Raises
        ------
        ValueError
            k < 1.
        """
        check_k(k)
        if options.algorithm not in ALGORITHMS:
            raise ValueError(f"algorithm must be one of {', '.join(ALGORITHMS)}, not {options.algorithm!r}")
        k = min(k, max(1, self.field.n_docs))
        filtered = allowed is not None
        documents = self._counted(allowed) if allowed is not None else self._live
        small = self._filtered.of(documents) if filtered and options.algorithm == "auto" else None
        if small is None and self._is_alone and self._is_scan(documents[0], options):
            if len(queries) > 1:
                return self._several(queries, k, documents[0], filtered, options, n_threads)
            alone = self._alone(queries, k, documents[0], filtered, options) if n_threads == 1 else None
            if alone is not None:
                return Hits.of([alone])

        def answer(number: int) -> tuple[Int32s, Floats]:
            query = prepare(self.field, queries, number)
            if small is not None:
                return small.search(query, k, self._scores)
            return self._one(query, k, documents, filtered, options, n_threads if len(queries) == 1 else 1)

        begun = time.perf_counter()
        hits = Hits.of(self._workers.map(answer, len(queries), n_threads))
        if filtered and small is None:
            self._filtered.pay(documents, time.perf_counter() - begun)
        return hits

    def score(self, queries: SparseVectors, doc_nums: Sequence[Int32s], n_threads: int = 1) -> list[Floats]:
        """Score given documents, from their rows: for any candidates, exactly the scores of `search` with ``alpha`` = 1.

        Parameters
        ----------
        queries : SparseVectors
            In the field's term numbers.
        doc_nums : sequence of (n,) int32, one per query
            In any order; deleted documents are scored too.
        n_threads : int
            Queries scored in parallel.

        Returns
        -------
        list of (n,) float32
            0 where query and document share no term.

        Raises
        ------
        ValueError
            Not one array per query, or a doc_num that the field does not have.
        """
        wanted = checked_doc_nums(self.field, queries, doc_nums)

        def score(number: int) -> Floats:
            query = prepare(self.field, queries, number)
            return in_order(wanted[number], lambda ascending: self._score(query, ascending))

        return self._workers.map(score, len(queries), n_threads)

    def warm(self) -> None:
        """Load or compile every kernel that a query can need: all algorithms, both widths of sums, with and without filter."""
        segments = self.field.segments
        segment = next((segment for segment in segments if len(segment.inverted.terms)), None)
        if segment is None:
            return
        vector = SparseVectors(np.array([0, 1], np.int64), segment.inverted.terms[:1].copy(), np.ones(1, np.float32))
        query = prepare(self.field, vector, 0)
        whole = [EVERYTHING] * len(segments)
        filtered = [counted(np.ones(each.n_docs, np.bool_), each.inverted.window) for each in segments]
        few = [replace(each, documents=read_only(np.zeros(1, np.int32))) for each in filtered]
        for narrow in (True, False):
            for algorithm in ALGORITHMS:
                for allowed in (whole, filtered, few):
                    self._one(replace(query, narrow=narrow), 1, allowed, True, SparseOptions(algorithm=algorithm))
        FilteredIndex(self.field, few).search(query, 1, self._scores)
        for queries in (vector, vector.select(np.zeros(2, np.int64))):
            self.search(queries, 1)
        self.score(vector, [np.array([segment.base], np.int32)])

    def _counted(self, masks: Sequence[Mask | None]) -> list[Allowed]:
        return self._masks.of(masks, [segment.inverted.window for segment in self.field.segments])

    def _score(self, query: IntegerQuery, doc_nums: Int32s) -> Floats:
        """Scores of ascending doc_nums."""
        scores = np.zeros(len(doc_nums), np.int64)
        ranks_of = {segment.base: ranks for segment, ranks in zip(self.field.segments, query.ranks, strict=True)}
        for segment, positions, span in parts(self.field.segments, doc_nums):
            present = ranks_of[segment.base] >= 0
            ranks, weights = ranks_of[segment.base][present], query.weights[present].astype(np.uint32)
            score_rows(segment.inverted.packed, positions, ranks, weights, scores[span])
            segment.inverted.file.raise_damage()
        return query.floats(scores)

    def _is_scan(self, allowed: Allowed, options: SparseOptions) -> bool:
        """Whether the scan is asked for, or may be chosen: neither block-max nor the rows of few documents."""
        return options.algorithm != "blockmax" and allowed.documents is None and not is_interpreted()

    def _alone(
        self, queries: SparseVectors, k: int, allowed: Allowed, filtered: bool, options: SparseOptions
    ) -> tuple[Int32s, Floats] | None:
        """Answer one query from the only segment, in one kernel; None where the scan is not chosen."""
        segment, scores = self.field.segments[0], self._scores
        inverted = segment.inverted
        keys, scale, done = search_alone(
            inverted.packed, inverted.terms, inverted.window, segment.n_docs, segment.base, queries.terms.copy(),
            queries.weights.copy(), allowed.mask, allowed.counts, k, 0 if filtered else k + self._n_deleted[0],
            ALGORITHMS[options.algorithm], scores.narrow, scores.wide,
        )  # fmt: skip
        inverted.file.raise_damage()
        return answers(keys, k, scale * self.field.scale) if done else None

    def _several(
        self, queries: SparseVectors, k: int, allowed: Allowed, filtered: bool, options: SparseOptions, n_threads: int
    ) -> Hits:
        """Answer a batch from the only segment, some queries in one kernel: threads then need not wait for Python."""
        segment, needed = self.field.segments[0], 0 if filtered else k + self._n_deleted[0]
        inverted, n_each = segment.inverted, CHUNK if k <= MAX_CHUNK_K else 1
        rows = queries.indptr.copy(), queries.terms.copy(), queries.weights.copy()

        def search(chunk: int) -> list[tuple[Int32s, Floats]]:
            first, scores = chunk * n_each, self._scores
            n = min(n_each, len(queries) - first)
            sizes, doc_nums, found = np.empty(n, np.int64), np.empty((n, k), np.int32), np.empty((n, k), np.float32)
            search_several(
                inverted.packed, inverted.terms, inverted.window, segment.n_docs, segment.base, *rows, allowed.mask,
                allowed.counts, k, needed, ALGORITHMS[options.algorithm], scores.narrow, scores.wide, first, self.field.scale,
                sizes, doc_nums, found,
            )  # fmt: skip
            inverted.file.raise_damage()
            return [
                (doc_nums[i, :size], found[i, :size]) if size >= 0
                else self._one(prepare(self.field, queries, first + i), k, [allowed], filtered, options)
                for i, size in enumerate(sizes.tolist())
            ]  # fmt: skip

        return Hits.of(list(chain.from_iterable(self._workers.map(search, -(-len(queries) // n_each), n_threads))))

    def _one(
        self, query: IntegerQuery, k: int, allowed: Sequence[Allowed], filtered: bool, options: SparseOptions,
        n_threads: int = 1,
    ) -> tuple[Int32s, Floats]:  # fmt: skip
        shared_threshold = np.zeros(1, np.int64)
        n_threads = n_threads if n_threads > 1 and self._is_heavy(query) else 1
        windows = self._whole if n_threads == 1 else self._windows(n_threads)

        def search(numbers: Iterable[int]) -> Keys:
            keys = new_keys(k)
            n: Integer = 0
            floor: Integer = 0
            for number in numbers:
                n, floor = self._search(
                    *windows[number], query, allowed, filtered, keys, n, k, floor, shared_threshold, options
                )  # fmt: skip
            return keys[:n]

        if n_threads == 1:
            keys = search(range(len(windows)))
        else:
            keys = np.concatenate(self._workers.share(search, len(windows), n_threads))
        return answers(keys, k, query.divisor)

    def _search(
        self, i: int, first: int, last: int, query: IntegerQuery, allowed: Sequence[Allowed], filtered: bool, keys: Keys,
        n: Integer, k: int, floor: Integer, shared_threshold: Int64s, options: SparseOptions,
    ) -> tuple[Integer, Integer]:  # fmt: skip
        """Search windows ``first`` to ``last`` - 1 of segment ``i``, in the way that looks cheapest."""
        segment, these, ranks = self.field.segments[i], allowed[i], query.ranks[i]
        packed, window = segment.inverted.packed, segment.inverted.window
        algorithm = SCAN if is_interpreted() and options.algorithm == "auto" else ALGORITHMS[options.algorithm]
        if these.documents is not None and algorithm == AUTO:
            span = np.searchsorted(these.documents, [first * window, last * window])
            documents = these.documents[span[0] : span[1]]
            part = (last - first) / len(these.counts)
            if (NS_ROW + NS_ROW_TERM * len(ranks)) * len(documents) <= part * scan_cost(packed, segment.n_docs, ranks):
                found = search_rows(
                    packed, segment.base, documents, ranks, query.weights, keys, n, k, floor, shared_threshold
                )  # fmt: skip
                segment.inverted.file.raise_damage()
                return found
        here = (
            packed, window, first, last, segment.n_docs, segment.base, ranks, query.weights, these.mask, these.counts,
        )  # fmt: skip
        narrow, wide = self._scores.narrow, self._scores.wide
        needed = 0 if filtered else k + self._n_deleted[i]  # how many documents a filter leaves out is unknown
        n, floor, done = scan_windows(*here, keys, n, k, floor, shared_threshold, needed, algorithm, narrow, wide)
        if not done:
            n_bounds = (last - first) * window // BLOCK + _SLACK_BLOCKS
            bounds = self._scratch.take("bounds", n_bounds, np.uint16 if query.narrow else np.uint32)
            n, floor, done = search_windows(
                *here, keys, n, k, floor, shared_threshold, options.alpha, algorithm, bounds
            )  # fmt: skip
        if not done:
            n, floor, _ = scan_windows(*here, keys, n, k, floor, shared_threshold, needed, SCAN, narrow, wide)
        segment.inverted.file.raise_damage()
        return n, floor

    def _is_heavy(self, query: IntegerQuery) -> bool:
        """Whether threads share a query."""
        pairs = zip(self.field.segments, query.ranks, strict=True)
        return sum(scan_cost(segment.inverted.packed, segment.n_docs, ranks) for segment, ranks in pairs) > NS_HEAVY

    def _windows(self, n_threads: int) -> list[tuple[int, int, int]]:
        """Segment numbers with their windows, from the first on, before the last: whole, or one part per thread.

        More parts would balance better, and repeat more of what is done once per part: two or four per thread were slower.
        """
        windows = []
        for i, segment in enumerate(self.field.segments):
            n_windows = -(-segment.n_docs // segment.inverted.window)
            n_parts = min(n_windows, n_threads)
            windows += [(i, *edges) for edges in pairwise(n_windows * part // n_parts for part in range(n_parts + 1))]
        return windows
