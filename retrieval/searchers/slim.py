"""SLIM: candidates by the maxima of the documents' tokens, then the exact score over the tokens (arXiv 2302.06587).

The first stage is Block-Max search with the fused query vector, which mixes a lower and an upper bound of the score (see
`index.representations.sparse_multivectors`). Scores are sums of integers, impacts times rounded query weights: the same in
every searcher, however the documents are cut into segments. Documents of score 0 are no answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...index.arrays import Floats, Int32s, Int64s, Mask
from ...index.representations.sparse import SparseVectors
from ...index.representations.sparse_multivectors import SparseMultiVectors, fused_vectors
from ...index.sparse.field import SparseTokenField
from ...index.sparse.sparse_tokens import SparseTokenIndex
from ..hits import Hits, best
from ..kernels.slim import score_sparse_tokens
from ..workers import Workers
from .blockmax import BlockMaxSearcher, SparseOptions
from .common import check_k, checked_doc_nums, checked_field, in_order, parts

MIN_CANDIDATES = 100
CANDIDATES_PER_ANSWER = 10
MAX_TOKEN_WEIGHT = 1 << 23
"""Integer weights of a query's token sum to this at most, so that its dot product with impacts fits 31 bits."""
MAX_DOT = (1 << 31) - 1
CHUNK_DOCS = 1024


