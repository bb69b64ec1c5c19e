"""Rows as dense parts keep them: 16-bit floats, 32-bit floats, or signed bytes and the value of their step."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Floats
from ..kernels import read_only
from ..kernels.dense import SCALE_BYTES, has_f16c, read_rows

Rows = npt.NDArray[Any]
"""(n, dim) uint16 (bits of 16-bit floats) or float32, or (n, dim + 4) int8: a float32 ends each row."""
BLOCK_NUMBERS = 1 << 21
STORED = {"float16": "uint16", "float32": "float32", "int8": "uint8"}
"""Precision -> what an array file calls the rows' numbers."""


def width_of(dim: int, precision: str) -> int:
    """Entries of a row."""
    return dim + SCALE_BYTES if precision == "int8" else dim


def block_rows(dim: int) -> int:
    """Rows that are held as 32-bit floats at once."""
    return max(16, min(4096, BLOCK_NUMBERS // dim))


def encode(vectors: Floats, precision: str) -> Rows:
    """Round vectors (n, dim) to rows."""
    if precision == "float32":
        return np.ascontiguousarray(vectors, np.float32)
    if precision == "float16":
        return np.ascontiguousarray(vectors.astype(np.float16)).view(np.uint16)
    scales = np.abs(vectors).max(axis=1, initial=0) / np.float32(127)
    levels = np.rint(vectors / np.where(scales > 0, scales, 1)[:, None]).clip(-127, 127).astype(np.int8)
    return np.concatenate([levels, np.ascontiguousarray(scales, np.float32)[:, None].view(np.int8)], axis=1)


def decode(rows: Rows) -> Floats:
    """Return vectors (n, dim) float32 of rows."""
    if rows.dtype == np.float32:
        return rows
    if rows.dtype == np.uint16 and has_f16c():  # NumPy takes ten times as long
        wide = np.empty(rows.shape, np.float32)
        read_rows(read_only(rows), wide)
        return wide
    if rows.dtype == np.uint16:
        return rows.view(np.float16).astype(np.float32)
    scales = np.ascontiguousarray(rows[:, -SCALE_BYTES:]).view(np.float32)
    vectors: Floats = rows[:, :-SCALE_BYTES].astype(np.float32) * scales
    return vectors


def lengths(vectors: Floats) -> Floats:
    """Lengths (n,) float32 of vectors."""
    found: Floats = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)).astype(np.float32)
    return found
