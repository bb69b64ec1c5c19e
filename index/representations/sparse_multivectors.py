"""Token vectors that are sparse: what SLIM writes (arXiv 2302.06587), and the single sparse vectors that bound its scores.

::

    SparseMultiVectors    offsets (n+1,) i64 | rows: SparseVectors, one a token

The score of a document is ``s = sum_i max_j q_i . d_j`` over the query's tokens ``i`` and the document's tokens ``j``. No
weight is negative, so with the document as ``max_j d_j``, term by term, it lies between two products of single vectors::

    lower = (sum_i e_i) . max_j d_j  <=  s  <=  upper = (sum_i q_i) . max_j d_j

where ``e_i`` is ``q_i`` with its largest weight alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Int32s, Int64s, picks_of
from ..errors import RepresentationError
from .sparse import SparseVectors


@dataclass(frozen=True, eq=False)
class SparseMultiVectors:
    """``n`` texts, each some sparse vectors, end to end.

    Attributes
    ----------
    offsets : (n + 1,) int64
        Text ``i`` has the tokens ``offsets[i]:offsets[i + 1]``; a text may have none.
    rows : SparseVectors
        A row a token, with the encoder's own term numbers; a token may have no terms.

    Raises
    ------
    RepresentationError
        When an invariant above does not hold.
    """

    offsets: Int64s
    rows: SparseVectors

    def __post_init__(self) -> None:
        offsets = self.offsets
        if offsets.dtype != np.int64 or offsets.ndim != 1:
            raise RepresentationError("SparseMultiVectors.offsets must be a 1-d int64 array")
        if len(offsets) == 0 or offsets[0] != 0 or np.any(np.diff(offsets) < 0) or offsets[-1] != len(self.rows):
            raise RepresentationError("SparseMultiVectors.offsets must start at 0, never fall and end at the number of tokens")
        if self.rows.vocabulary is not None:
            raise RepresentationError("SparseMultiVectors.rows must use the encoder's own term numbers, not a vocabulary")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def n_tokens(self) -> int:
        """Number of tokens of all texts."""
        return len(self.rows)

    def row(self, number: int) -> SparseVectors:
        """Token vectors of one text."""
        return self.rows.select(np.arange(self.offsets[number], self.offsets[number + 1]))

    def select(self, rows: Int64s) -> SparseMultiVectors:
        """Return the chosen texts, in the order given."""
        offsets, tokens = picks_of(self.offsets, rows)
        return SparseMultiVectors(offsets, self.rows.select(tokens))

    @classmethod
    def of(cls, texts: Sequence[SparseVectors]) -> SparseMultiVectors:
        """Join the token vectors of single texts."""
        offsets = np.zeros(len(texts) + 1, np.int64)
        np.cumsum([len(text) for text in texts], out=offsets[1:])
        widths = [np.diff(text.indptr) for text in texts]
        indptr = np.concatenate([[0], np.cumsum(np.concatenate([np.empty(0, np.int64), *widths]))]).astype(np.int64)
        terms = np.concatenate([np.empty(0, np.int32), *(text.terms for text in texts)])
        weights = np.concatenate([np.empty(0, np.float32), *(text.weights for text in texts)])
        return cls(offsets, SparseVectors(indptr, terms, weights))


def document_maxima(documents: SparseMultiVectors) -> SparseVectors:
    """Each document as its tokens' largest weight of each term: the vectors that the first stage searches."""
    indptr, terms, weights = fold(documents.offsets, documents.rows.indptr, documents.rows.terms, documents.rows.weights,
                                  np.maximum)  # fmt: skip
    return SparseVectors(indptr, terms, weights)


def upper_vectors(queries: SparseMultiVectors) -> SparseVectors:
    """``sum_i q_i``: its product with a document's maxima is never below the score."""
    return fused_vectors(queries, 0.0)


def lower_vectors(queries: SparseMultiVectors) -> SparseVectors:
    """``sum_i e_i``: its product with a document's maxima is never above the score."""
    return fused_vectors(queries, 1.0)


def fused_vectors(queries: SparseMultiVectors, beta: float) -> SparseVectors:
    """``sum_i (beta e_i + (1 - beta) q_i)``, which mixes the two bounds (equation 9).

    Raises
    ------
    ValueError
        ``beta`` is not in [0, 1].
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"beta is {beta}: it must be in [0, 1]")
    rows = queries.rows
    owners = np.repeat(np.arange(len(rows)), np.diff(rows.indptr))
    heaviest_first = np.lexsort((-rows.weights, owners))  # of equal ones, that of the lower term number
    tops = heaviest_first[rows.indptr[:-1][np.diff(rows.indptr) > 0]]
    values = (1 - beta) * rows.weights.astype(np.float64)
    values[tops] = rows.weights[tops]
    indptr, terms, sums = fold(queries.offsets, rows.indptr, rows.terms, values, np.add)
    weights = sums.astype(np.float32)
    kept = weights > 0
    ends = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    return SparseVectors(ends[indptr], terms[kept], weights[kept])


def fold(
    offsets: Int64s, indptr: Int64s, terms: Int32s, values: npt.NDArray[Any], function: np.ufunc
) -> tuple[Int64s, Int32s, npt.NDArray[Any]]:  # fmt: skip
    """Fold all values that a text has of the same term into one, by ``np.maximum`` or ``np.add``.

    Returns
    -------
    (indptr, terms, values)
        CSR of the texts, terms ascending in a row.
    """
    widths = indptr[offsets[1:]] - indptr[offsets[:-1]]
    keys = (np.repeat(np.arange(len(widths)), widths) << 31) | terms
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    folded = function.reduceat(values[order], starts) if len(starts) else values[:0]
    counts = np.bincount(keys[starts] >> 31, minlength=len(widths))
    ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return ends, (keys[starts] & 0x7FFFFFFF).astype(np.int32), folded