@dataclass(frozen=True, kw_only=True)
class SlimOptions:
    """Options of a search of sparse token vectors.

    Attributes
    ----------
    algorithm : "auto" or "exhaustive"
        "auto": candidates by maxima. "exhaustive": the tokens of every document, which takes no other option.
    n_candidates : int or None
        Documents that are scored over their tokens, at least the answers asked for; None: ten times as many, at least 100.
    beta : float in [0, 1]
        Share of the lower bound in the first stage.
    alpha : float in (0, 1]
        Of the first stage; see `SparseOptions`.
    """

    algorithm: str = "auto"
    n_candidates: int | None = None
    beta: float = 0.01
    alpha: float = 1.0

    def __post_init__(self) -> None:
        if self.algorithm not in ("auto", "exhaustive"):
            raise ValueError(f"algorithm must be auto or exhaustive, not {self.algorithm!r}")
        if self.n_candidates is not None and self.n_candidates < 1:
            raise ValueError(f"n_candidates is {self.n_candidates}: it must be >= 1, or None")
        if not 0 <= self.beta <= 1:
            raise ValueError(f"beta is {self.beta}: it must be in [0, 1]")
        if not 0 < self.alpha <= 1:
            raise ValueError(f"alpha must be in (0, 1], not {self.alpha}")
        if self.algorithm == "exhaustive" and (self.n_candidates, self.beta, self.alpha) != (None, 0.01, 1.0):
            raise ValueError("an exhaustive search scores every document: leave out the other options")

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
    divisor : float
        Integer score / score in units of query weight x document weight.
    """

    terms: Int32s
    table: Int32s
    divisor: float

    @classmethod
    def of(cls, tokens: SparseVectors, field_scale: float) -> SlimQuery:
        """Round the weights of a query's tokens."""
        owners = np.repeat(np.arange(len(tokens)), np.diff(tokens.indptr))
        heaviest = np.bincount(owners, weights=tokens.weights).max(initial=0.0)
        widest = int(np.diff(tokens.indptr).max(initial=0))
        limit = max(1, min(MAX_TOKEN_WEIGHT, MAX_DOT // 255 - widest))  # rounding may add half a step per term
        scale = limit / float(heaviest) if heaviest else 1.0
        terms, slots = np.unique(tokens.terms, return_inverse=True)
        table = np.zeros((1 + len(terms), len(tokens)), np.int32)
        table[1 + slots, owners] = np.rint(tokens.weights.astype(np.float64) * scale)
        return cls(terms, table, scale * field_scale)

    def floats(self, scores: Int64s) -> Floats:
        """Integer scores -> scores in units of query weight x document weight."""
        return (scores / self.divisor).astype(np.float32)


class SlimSearcher:
    """Top k of a field of sparse token vectors by SLIM's score; exact for the candidates. Safe to use from many threads.

    Parameters
    ----------
    field : SparseTokenField
    options : SlimOptions
        Of searches that bring none.

    Raises
    ------
    RepresentationError
        The field holds no sparse token vectors.
    """

    def __init__(self, field: SparseTokenField, options: SlimOptions = SlimOptions()) -> None:
        self.field = checked_field(field, SparseTokenField, "sparse token vectors")
        self.options = options
        self._first, self._workers = BlockMaxSearcher(field), Workers()

    def search(
        self, queries: SparseMultiVectors, k: int, allowed: Sequence[Mask | None] | None = None,
        options: SlimOptions | None = None, n_threads: int = 1,
    ) -> Hits:  # fmt: skip
        """Answer a batch of queries.

        Parameters
        ----------
        queries : SparseMultiVectors
        k : int
            Answers per query; fewer only when fewer documents share a term with it.
        allowed : list of masks, one per segment, or None
            As `Snapshot.masks` gives them; None: all live documents.
        options : SlimOptions or None
            None: the searcher's own. ``algorithm`` is not looked at: "exhaustive" is `ExhaustiveSlimSearcher`.
        n_threads : int
            Queries answered in parallel.

        Raises
        ------
        ValueError
            k < 1.
        """
        check_k(k)
        chosen = options or self.options
        fused, first_options = fused_vectors(queries, chosen.beta), SparseOptions(alpha=chosen.alpha)
        candidates = self._first.search(fused, chosen.candidates(k), allowed, first_options, n_threads)

        def answer(number: int) -> tuple[Int32s, Floats]:
            query = SlimQuery.of(queries.row(number), self.field.scale)
            doc_nums = np.sort(candidates.query(number)[0])
            found, scores = best(doc_nums, self._score(query, doc_nums), k)
            return found, query.floats(scores)

        return Hits.of(self._workers.map(answer, len(queries), n_threads))

    def score(
        self, queries: SparseMultiVectors, doc_nums: Sequence[Int32s], n_threads: int = 1
    ) -> list[Floats]:  # fmt: skip
        """Score given documents over their tokens: for any candidates, exactly the scores of `search`.

        Parameters, result and errors are those of `BlockMaxSearcher.score`.
        """
        wanted = checked_doc_nums(self.field, queries, doc_nums)

        def score(number: int) -> Floats:
            query = SlimQuery.of(queries.row(number), self.field.scale)
            return query.floats(in_order(wanted[number], lambda ascending: self._score(query, ascending)))

        return self._workers.map(score, len(queries), n_threads)

    def warm(self) -> None:
        """Load or compile every kernel that a query can need."""
        self._first.warm()
        if self.field.n_total:
            one = SparseMultiVectors.of([SparseVectors.from_rows([([0], [1.0])])])
            self.score(one, [np.zeros(1, np.int32)])

    def _score(self, query: SlimQuery, doc_nums: Int32s) -> Int64s:
        """Integer scores of ascending doc_nums, by the kernel."""
        scores = np.zeros(len(doc_nums), np.int64)
        for segment, positions, span in parts(self.field.segments, doc_nums):
            part = segment.sparse_tokens
            slots = np.zeros(len(part.inverted.terms), np.int32)
            ranks = part.inverted.ranks(query.terms)
            slots[ranks[ranks >= 0]] = 1 + np.flatnonzero(ranks >= 0)
            score_sparse_tokens(
                part.file.checked, positions, part.offsets, part.indptr, part.ranks, part.impacts, slots, query.table,
                scores[span],
            )  # fmt: skip
            part.file.raise_damage()
        return scores


class ExhaustiveSlimSearcher:
    """The oracle: score the tokens of every document in NumPy. Errors are those of `SlimSearcher`."""

    def __init__(self, field: SparseTokenField) -> None:
        self.field = checked_field(field, SparseTokenField, "sparse token vectors")

    def search(self, queries: SparseMultiVectors, k: int, allowed: Sequence[Mask | None] | None = None) -> Hits:
        """Answer a batch; the answers of `SlimSearcher.search` are the same when all documents are candidates."""
        check_k(k)
        masks = self.field.masks() if allowed is None else allowed
        return Hits.of([self._one(SlimQuery.of(queries.row(i), self.field.scale), k, masks) for i in range(len(queries))])

    def _one(self, query: SlimQuery, k: int, masks: Sequence[Mask | None]) -> tuple[Int32s, Floats]:
        scores = [np.empty(0, np.int64)]
        for segment, mask in zip(self.field.segments, masks, strict=True):
            found = _score_all(segment.sparse_tokens, segment.n_docs, query)
            scores.append(found if mask is None else np.where(mask, found, 0))
        totals = np.concatenate(scores)
        hits = np.flatnonzero(totals)
        doc_nums, highest = best(hits, totals[hits], k)
        return doc_nums, query.floats(highest)


def _score_all(part: SparseTokenIndex, n_docs: int, query: SlimQuery) -> Int64s:
    """Scores of all documents of a segment, in NumPy: products, sums by token, maxima by document, sums over the query."""
    scores = np.zeros(n_docs, np.int64)
    for first in range(0, n_docs, CHUNK_DOCS):
        documents = part.span(first, min(first + CHUNK_DOCS, n_docs))
        tokens = np.repeat(np.arange(len(documents.rows.indptr) - 1), np.diff(documents.rows.indptr))
        shared = np.flatnonzero(np.isin(documents.rows.terms, query.terms))
        if not len(shared):
            continue
        slots = 1 + np.searchsorted(query.terms, documents.rows.terms[shared])
        products = query.table[slots].astype(np.int64) * documents.rows.impacts[shared, None]
        starts = np.flatnonzero(np.diff(tokens[shared], prepend=-1))
        dots = np.add.reduceat(products, starts, axis=0)  # of each token that shares a term with the query
        owners = np.searchsorted(documents.offsets, tokens[shared][starts], side="right") - 1
        starts = np.flatnonzero(np.diff(owners, prepend=-1))
        scores[first + owners[starts]] = np.maximum.reduceat(dots, starts, axis=0).sum(axis=1)
    return scores
