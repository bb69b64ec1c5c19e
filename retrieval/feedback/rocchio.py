"""Counterfactual Rocchio (Zhuang, Li and Zuccon, SIGIR 2022): queries are moved towards documents that were clicked.

A query ``q`` that was logged ``N`` times becomes::

    q' = alpha q + beta f(q),   f(q) = 1/N sum over its clicks of r^eta d

with the vector ``d`` and the rank ``r`` of the clicked document. Users look at rank ``r`` with a probability of about
``r^-eta``: dividing by it makes the sum, on average, the one over all documents shown that the users find relevant, wherever
they stood. A query that was not logged takes the mean of ``f`` over the logged queries nearest to it, three in the paper.

The paper moves dense vectors. Here encodings of token vectors and sparse vectors are moved too, with their documents' vectors
scaled to the length of the query, since documents of these kinds are many times as long as queries; of sparse documents the
heaviest terms are taken. A query without clicks stays as it is: the paper multiplies it by ``alpha``, which orders documents
alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any

import numpy as np

from ...index.arrays import Floats, Int32s
from ...index.kernels import read_only
from ...index.kernels.terms import times_idf
from ...index.representations.dense import DenseVectors
from ...index.representations.sparse import SparseVectors
from ...index.sparse.field import SparseField
from ..searchers.dense import DenseSearcher
from ..searchers.fde import FdeSearcher
from ..searchers.registry import FieldSearcher
from ..searchers.sparse import SparseSearcher

Movable = DenseVectors | SparseVectors
ROUNDING = np.float32(1e-6)
"""Rows of length 1 that are nearer to the mean are the mean."""
Doubles = np.ndarray[Any, np.dtype[np.float64]]
BOUNDS = {
    "alpha": (0, 1e6), "beta": (0, 1e6), "eta": (0, 4), "n_neighbours": (0, 100), "min_similarity": (-1, 1),
    "n_terms": (1, 10_000), "min_times": (1, 1e9),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Rocchio:
    """How far clicks move a query.

    Attributes
    ----------
    alpha, beta : float
        Shares of the query and of its clicks.
    eta : float
        How fast users stop looking: rank ``r`` is seen with probability ``r^-eta``. 0: they look at all that is shown.
    n_neighbours : int
        Logged queries that a query takes clicks from which is not logged itself; 0: none.
    min_similarity : float
        Those of a smaller cosine, see `Neighbourhood`, give nothing; the mean counts them as queries without clicks.
    n_terms : int
        Terms of a sparse query that come from clicks, the heaviest ones.
    min_times : int
        Logged queries that were asked less often give nothing: few clicks say little, and the correction by ``eta`` makes their
        noise larger.

    Raises
    ------
    ValueError
        A number out of range.
    """

    alpha: float = 0.4
    beta: float = 0.6
    eta: float = 1.0
    n_neighbours: int = 3
    min_similarity: float = 0.8
    n_terms: int = 64
    min_times: int = 1

    def __post_init__(self) -> None:
        for each in fields(self):
            low, high = BOUNDS[each.name]
            value = getattr(self, each.name)
            if not (isfinite(value) and low <= value <= high):
                raise ValueError(f"{each.name} is {value}: it must be {low:g} to {high:g}")


def is_movable(searcher: FieldSearcher) -> bool:
    """Whether queries of a field can be moved: documents' vectors must be such as queries' are."""
    if isinstance(searcher, DenseSearcher):
        return searcher.field.record.encoder.kind != "gaussian"
    return isinstance(searcher, FdeSearcher | SparseSearcher)


def moved(
    searcher: FieldSearcher, query: Movable, doc_nums: Sequence[int], weights: Sequence[float], options: Rocchio
) -> Movable:
    """Move one query.

    Parameters
    ----------
    searcher : FieldSearcher
        Of a field for which `is_movable` holds.
    query : DenseVectors or SparseVectors
        One row, as the searcher's ``vectors`` returns it.
    doc_nums, weights : sequences of n
        Clicked documents, and the weight of each in ``f``.
    options : Rocchio

    Returns
    -------
    DenseVectors or SparseVectors
        One row.
    """
    field: Any = searcher.field
    if isinstance(query, SparseVectors):
        return _moved_sparse(field, query, doc_nums, weights, options)
    field = field.dense if isinstance(searcher, FdeSearcher) else field
    documents = np.stack([field.document_vector(doc_num) for doc_num in doc_nums]).astype(np.float64)
    row = query.row(0).astype(np.float64)
    if isinstance(searcher, FdeSearcher):
        lengths = np.linalg.norm(documents, axis=1, keepdims=True)
        documents *= np.linalg.norm(row) / np.maximum(lengths, np.finfo(np.float32).tiny)
    return DenseVectors((options.alpha * row + options.beta * (np.array(weights) @ documents)).astype(np.float32)[None])


def _moved_sparse(
    field: SparseField, query: SparseVectors, doc_nums: Sequence[int], weights: Sequence[float], options: Rocchio
) -> SparseVectors:
    terms, own = query.row(0)
    length = float(np.linalg.norm(own.astype(np.float64)))
    clicked: dict[int, float] = {}
    for doc_num, weight in zip(doc_nums, weights, strict=True):
        numbers, impacts = document_terms(field, doc_num)
        scale = weight * length / max(float(np.linalg.norm(impacts)), float(np.finfo(np.float32).tiny))
        for term, impact in zip(numbers.tolist(), (impacts * scale).tolist(), strict=True):
            clicked[term] = clicked.get(term, 0.0) + impact
    heaviest = sorted(clicked.items(), key=lambda pair: (-pair[1], pair[0]))[: options.n_terms]
    row = {term: options.alpha * weight for term, weight in zip(terms.tolist(), own.tolist(), strict=True)}
    for term, impact in heaviest:
        row[term] = row.get(term, 0.0) + options.beta * impact
    return SparseVectors.from_rows([(list(row), list(row.values()))])


def document_terms(field: SparseField, doc_num: int) -> tuple[Int32s, Doubles]:
    """Terms of a document and their weights as a query has them: of BM25 times idf."""
    terms, weights = field.document_row(doc_num).row(0)
    if field.bm25 is not None:
        weights = times_idf(read_only(weights), field.document_frequencies(terms), field.n_docs)
    return terms, weights.astype(np.float64)


def unit(vectors: Movable) -> Movable:
    """Scale rows to length 1; rows of zeros stay."""
    tiny = np.finfo(np.float32).tiny
    if isinstance(vectors, DenseVectors):
        lengths = np.linalg.norm(vectors.vectors, axis=1, keepdims=True)
        return DenseVectors((vectors.vectors / np.maximum(lengths, tiny)).astype(np.float32))
    squares = np.bincount(_rows(vectors), np.square(vectors.weights, dtype=np.float64), minlength=len(vectors))
    scales = np.repeat(1 / np.maximum(np.sqrt(squares), tiny), np.diff(vectors.indptr))
    return SparseVectors(vectors.indptr, vectors.terms, (vectors.weights * scales).astype(np.float32))


def joined(batches: Sequence[Movable]) -> Movable:
    """Join one or more batches of one kind."""
    dense = [batch for batch in batches if isinstance(batch, DenseVectors)]
    if dense:
        return DenseVectors.of(dense, dense[0].dim)
    sparse = [batch for batch in batches if isinstance(batch, SparseVectors)]
    counts = np.concatenate([np.diff(batch.indptr) for batch in sparse])
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    terms, weights = (np.concatenate([getattr(batch, name) for batch in sparse]) for name in ("terms", "weights"))
    return SparseVectors(indptr, terms, weights)


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """Logged queries, for cosines with others; those of dense vectors are around the mean of all that are logged.

    Models give all queries a large common part, which makes plain cosines of unrelated ones as high as .9.

    Attributes
    ----------
    vectors : DenseVectors or SparseVectors
        n rows of length 1.
    mean : (dim,) float32 or None
        None: of sparse vectors, which have no such part.
    lengths : (n,) float32
        Of the rows around the mean.
    """

    vectors: Any
    mean: Floats | None
    lengths: Floats

    @classmethod
    def of(cls, vectors: Movable) -> Neighbourhood:
        """Take the mean of rows of length 1."""
        if isinstance(vectors, SparseVectors):
            return cls(vectors, None, np.ones(len(vectors), np.float32))
        mean: Floats = vectors.vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        lengths: Floats = np.linalg.norm(vectors.vectors - mean, axis=1).astype(np.float32)
        return cls(vectors, mean, lengths)

    def cosines(self, query: Movable) -> Floats:
        """Cosines (n,) float32 with one query, a row; 0 where one of the two is the mean."""
        query = unit(query)
        if isinstance(query, SparseVectors) or self.mean is None:
            terms, weights = query.row(0)
            by_term = np.zeros(1 + max(int(terms.max(initial=0)), int(self.vectors.terms.max(initial=0))))
            by_term[terms] = weights
            products = by_term[self.vectors.terms] * self.vectors.weights
            return np.bincount(_rows(self.vectors), products, minlength=len(self.vectors)).astype(np.float32)
        centred = query.row(0) - self.mean
        lengths = self.lengths * np.linalg.norm(centred)
        products = self.vectors.vectors @ centred - self.mean @ centred
        found: Floats = np.where(lengths > ROUNDING, products / np.maximum(lengths, ROUNDING), 0).astype(np.float32)
        return found


def _rows(vectors: SparseVectors) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Row of each posting."""
    return np.repeat(np.arange(len(vectors)), np.diff(vectors.indptr))
