"""Sparse fields: vectors, search, score, explanation and warm-up of one field of sparse vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...index.arrays import Floats, Int32s, Mask
from ...index.representations.sparse import SparseVectors
from ...index.sparse.field import SparseField
from ..hits import Hits
from .blockmax import BlockMaxSearcher, SparseOptions
from .common import single
from .exhaustive import ExhaustiveSearcher
from .explanation import FieldExplanation, term_matches
from .queries import prepare

if TYPE_CHECKING:
    from ..encoders.base import SparseEncoder

__all__ = ["SparseOptions", "SparseSearcher"]


class SparseSearcher:
    """The `FieldSearcher` of sparse vectors."""

    options_type = SparseOptions

    def __init__(self, field: SparseField, encoder: SparseEncoder | None = None) -> None:
        self.field, self.encoder = field, encoder
        self._fast, self._oracle = BlockMaxSearcher(field), ExhaustiveSearcher(field)

    def vectors(self, queries: object) -> SparseVectors:
        """Bring query vectors of any accepted kind into the field's term numbers, BM25's idf multiplied in.

        Parameters
        ----------
        queries : SparseVectors, or what `exchange.vectors.to_sparse_vectors` takes
            Mappings of term -> weight, SciPy matrices, arrays, tensors.

        Raises
        ------
        TypeError, RepresentationError
            As `to_sparse_vectors` and `SparseField.query_vectors` do.
        """
        if not isinstance(queries, SparseVectors):
            from ..exchange.vectors import to_sparse_vectors

            queries = to_sparse_vectors(queries)
        return self.field.query_vectors(queries)

    def search(
        self, queries: SparseVectors, k: int, *, allowed: Sequence[Mask | None] | None = None,
        options: SparseOptions | None = None, n_threads: int = 1,
    ) -> Hits:  # fmt: skip
        """Return the k best documents of each query; see `BlockMaxSearcher.search`."""
        options = options or SparseOptions()
        if options.algorithm == "exhaustive":
            return self._oracle.search(queries, k, allowed)
        return self._fast.search(queries, k, allowed, options, n_threads)

    def score(
        self, queries: SparseVectors, doc_nums: Sequence[Int32s], *, options: SparseOptions | None = None, n_threads: int = 1
    ) -> list[Floats]:
        """Score given documents; see `BlockMaxSearcher.score`. No option changes a score."""
        return self._fast.score(queries, doc_nums, n_threads)

    def explain(
        self, queries: SparseVectors, number: int, query_text: str, doc_num: int, document_text: str
    ) -> FieldExplanation:
        """Explain the score of one document for one of the queries: the terms that both have."""
        query, row = prepare(self.field, queries, number), self.field.document_row(doc_num)
        shared, in_query, in_row = np.intersect1d(query.terms, row.terms, assume_unique=True, return_indices=True)
        query_weights = [integer / query.scale for integer in query.weights[in_query].tolist()]
        weights = row.weights[in_row].tolist()
        scores = [query_weight * weight for query_weight, weight in zip(query_weights, weights, strict=True)]
        parts = zip(self.field.vocabulary.strings(shared), scores, query_weights, weights, strict=True)
        terms = term_matches(parts, self.encoder, query_text, document_text)
        score = float(self.score(single(queries, number), [np.array([doc_num], np.int32)])[0][0])
        return FieldExplanation(field=self.field.name, score=score, contribution=score, terms=terms)

    def warm(self) -> None:
        """Load or compile every kernel that a query can need."""
        self._fast.warm()
