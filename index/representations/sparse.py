"""What encoders write and indexes store: rows of numbers with checked invariants.

::

    SparseVectors   indptr (n+1,) i64 | terms (nnz,) i32, ascending in a row | weights (nnz,) f32 > 0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import Floats, Int32s, Int64s
from ..errors import RepresentationError
from ..kernels import read_only
from ..kernels.invariants import BAD_LENGTHS, BAD_OFFSETS, BAD_WEIGHT, NEGATIVE_TERM, NOT_ASCENDING, SOUND, fault_of_rows

FAULTS = {
    BAD_OFFSETS: "indptr must start at 0 and never fall",
    BAD_WEIGHT: "weights must be finite and > 0: drop zeros before",
    NEGATIVE_TERM: "terms must be >= 0",
    NOT_ASCENDING: "terms must ascend strictly inside a row",
}


@dataclass(frozen=True, eq=False)
class SparseVectors:
    """``n`` sparse vectors in CSR form.

    Attributes
    ----------
    indptr : (n + 1,) int64
        Row ``i`` is ``terms[indptr[i]:indptr[i + 1]]``.
    terms : (nnz,) int32
        Term numbers >= 0, strictly ascending inside a row.
    weights : (nnz,) float32
        Finite and > 0; terms of weight zero are left out.
    vocabulary : sequence of str or None
        What the term numbers of *this batch* stand for, when the encoder has no fixed vocabulary (BM25).
        None: numbers are the encoder's own, the same in every batch.
    lengths : (n,) int64 or None
        BM25's document lengths in tokens, where they are not the sums of the counts that weights are.

    Raises
    ------
    RepresentationError
        When an invariant above does not hold.
    """

    indptr: Int64s
    terms: Int32s
    weights: Floats
    vocabulary: Sequence[str] | None = None
    lengths: Int64s | None = None

    def __post_init__(self) -> None:
        indptr, terms, weights = self.indptr, self.terms, self.weights
        for name, dtype, array in (("indptr", np.int64, indptr), ("terms", np.int32, terms), ("weights", np.float32, weights)):
            if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 1:
                raise RepresentationError(f"SparseVectors.{name} must be a 1-d {np.dtype(dtype)} array")
        fault = fault_of_rows(read_only(indptr), read_only(terms), read_only(weights))
        if fault == BAD_LENGTHS:
            raise RepresentationError(
                f"SparseVectors: indptr ends at {indptr[-1]}, with {len(terms)} terms and {len(weights)} weights"
            )
        if fault != SOUND:
            raise RepresentationError(f"SparseVectors.{FAULTS[fault]}")
        if self.vocabulary is not None and len(terms) and terms.max() >= len(self.vocabulary):
            raise RepresentationError("SparseVectors.terms go past its vocabulary")
        if self.lengths is not None and (self.lengths.shape != (len(self),) or np.any(self.lengths < 0)):
            raise RepresentationError("SparseVectors.lengths are one a row, none below 0")

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def n_postings(self) -> int:
        """Number of stored (row, term) pairs."""
        return len(self.terms)

    def row(self, number: int) -> tuple[Int32s, Floats]:
        """Terms and weights of one row, as views."""
        span = slice(int(self.indptr[number]), int(self.indptr[number + 1]))
        return self.terms[span], self.weights[span]

    @classmethod
    def from_rows(cls, rows: Sequence[tuple[Sequence[int], Sequence[float]]]) -> SparseVectors:
        """Build from (terms, weights) rows in any order; zeros are dropped.

        Raises
        ------
        RepresentationError
            When a row names a term twice, or a weight is negative or not finite.
        """
        indptr = np.zeros(len(rows) + 1, np.int64)
        all_terms, all_weights = [], []
        for i, (terms, weights) in enumerate(rows):
            t, w = np.asarray(terms, np.int32), np.asarray(weights, np.float32)
            order = np.argsort(t, kind="stable")
            order = order[w[order] != 0]
            all_terms.append(t[order])
            all_weights.append(w[order])
            indptr[i + 1] = indptr[i] + len(order)
        return cls(indptr, np.concatenate([np.empty(0, np.int32), *all_terms]),
                   np.concatenate([np.empty(0, np.float32), *all_weights]))  # fmt: skip

    def select(self, rows: Int64s) -> SparseVectors:
        """Return the chosen rows, in the order given, with the same vocabulary."""
        counts = np.diff(self.indptr)[rows]
        indptr = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(counts, out=indptr[1:])
        picks = np.repeat(self.indptr[:-1][rows] - indptr[:-1], counts) + np.arange(indptr[-1])
        lengths = None if self.lengths is None else self.lengths[rows]
        return SparseVectors(indptr, self.terms[picks], self.weights[picks], self.vocabulary, lengths)
