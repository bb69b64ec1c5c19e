"""SLIM: candidates by the maxima of the documents' tokens, then the exact score over the tokens (arXiv 2302.06587).

The first stage is Block-Max search with the fused query vector, which mixes a lower and an upper bound of the score (see
`index.sparse_multivectors`). Scores are of integers, impacts and rounded query weights: the same in every searcher, however
the documents are cut into segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...index.arrays import Floats, Int32s, Int64s
from ...index.errors import RepresentationError
from ...index.representations.sparse import SparseVectors
from ...index.representations.sparse_multivectors import SparseMultiVectors, fused_vectors
from ...index.segments import Mask, Segment
from ...index.snapshot import Snapshot
from ..hits import Hits
from ..kernels.slim import score_sparse_tokens
from ..workers import Workers
from .blockmax import BlockMaxSearcher, SearchOptions

MIN_CANDIDATES = 100
CANDIDATES_PER_ANSWER = 10
MAX_TOKEN_WEIGHT = 1 << 23
"""Integer weights of a query's token sum to this at most, so that its dot product with impacts fits 31 bits."""
CHUNK_DOCS = 1024
EXACT = SearchOptions()


@dataclass(frozen=True, kw_only=True)
class SlimOptions:
    """How to search.

    Attributes
    ----------
    n_candidates : int or None
        Documents that are scored over their tokens, at least the answers asked for; None: ten times as many, at least 100.
    beta : float in [0, 1]
        Share of the lower bound in the first stage.
    """

    n_candidates: int | None = None
    beta: float = 0.01

    def __post_init__(self) -> None:
        if self.n_candidates is not None and self.n_candidates < 1:
            raise ValueError(f"n_candidates is {self.n_candidates}: it must be >= 1, or None")
        if not 0 <= self.beta <= 1:
            raise ValueError(f"beta is {self.beta}: it must be in [0, 1]")

    def candidates(self, k: int) -> int:
        """Return how many documents are scored over their tokens for ``k`` answers."""
        return max(k, self.n_candidates or max(MIN_CANDIDATES, CANDIDATES_PER_ANSWER * k))


@dataclass(frozen=True, eq=False)
class SlimQuery:
    """One query with integer weights.

    Attributes
    ----------
    terms : (n_terms,) int32
        Of all its tokens, ascending.
    table : (1 + n_terms, n_tokens) int32
        Row ``1 + i`` has the weights of term ``i`` in each token; row 0 is for all other terms.
    scale : float
        Integer weight / float weight.
    """

    terms: Int32s
    table: Int32s
    scale: float

    @classmethod
    def of(cls, tokens: SparseVectors) -> SlimQuery:
        """Round the weights of a query's tokens."""
        owners = np.repeat(np.arange(len(tokens)), np.diff(tokens.indptr))
        heaviest = np.bincount(owners, weights=tokens.weights).max(initial=0.0)
        scale = MAX_TOKEN_WEIGHT / float(heaviest) if heaviest else 1.0
        terms, slots = np.unique(tokens.terms, return_inverse=True)
        table = np.zeros((1 + len(terms), len(tokens)), np.int32)
        table[1 + slots, owners] = np.rint(tokens.weights.astype(np.float64) * scale)
        return cls(terms, table, scale)

    def floats(self, scores: Int64s, snapshot: Snapshot) -> Floats:
        """Integer scores -> scores in units of query weight x document weight."""
        return (scores / (self.scale * (snapshot.manifest.scale or 1.0))).astype(np.float32)


