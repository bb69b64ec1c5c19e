"""Dense vectors of texts: what single-vector encoders write and dense fields keep.

::

    DenseVectors    vectors (n, dim) f32
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import Floats, Int64s
from ..errors import RepresentationError


@dataclass(frozen=True, eq=False)
class DenseVectors:
    """``n`` texts, each one vector; the similarity of two is their inner product.

    Attributes
    ----------
    vectors : (n, dim) float32
        Finite, of any length. Of documents that have several vectors, these end to end.

    Raises
    ------
    RepresentationError
        Another type or shape, or a number that is not finite.
    """

    vectors: Floats

    def __post_init__(self) -> None:
        vectors = self.vectors
        if vectors.dtype != np.float32 or vectors.ndim != 2 or vectors.shape[1] == 0:
            raise RepresentationError("DenseVectors.vectors must be a float32 array of shape (n, dim)")
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            wrong = int(np.flatnonzero(~finite)[0])
            raise RepresentationError(f"DenseVectors.vectors must be finite: vector {wrong} is not")

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dim(self) -> int:
        """Numbers of a vector."""
        return int(self.vectors.shape[1])

    def row(self, number: int) -> Floats:
        """One text's vector, (dim,), as a view."""
        row: Floats = self.vectors[number]
        return row

    def select(self, rows: Int64s) -> DenseVectors:
        """Return the chosen texts, in the order given."""
        return DenseVectors(self.vectors[rows])

    @classmethod
    def of(cls, batches: Sequence[DenseVectors], dim: int) -> DenseVectors:
        """Join batches."""
        return cls(np.concatenate([np.empty((0, dim), np.float32), *(batch.vectors for batch in batches)]))
