"""Token vectors of texts: what late-interaction encoders write and multi-vector indexes compress.

::

    MultiVectors    offsets (n+1,) i64 | tokens (total, dim) f32, of unit length
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import Floats, Int64s
from ..errors import RepresentationError

LENGTH_TOLERANCE = 1e-2
"""Tokens that passed through 16-bit floats are that far from unit length."""


@dataclass(frozen=True, eq=False)
class MultiVectors:
    """``n`` texts, each a matrix of token vectors, end to end.

    Attributes
    ----------
    offsets : (n + 1,) int64
        Text ``i`` has the tokens ``offsets[i]:offsets[i + 1]``; a text may have none.
    tokens : (total, dim) float32
        Of unit length each: MaxSim sums cosines.

    Raises
    ------
    RepresentationError
        When an invariant above does not hold.
    """

    offsets: Int64s
    tokens: Floats

    def __post_init__(self) -> None:
        offsets, tokens = self.offsets, self.tokens
        if offsets.dtype != np.int64 or offsets.ndim != 1:
            raise RepresentationError("MultiVectors.offsets must be a 1-d int64 array")
        if tokens.dtype != np.float32 or tokens.ndim != 2 or tokens.shape[1] == 0:
            raise RepresentationError("MultiVectors.tokens must be a float32 array of shape (total, dim)")
        if len(offsets) == 0 or offsets[0] != 0 or np.any(np.diff(offsets) < 0) or offsets[-1] != len(tokens):
            raise RepresentationError("MultiVectors.offsets must start at 0, never fall and end at the number of tokens")
        squares = np.einsum("td,td->t", tokens, tokens)
        if not np.all(np.abs(squares - 1) < 2 * LENGTH_TOLERANCE):  # False for NaN too
            wrong = int(np.flatnonzero(~(np.abs(squares - 1) < 2 * LENGTH_TOLERANCE))[0])
            raise RepresentationError(
                f"MultiVectors.tokens must have unit length: token {wrong} has {float(squares[wrong]) ** 0.5:.4g}"
            )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def dim(self) -> int:
        """Numbers of a token vector."""
        return int(self.tokens.shape[1])

    @property
    def n_tokens(self) -> int:
        """Number of token vectors of all texts."""
        return len(self.tokens)

    def row(self, number: int) -> Floats:
        """Token vectors of one text, (n_tokens, dim), as a view."""
        return self.tokens[int(self.offsets[number]) : int(self.offsets[number + 1])]

    def select(self, rows: Int64s) -> MultiVectors:
        """Return the chosen texts, in the order given."""
        return MultiVectors.of([self.row(row) for row in rows.tolist()], self.dim)

    @classmethod
    def of(cls, matrices: Sequence[Floats], dim: int) -> MultiVectors:
        """Join the matrices (n_tokens, dim) of single texts."""
        offsets = np.zeros(len(matrices) + 1, np.int64)
        np.cumsum([len(matrix) for matrix in matrices], out=offsets[1:])
        return cls(offsets, np.concatenate([np.empty((0, dim), np.float32), *matrices]))
