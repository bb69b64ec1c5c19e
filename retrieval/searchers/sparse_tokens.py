"""Sparse token fields: vectors, search, score, explanation and warm-up of one field of sparse token vectors (SLIM)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...index.arrays import Floats, Int32s, Mask
from ...index.representations.sparse import SparseVectors
from ...index.representations.sparse_multivectors import SparseMultiVectors
from ...index.sparse.field import SparseTokenField
from ..hits import Hits
from .common import single
from .explanation import FieldExplanation, term_matches
from .slim import ExhaustiveSlimSearcher, SlimOptions, SlimSearcher

if TYPE_CHECKING:
    from ..encoders.base import SparseTokenEncoder

__all__ = ["SlimOptions", "SparseTokenSearcher"]


class SparseTokenSearcher:
    """The `FieldSearcher` of sparse token vectors."""

    options_type = SlimOptions

    def __init__(self, field: SparseTokenField, encoder: SparseTokenEncoder | None = None) -> None:
        self.field, self.encoder = field, encoder
        self._fast, self._oracle = SlimSearcher(field), ExhaustiveSlimSearcher(field)

    def vectors(self, queries: object) -> SparseMultiVectors:
        """Take queries as they are encoded; raises TypeError for anything but SparseMultiVectors."""
        if not isinstance(queries, SparseMultiVectors):
            raise TypeError(f"queries of sparse token vectors are SparseMultiVectors, not {type(queries).__name__}")
        return queries

    def search(
        self, queries: SparseMultiVectors, k: int, *, allowed: Sequence[Mask | None] | None = None,
        options: SlimOptions | None = None, n_threads: int = 1,
    ) -> Hits:  # fmt: skip
        """Return the k best documents of each query; see `SlimSearcher.search`."""
        if options is not None and options.algorithm == "exhaustive":
            return self._oracle.search(queries, k, allowed)
        return self._fast.search(queries, k, allowed, options, n_threads)

    def score(
        self, queries: SparseMultiVectors, doc_nums: Sequence[Int32s], *, options: SlimOptions | None = None,
        n_threads: int = 1,
    ) -> list[Floats]:  # fmt: skip
        """Score given documents; see `SlimSearcher.score`. No option changes a score."""
        return self._fast.score(queries, doc_nums, n_threads)

    def explain(
        self, queries: SparseMultiVectors, number: int, query_text: str, doc_num: int, document_text: str
    ) -> FieldExplanation:
        """Explain the score of one document for one of the queries.

        Each token of the query has its best token of the document; what they share is summed by term. ``query_weight`` is the
        sum over those tokens of the query, ``document_weight`` the mean, weighted so, over the document's.
        """
        query_weights, scores = _shared_terms(queries.row(number), self.field.document_sparse_tokens(doc_num))
        strings = self.field.vocabulary.strings(np.array(list(scores), np.int32))
        parts = (
            (string, score, query_weights[term], score / query_weights[term])
            for string, (term, score) in zip(strings, scores.items(), strict=True)
        )
        terms = term_matches(parts, self.encoder, query_text, document_text)
        score = float(self.score(single(queries, number), [np.array([doc_num], np.int32)])[0][0])
        return FieldExplanation(field=self.field.name, score=score, contribution=score, terms=terms)

    def warm(self) -> None:
        """Load or compile every kernel that a query can need."""
        self._fast.warm()


def _shared_terms(query: SparseVectors, document: SparseVectors) -> tuple[dict[int, float], dict[int, float]]:
    """Query weight and score of each term that the query's tokens share with their best tokens of the document."""
    query_weights: dict[int, float] = {}
    scores: dict[int, float] = {}
    for i in range(len(query)):
        weights = dict(zip(*(part.tolist() for part in query.row(i)), strict=True))
        shared = [
            {term: weight for term, weight in zip(*(part.tolist() for part in document.row(j)), strict=True) if term in weights}
            for j in range(len(document))
        ]
        nearest = max(shared, key=lambda row: sum(weights[term] * row[term] for term in row), default={})
        for term, weight in nearest.items():
            query_weights[term] = query_weights.get(term, 0.0) + weights[term]
            scores[term] = scores.get(term, 0.0) + weights[term] * weight
    return query_weights, scores
