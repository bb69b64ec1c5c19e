"""Dense fields: vectors, search, score, explanation and warm-up of one field of dense vectors.

faiss proposes candidates, and every candidate is scored again from the kept vectors by one function, so that search, scoring
and explanation give the same numbers. The search is exact: it asks faiss for more candidates until the best of those that
faiss left out cannot reach the k-th score, whatever the rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...index.arrays import Floats, Int32s, Int64s, Mask
from ...index.dense.field import DenseField, DenseSegment
from ...index.dense.flat import BLOCK_ROWS
from ...index.representations.dense import DenseVectors
from ..hits import NO_HITS, Hits, best
from ..kernels.dense import inner_products
from ..sentences import sentences_of
from ..workers import Workers
from .common import check_k, checked_doc_nums, checked_field, in_order, parts
from .explanation import FieldExplanation, SentenceMatch

if TYPE_CHECKING:
    from ..encoders.base import DenseVectorEncoder

MARGIN = 16
"""Candidates that are asked for beyond k."""
FEW_DOCS = 2048
"""So few allowed documents of a segment are all scored; faiss would step over the others one by one."""
MAX_SENTENCES = 16
"""First sentences of a document that an explanation encodes: each is a run of the network."""


@dataclass(frozen=True, kw_only=True)
class DenseOptions:
    """How a dense field is searched.

    Attributes
    ----------
    algorithm : {"auto", "exhaustive"}
        "auto": candidates of faiss, scored again; "exhaustive": the oracle, which scores every document. Both are exact.
    """

    algorithm: str = "auto"

    def __post_init__(self) -> None:
        if self.algorithm not in ("auto", "exhaustive"):
            raise ValueError(f"algorithm is {self.algorithm!r}: it must be 'auto' or 'exhaustive'")


class DenseSearcher:
    """The `FieldSearcher` of dense vectors."""

    options_type = DenseOptions

    def __init__(self, field: DenseField, encoder: DenseVectorEncoder | None = None) -> None:
        self.field, self.encoder = checked_field(field, DenseField, "dense vectors"), encoder
        self._workers = Workers()

    def vectors(self, queries: object) -> DenseVectors:
        """Bring query vectors of any accepted kind into one batch.

        Parameters
        ----------
        queries : DenseVectors, a matrix (n, dim), or a vector (dim,)

        Raises
        ------
        TypeError
            Anything else, or vectors of another dim.
        RepresentationError
            A number that is not finite.
        """
        matrix = queries.vectors if isinstance(queries, DenseVectors) else queries
        if isinstance(matrix, np.ndarray) and matrix.ndim in (1, 2) and matrix.shape[-1] == self.field.config.dim:
            return queries if isinstance(queries, DenseVectors) else DenseVectors(np.atleast_2d(matrix).astype(np.float32))
        found = f"shape {matrix.shape}" if isinstance(matrix, np.ndarray) else type(queries).__name__
        where = f"{self.field.path}, field {self.field.name}"
        raise TypeError(f"{where}: queries are a matrix (n, {self.field.config.dim}) or DenseVectors, not {found}")

    def search(
        self, queries: DenseVectors, k: int, *, allowed: Sequence[Mask | None] | None = None,
        options: DenseOptions | None = None, n_threads: int = 1,
    ) -> Hits:  # fmt: skip
        """Return the k documents of largest inner product with each query; `registry.FieldSearcher.search`."""
        check_k(k)
        masks = self.field.masks() if allowed is None else allowed
        every = options is not None and options.algorithm == "exhaustive"

        def answer(number: int) -> tuple[Int32s, Floats]:
            query = np.ascontiguousarray(queries.row(number))
            found = [_best(*each, query, k, every=every) for each in segments]
            doc_nums, scores = zip(*found, strict=True) if found else zip(NO_HITS)
            return best(np.concatenate(doc_nums), np.concatenate(scores), k)

        segments = list(zip(self.field.segments, masks, strict=True))
        return Hits.of(self._workers.map(answer, len(queries), n_threads))

    def score(
        self, queries: DenseVectors, doc_nums: Sequence[Int32s], *, options: DenseOptions | None = None, n_threads: int = 1
    ) -> list[Floats]:
        """Inner products of given documents with the queries: the numbers that `search` gives."""
        wanted = checked_doc_nums(self.field, queries, doc_nums)

        def score(number: int) -> Floats:
            query = np.ascontiguousarray(queries.row(number))

            def products(ascending: Int32s) -> Floats:
                scores = np.empty(len(ascending), np.float32)
                for segment, positions, span in parts(self.field.segments, ascending):
                    scores[span] = _products(segment, positions, query)
                return scores

            return in_order(wanted[number], products)

        return self._workers.map(score, len(queries), n_threads)

    def explain(
        self, queries: DenseVectors, number: int, query_text: str, doc_num: int, document_text: str
    ) -> FieldExplanation:
        """Explain the score of one document: the similarity of its sentences, each encoded alone, to the query."""
        score = float(self.score(queries.select(np.array([number])), [np.array([doc_num], np.int32)])[0][0])
        spans = sentences_of(document_text)[:MAX_SENTENCES] if self.encoder is not None else []
        sentences: list[SentenceMatch] = []
        if self.encoder is not None and spans:
            encoded = self.encoder.encode_documents([document_text[first:last] for first, last in spans])
            products = np.empty(len(spans), np.float32)
            inner_products(encoded.vectors, np.ascontiguousarray(queries.row(number)), products)
            sentences = [SentenceMatch(score=s, span=span) for s, span in zip(products.tolist(), spans, strict=True)]
            sentences.sort(key=lambda sentence: -sentence.score)
        return FieldExplanation(field=self.field.name, score=score, contribution=score, sentences=sentences)

    def warm(self) -> None:
        """Load faiss, open every part with it, and compile the kernel."""
        for segment in self.field.segments:
            _ = segment.part.faiss_index
        inner_products(np.zeros((1, 1), np.float32), np.zeros(1, np.float32), np.empty(1, np.float32))


def _best(segment: DenseSegment, mask: Mask | None, query: Floats, k: int, *, every: bool) -> tuple[Int32s, Floats]:
    """doc_nums and scores of a segment's k best documents, and of some others; ``every``: of all documents."""
    n_allowed = segment.n_docs if mask is None else int(mask.sum())
    wanted = k + MARGIN
    while not every and max(wanted, FEW_DOCS) < n_allowed:
        positions, lowest = segment.part.candidates(query, wanted, mask)
        scores = _products(segment, positions, query)
        rounding = 2 * len(query) * float(np.finfo(np.float32).eps) * float(np.linalg.norm(query)) * segment.part.longest
        if np.partition(scores, len(scores) - k)[len(scores) - k] > lowest + rounding:
            return (positions + segment.base).astype(np.int32), scores
        wanted *= 4  # many documents score alike
    positions = np.arange(segment.n_docs) if mask is None else np.flatnonzero(mask)
    blocks = [_products(segment, positions[i : i + BLOCK_ROWS], query) for i in range(0, len(positions), BLOCK_ROWS)]
    return (positions + segment.base).astype(np.int32), np.concatenate([np.empty(0, np.float32), *blocks])


def _products(segment: DenseSegment, positions: Int64s | Int32s, query: Floats) -> Floats:
    products = np.empty(len(positions), np.float32)
    inner_products(segment.part.rows(positions), query, products)
    return products
