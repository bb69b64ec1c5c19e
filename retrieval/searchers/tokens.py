"""Token fields: vectors, search, score, explanation and warm-up of one field of token vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...index.arrays import Floats, Int32s, Mask
from ...index.multivector.field import TokenField
from ...index.representations.multivectors import MultiVectors
from ..hits import Hits
from .centroid import CentroidOptions, CentroidSearcher
from .common import single
from .early_reads import EarlyReads
from .explanation import FieldExplanation, TokenMatch
from .maxsim import MaxSimSearcher

if TYPE_CHECKING:
    from ..encoders.base import MultiVectorEncoder

__all__ = ["CentroidOptions", "TokenSearcher"]
_UNKNOWN = ("", 0, 0)


def token_vectors(queries: object, dim: int, where: str) -> MultiVectors:
    """Bring query vectors into one batch; parameters and errors are those of `TokenSearcher.vectors`."""
    if isinstance(queries, MultiVectors):
        return queries
    matrices = [queries] if isinstance(queries, np.ndarray) and queries.ndim == 2 else queries
    if not isinstance(matrices, Sequence) or not all(isinstance(m, np.ndarray) and m.ndim == 2 for m in matrices):
        raise TypeError(f"queries of token vectors are MultiVectors or matrices (n_tokens, dim), not {type(queries)}")
    for matrix in matrices:
        if matrix.shape[1] != dim:
            raise TypeError(f"{where}: queries are matrices (n_tokens, {dim}), not of shape {matrix.shape}")
    return MultiVectors.of([np.asarray(matrix, np.float32) for matrix in matrices], dim)


class TokenSearcher:
    """The `FieldSearcher` of token vectors."""

    options_type = CentroidOptions

    def __init__(self, field: TokenField, encoder: MultiVectorEncoder | None = None) -> None:
        self.field, self.encoder = field, encoder
        self._fast, self._oracle = CentroidSearcher(field), MaxSimSearcher(field)

    def vectors(self, queries: object) -> MultiVectors:
        """Bring query vectors of any accepted kind into one batch.

        Parameters
        ----------
        queries : MultiVectors, a matrix (n_tokens, dim), or a sequence of such matrices, one per query
            Tokens of unit length.

        Raises
        ------
        TypeError
            Anything else.
        RepresentationError
            Tokens that are not of unit length.
        """
        return token_vectors(queries, self.field.config.dim, f"{self.field.path}, field {self.field.name}")

    def search(
        self, queries: MultiVectors, k: int, *, allowed: Sequence[Mask | None] | None = None,
        options: CentroidOptions | None = None, n_threads: int = 1,
    ) -> Hits:  # fmt: skip
        """Return the k best documents of each query; see `CentroidSearcher.search`."""
        if options is not None and options.algorithm == "exhaustive":
            return self._oracle.search(queries, k, allowed)
        return self._fast.search(queries, k, allowed, options, n_threads)

    def early(self, n_queries: int) -> EarlyReads | None:
        """Reads for a batch of queries that can begin before `score` is called; None where nothing is read from disk."""
        return self._fast.early(n_queries)

    def score(
        self, queries: MultiVectors, doc_nums: Sequence[Int32s], *, options: CentroidOptions | None = None, n_threads: int = 1,
        early: EarlyReads | None = None,
    ) -> list[Floats]:  # fmt: skip
        """Score given documents, as a search with the same options does; see `CentroidSearcher.score`.

        Exactly the same numbers, but with ``algorithm="exhaustive"``, whose products go through BLAS: there within 1e-3.
        """
        if options is not None and options.algorithm == "exhaustive":
            if early is not None:
                early.close()
            return self._oracle.score(queries, doc_nums)
        return self._fast.score(queries, doc_nums, options, n_threads, early)

    def explain(
        self, queries: MultiVectors, number: int, query_text: str, doc_num: int, document_text: str
    ) -> FieldExplanation:
        """Explain the MaxSim of one document for one of the queries: each query token's best token of the document."""
        query, document = queries.row(number), self.field.document_tokens(doc_num)
        if not len(document) or not len(query):
            return FieldExplanation(field=self.field.name, score=0.0, contribution=0.0)
        score = float(self.score(single(queries, number), [np.array([doc_num], np.int32)])[0][0])
        similarities = query @ document.T
        nearest = similarities.argmax(axis=1)
        in_query = None if self.encoder is None else self.encoder.query_spans(query_text)
        in_document = None if self.encoder is None else self.encoder.document_spans(document_text)
        if in_query is None or len(in_query) != len(query):
            in_query = [_UNKNOWN] * len(query)
        if in_document is None or len(in_document) != len(document):
            in_document = [_UNKNOWN] * len(document)
        matches = []
        for (query_token, *query_span), position, row in zip(in_query, nearest.tolist(), similarities, strict=True):
            document_token, first, last = in_document[position]
            matches.append(
                TokenMatch(
                    score=float(row[position]),
                    query_token=query_token,
                    document_token=document_token,
                    query_span=(query_span[0], query_span[1]),
                    document_span=(first, last),
                )
            )
        return FieldExplanation(field=self.field.name, score=score, contribution=score, tokens=matches)

    def warm(self) -> None:
        """Load or compile every kernel that a query can need."""
        self._fast.warm()
