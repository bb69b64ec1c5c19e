"""The fast exact searcher of sparse fields: Block-Max Pruning where it pays, a windowed scan elsewhere.

The scan costs half a nanosecond per posting whatever k is; block-max costs a pass over the bounds plus a microsecond per block
that it scores, and the number of those grows with k. `kernels.search` chooses for each segment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from ...index.arrays import Floats, Int32s, Int64s, Mask
from ...index.kernels import is_interpreted
from ...index.kernels.postings import BLOCK
from ...index.representations.sparse import SparseVectors
from ...index.sparse.field import SparseField
from ..hits import Hits
from ..kernels import Integer
from ..kernels.query import count_postings, finish, seed
from ..kernels.rows import score_rows, search_rows
from ..kernels.scan import NS_POSTING
from ..kernels.search import AUTO, BLOCKMAX, MAXSCORE, SCAN, scan_windows, search_windows
from ..kernels.topk import Keys, new_keys
from ..workers import Workers
from .allowed import EVERYTHING, Allowed, CountedMasks, counted
from .common import Scratch, check_k, checked_doc_nums, checked_field, in_order, parts
from .queries import IntegerQuery, prepare

ALGORITHMS = {"auto": AUTO, "blockmax": BLOCKMAX, "scan": SCAN, "maxscore": MAXSCORE}
_SLACK_BLOCKS = (1 << 16) // BLOCK
NS_ROW, NS_ROW_TERM = 40.0, 2.0
"""What scoring a document from its row costs, and each term of the query beside. It steers, and never changes an answer."""
HEAVY_POSTINGS = 1_000_000
"""From here on a single query is worth waking threads for: a plain scan would take half a millisecond."""


@dataclass(frozen=True, kw_only=True)
class SparseOptions:
    """Options of a search of sparse vectors.

    Attributes
    ----------
    algorithm : "auto", "blockmax", "scan", "maxscore" or "exhaustive"
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
        self._scratch, self._workers, self._masks = Scratch(), Workers(), CountedMasks()
        self._whole = self._windows(1)
        self._beyond_scans = False

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
            Queries answered in parallel; a single query that has many postings is cut into parts of its windows instead.

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
        masks = self.field.masks() if allowed is None else allowed
        documents = self._masks.of(masks, [segment.inverted.window for segment in self.field.segments])
        filtered = allowed is not None
        threads_each = n_threads if len(queries) == 1 else 1

        def answer(number: int) -> tuple[Int32s, Floats]:
            return self._one(prepare(self.field, queries, number), k, documents, filtered, options, threads_each)

        return Hits.of(self._workers.map(answer, len(queries), n_threads))

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
        few = [replace(each, documents=np.empty(0, np.int32)) for each in filtered]
        for narrow in (True, False):
            for algorithm in ALGORITHMS:
                for allowed in (whole, filtered, few):
                    self._one(replace(query, narrow=narrow), 1, allowed, True, SparseOptions(algorithm=algorithm))
        self.score(vector, [np.array([segment.base], np.int32)])

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

    def _one(
        self, query: IntegerQuery, k: int, allowed: Sequence[Allowed], filtered: bool, options: SparseOptions,
        n_threads: int = 1,
    ) -> tuple[Int32s, Floats]:  # fmt: skip
        segments = self.field.segments
        shared_threshold = np.zeros(1, np.int64)
        if not filtered:  # how many documents a filter leaves out is unknown; deleted ones are counted
            for segment, n_deleted, ranks in zip(segments, self._n_deleted, query.ranks, strict=True):
                reached = seed(segment.inverted.arrays.kth, ranks, query.weights, k + n_deleted)
                shared_threshold[0] = max(shared_threshold[0], reached)
        n_threads = n_threads if n_threads > 1 and self._is_heavy(query) else 1
        windows = self._whole if n_threads == 1 else self._windows(n_threads)

        def search(numbers: Iterator[int]) -> Keys:
            keys = new_keys(k)
            n: Integer = 0
            floor: Integer = 0
            for number in numbers:
                n, floor = self._search(*windows[number], query, allowed, keys, n, k, floor, shared_threshold, options)
            return keys[:n]

        found = self._workers.share(search, len(windows), n_threads)
        keys = found[0] if len(found) == 1 else np.concatenate(found)
        return finish(keys, len(keys), k, query.divisor)

    def _search(
        self, i: int, first: int, last: int, query: IntegerQuery, allowed: Sequence[Allowed], keys: Keys, n: Integer, k: int,
        floor: Integer, shared_threshold: Int64s, options: SparseOptions,
    ) -> tuple[Integer, Integer]:  # fmt: skip
        """Search windows ``first`` to ``last`` - 1 of segment ``i``, in the way that looks cheapest."""
        segment, these, ranks = self.field.segments[i], allowed[i], query.ranks[i]
        packed, window = segment.inverted.packed, segment.inverted.window
        algorithm = SCAN if is_interpreted() and options.algorithm == "auto" else ALGORITHMS[options.algorithm]
        kind = np.uint16 if query.narrow else np.uint32
        accumulator = self._scratch.take("accumulator", 1 << 16, kind)
        done = False
        if these.documents is not None and algorithm == AUTO:
            span = np.searchsorted(these.documents, [first * window, last * window])
            documents = these.documents[span[0] : span[1]]
            n_postings = int(count_postings(segment.inverted.arrays.starts, ranks)) * (last - first) / len(these.counts)
            if (NS_ROW + NS_ROW_TERM * len(ranks)) * len(documents) <= NS_POSTING * n_postings:
                n, floor = search_rows(
                    packed, segment.base, documents, ranks, query.weights, keys, n, k, floor, shared_threshold, accumulator
                )
                done = True
        elif algorithm == SCAN or (algorithm == AUTO and not self._beyond_scans):
            n, floor, done = scan_windows(
                packed, window, first, last, segment.n_docs, segment.base, ranks, query.weights, these.mask, these.counts,
                keys, n, k, floor, shared_threshold, algorithm, accumulator,
            )  # fmt: skip
            self._beyond_scans = not done
        if not done:
            bounds = self._scratch.take("bounds", (last - first) * window // BLOCK + _SLACK_BLOCKS, kind)
            n, floor = search_windows(
                packed, window, first, last, segment.n_docs, segment.base, ranks, query.weights, these.mask, these.counts,
                keys, n, k, floor, shared_threshold, options.alpha, algorithm, accumulator, bounds,
            )  # fmt: skip
        segment.inverted.file.raise_damage()
        return n, floor

    def _is_heavy(self, query: IntegerQuery) -> bool:
        """Whether a query has so many postings that threads share it."""
        pairs = zip(self.field.segments, query.ranks, strict=True)
        n_postings = sum(count_postings(segment.inverted.arrays.starts, ranks) for segment, ranks in pairs)
        return int(n_postings) > HEAVY_POSTINGS

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
