"""Fields of fixed dimensional encodings: queries of token vectors become one vector, and a dense searcher answers.

The score is the inner product of two encodings. It estimates MaxSim up to what depends on the query alone, and is none: a token
field orders the candidates, as in ``fde:1000 > colbert``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...index.arrays import Floats, Int32s, Mask
from ...index.errors import RepresentationError
from ...index.fde.field import FdeField
from ...index.query_bank import read_bank
from ...index.representations.dense import DenseVectors
from ...index.representations.multivectors import MultiVectors
from ..hits import NO_HITS, NO_SCORE, Hits
from .common import checked_field, single
from .dense import DenseOptions, DenseSearcher
from .explanation import FieldExplanation
from .registry import Announce
from .tokens import token_vectors

if TYPE_CHECKING:
    from ..encoders.base import MultiVectorEncoder

MEASURE = "inner product of fixed dimensional encodings, an estimate of MaxSim"


class FdeSearcher:
    """The `FieldSearcher` of fixed dimensional encodings; its options are those of dense vectors."""

    options_type = DenseOptions
    announces = True

    def __init__(self, field: FdeField, encoder: MultiVectorEncoder | None = None) -> None:
        self.field, self.encoder = checked_field(field, FdeField, "fixed dimensional encodings"), encoder
        self._dense = DenseSearcher(field.dense, bank=self._bank)

    def check(self, options: DenseOptions) -> None:
        """Raise ValueError for options that the field does not have."""
        self._dense.check(options)

    def vectors(self, queries: object) -> DenseVectors:
        """Encode query vectors of any accepted kind: (n, dim) float32, zeros for a query without tokens.

        Parameters
        ----------
        queries : MultiVectors, a matrix (n_tokens, token_dim), a sequence of such matrices, or DenseVectors
            Tokens of unit length, one matrix per query; DenseVectors are encodings already.

        Raises
        ------
        TypeError
            Anything else.
        RepresentationError
            Tokens that are not of unit length, or of another dim.
        """
        if isinstance(queries, DenseVectors):
            return self._dense.vectors(queries)
        config, encoding = self.field.config, self.field.encoding
        where = f"{self.field.path}, field {self.field.name}"
        tokens: MultiVectors = token_vectors(queries, config.token_dim, where)
        if tokens.dim != config.token_dim:
            raise RepresentationError(f"{where}: queries of dim {tokens.dim} for tokens of dim {config.token_dim}")
        if encoding is None:  # no document, and so no answer
            return DenseVectors(np.zeros((len(tokens), config.dim), np.float32))
        return DenseVectors(encoding.encode_queries(tokens))

    def search(
        self, queries: DenseVectors, k: int, *, allowed: Sequence[Mask | None] | None = None,
        options: DenseOptions | None = None, n_threads: int = 1, announce: Announce | None = None,
    ) -> Hits:  # fmt: skip
        """Return the k documents of largest inner product with each query, none for a query without tokens."""
        hits = self._dense.search(queries, k, allowed=allowed, options=options, n_threads=n_threads, announce=announce)
        found = [hits.query(i) if queries.row(i).any() else NO_HITS for i in range(len(hits))]
        return Hits.of(found)

    def score(
        self, queries: DenseVectors, doc_nums: Sequence[Int32s], *, options: DenseOptions | None = None, n_threads: int = 1
    ) -> list[Floats]:
        """Inner products of given documents with the queries: the numbers that `search` gives."""
        found = self._dense.score(queries, doc_nums, options=options, n_threads=n_threads)
        for number, scores in enumerate(found):
            if not queries.row(number).any():
                scores[:] = NO_SCORE
        return found

    def explain(
        self, queries: DenseVectors, number: int, query_text: str, doc_num: int, document_text: str
    ) -> FieldExplanation:
        """Explain the score of one document: it has no parts, and its ``measure`` says what it is."""
        score = float(self.score(single(queries, number), [np.array([doc_num], np.int32)])[0][0])
        return FieldExplanation(field=self.field.name, score=score, contribution=score, measure=MEASURE)

    def warm(self) -> None:
        """Load what the dense searcher needs, and compile the kernels of the encoding."""
        self._dense.warm()
        token = np.eye(1, self.field.config.token_dim, dtype=np.float32)
        self.vectors(MultiVectors.of([token], self.field.config.token_dim))

    def _bank(self) -> DenseVectors:
        return self.vectors(read_bank(self.field.path, self.field.record))