class SlimSearcher:
    """Top k of a snapshot by SLIM's score; exact for the candidates. Safe to use from many threads.

    Raises
    ------
    RepresentationError
        The index holds no sparse token vectors.
    """

    def __init__(self, snapshot: Snapshot, options: SlimOptions | None = None) -> None:
        _check_kind(snapshot)
        self.snapshot, self.options = snapshot, options or SlimOptions()
        self._first, self._workers = BlockMaxSearcher(snapshot), Workers()

    def search(
        self, queries: SparseMultiVectors, k: int, allowed: Sequence[Mask | None] | None = None,
        options: SearchOptions = EXACT, n_threads: int = 1,
    ) -> Hits:  # fmt: skip
        """Answer a batch of queries.

        Parameters
        ----------
        queries : SparseMultiVectors
        k : int
            Answers a query; fewer only when fewer documents share a term with it.
        allowed : list of masks, one a segment, or None
            As `Snapshot.masks` gives them; None: all live documents.
        options : SearchOptions
            Of the first stage.
        n_threads : int
            Queries answered in parallel.

        Raises
        ------
        ValueError
            k < 1.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        fused = fused_vectors(queries, self.options.beta)
        candidates = self._first.search(fused, self.options.candidates(k), allowed, options, n_threads)

        def answer(number: int) -> tuple[Int32s, Floats]:
            return self._refine(queries.row(number), candidates.query(number)[0], k)

        return Hits.of(self._workers.map(answer, len(queries), n_threads))

    def warm(self) -> None:
        """Load or compile every kernel that a query can need."""
        self._first.warm()
        for segment in self.snapshot.segments:
            _score(segment, np.zeros(1, np.int32), SlimQuery.of(SparseVectors.from_rows([([0], [1.0])])))

    def _refine(self, tokens: SparseVectors, candidates: Int32s, k: int) -> tuple[Int32s, Floats]:
        query = SlimQuery.of(tokens)
        doc_nums = np.sort(candidates)
        scores = np.zeros(len(doc_nums), np.int64)
        for segment in self.snapshot.segments:
            first, last = np.searchsorted(doc_nums, [segment.base, segment.base + segment.record.n_docs]).tolist()
            if first < last:
                scores[first:last] = _score(segment, (doc_nums[first:last] - segment.base).astype(np.int32), query)
        return _best(doc_nums, scores, k, query, self.snapshot)


class ExhaustiveSlimSearcher:
    """The oracle: score the tokens of every document in NumPy. Errors are those of `SlimSearcher`."""

    def __init__(self, snapshot: Snapshot) -> None:
        _check_kind(snapshot)
        self.snapshot = snapshot

    def search(self, queries: SparseMultiVectors, k: int, allowed: Sequence[Mask | None] | None = None) -> Hits:
        """Answer a batch; those of `SlimSearcher.search` are the same when all documents are candidates."""
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        masks = self.snapshot.masks() if allowed is None else allowed
        return Hits.of([self._one(SlimQuery.of(queries.row(number)), k, masks) for number in range(len(queries))])

    def _one(self, query: SlimQuery, k: int, masks: Sequence[Mask | None]) -> tuple[Int32s, Floats]:
        scores = [np.empty(0, np.int64)]
        for segment, mask in zip(self.snapshot.segments, masks, strict=True):
            found = _score_all(segment, query)
            scores.append(found if mask is None else np.where(mask, found, 0))
        totals = np.concatenate(scores)
        hits = np.flatnonzero(totals)
        return _best(hits.astype(np.int32), totals[hits], k, query, self.snapshot)


def _check_kind(snapshot: Snapshot) -> None:
    if not snapshot.manifest.sparse_tokens:
        raise RepresentationError(f"{snapshot.path}: the index holds no sparse token vectors")


def _score(segment: Segment, positions: Int32s, query: SlimQuery) -> Int64s:
    """Scores of documents of a segment, by the kernel."""
    part = segment.sparse_tokens
    slots = np.zeros(len(part.inverted.terms), np.int32)
    ranks = part.inverted.ranks(query.terms)
    slots[ranks[ranks >= 0]] = 1 + np.flatnonzero(ranks >= 0)
    scores = np.empty(len(positions), np.int64)
    score_sparse_tokens(positions, part.offsets, part.indptr, part.ranks, part.impacts, slots, query.table, scores)
    return scores


def _score_all(segment: Segment, query: SlimQuery) -> Int64s:
    """Scores of all documents of a segment, in NumPy: products, sums by token, maxima by document, sums over the query."""
    scores = np.zeros(segment.record.n_docs, np.int64)
    for first in range(0, len(scores), CHUNK_DOCS):
        part = segment.sparse_tokens.span(first, min(first + CHUNK_DOCS, len(scores)))
        tokens = np.repeat(np.arange(len(part.rows.indptr) - 1), np.diff(part.rows.indptr))
        shared = np.flatnonzero(np.isin(part.rows.terms, query.terms))
        if not len(shared):
            continue
        slots = 1 + np.searchsorted(query.terms, part.rows.terms[shared])
        products = query.table[slots].astype(np.int64) * part.rows.impacts[shared, None]
        starts = np.flatnonzero(np.diff(tokens[shared], prepend=-1))
        dots = np.add.reduceat(products, starts, axis=0)  # of each token that shares a term with the query
        owners = np.searchsorted(part.offsets, tokens[shared][starts], side="right") - 1
        starts = np.flatnonzero(np.diff(owners, prepend=-1))
        scores[first + owners[starts]] = np.maximum.reduceat(dots, starts, axis=0).sum(axis=1)
    return scores


def _best(doc_nums: Int32s, scores: Int64s, k: int, query: SlimQuery, snapshot: Snapshot) -> tuple[Int32s, Floats]:
    """Return the k best, ties by doc_num."""
    best = np.lexsort((doc_nums, -scores))[:k]
    return doc_nums[best], query.floats(scores[best], snapshot)
