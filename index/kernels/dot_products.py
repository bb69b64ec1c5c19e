"""Dot products of many rows with 32 vectors at once, in integers: one vector a lane.

A row of ``dim`` unsigned bytes meets 32 vectors of signed bytes. Four dimensions of a row, broadcast, are multiplied with
the same four of all lanes, by the instructions of `dot_emitters.LEVEL`. Results are the same integers on every processor.
Without compilation (NUMBA_DISABLE_JIT) plain loops stand in.

Layout of lanes: ``packed (n_blocks, dim / 4, 32, 4)`` int8; lane ``j`` of a block is a vector, four dimensions side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import Intrinsic, kernel_or

LANES = 32

Bytes = npt.NDArray[np.uint8]
SignedBytes = npt.NDArray[np.int8]
Int32s = npt.NDArray[np.int32]


def _emit_dot_rows(context: Any, rows: Any, n: Any, n_words: Any, packed: Any, start: Any, out: Any) -> Any:
    from .dot_emitters import dot_rows

    return dot_rows(context, rows, n, n_words, packed, start, out)


def _emit_dot_rows_7(context: Any, rows: Any, n: Any, n_words: Any, packed: Any, start: Any, out: Any) -> Any:
    from .dot_emitters import dot_rows

    return dot_rows(context, rows, n, n_words, packed, start, out, used=7)


def _emit_dot_rows_tame(context: Any, rows: Any, n: Any, n_words: Any, packed: Any, start: Any, out: Any) -> Any:
    from .dot_emitters import dot_rows

    return dot_rows(context, rows, n, n_words, packed, start, out, used=7, step=2)


_dot_rows, _dot_rows_7 = Intrinsic(_emit_dot_rows), Intrinsic(_emit_dot_rows_7)
_dot_rows_tame = Intrinsic(_emit_dot_rows_tame)


def _dot_rows_compiled(rows: Bytes, packed: SignedBytes, start: Int32s, out: Int32s) -> None:
    if len(rows):
        _dot_rows(
            rows.ctypes.data, len(rows), rows.shape[1] // 4, packed.ctypes.data, start.ctypes.data, out.ctypes.data
        )  # fmt: skip


def _dot_rows_7_compiled(rows: Bytes, packed: SignedBytes, start: Int32s, out: Int32s) -> None:
    if len(rows):
        _dot_rows_7(
            rows.ctypes.data, len(rows), rows.shape[1] // 4, packed.ctypes.data, start.ctypes.data, out.ctypes.data
        )  # fmt: skip


def _dot_rows_tame_compiled(rows: Bytes, packed: SignedBytes, start: Int32s, out: Int32s) -> None:
    if len(rows):
        _dot_rows_tame(
            rows.ctypes.data, len(rows), rows.shape[1] // 4, packed.ctypes.data, start.ctypes.data, out.ctypes.data
        )  # fmt: skip


def dot_rows_plain(rows: Bytes, packed: SignedBytes, start: Int32s, out: Int32s) -> None:
    """Plain loops of `dot_rows`: what it is proven against, and its stand-in without compilation."""
    for i in range(rows.shape[0]):
        for j in range(LANES):
            total = np.int32(start[j])
            for d in range(rows.shape[1]):
                total += np.int32(rows[i, d]) * np.int32(packed[d // 4, j, d % 4])
            out[i, j] = total


dot_rows = kernel_or(dot_rows_plain)(_dot_rows_compiled)
"""``out[i, j] = start[j] + rows[i] . lane j``: rows (n, dim) u8, packed (dim / 4, 32, 4) i8, start (32,) i32, out (n, 32) i32.

All arrays C-contiguous, ``dim`` a multiple of 4; sums do not overflow for ``dim`` up to 65,536.
"""


dot_rows_7 = kernel_or(dot_rows_plain)(_dot_rows_7_compiled)
"""The same of rows whose bytes are below 128: one product instead of two on processors with AVX2."""

dot_rows_tame = kernel_or(dot_rows_plain)(_dot_rows_tame_compiled)
"""The same of such rows with lanes from `tamed`, ``dim`` a multiple of 8: AVX2 widens the sums of four products, not of two."""

MOST_OF_FOUR = 258
"""What four signed bytes of one sign may add up to: times 127 it fits 16 bits."""


def tamed(vectors: SignedBytes) -> tuple[SignedBytes, Int32s]:
    """Divide vectors into ones whose sums of four products with bytes below 128 fit 16 bits, and the rest, which is little.

    Parameters
    ----------
    vectors : (n, dim) int8
        ``dim`` a multiple of 8.

    Returns
    -------
    tame : (n, dim) int8
    rest : (n_rest, 3) int32
        Vector, dimension, and what is to be added there, in this order.
    """
    n, dim = vectors.shape
    fours = vectors.reshape(n, dim // 8, 2, 2, 2).transpose(0, 1, 3, 2, 4).reshape(n, dim // 8, 2, 4).astype(np.int32)
    for sign in (1, -1):
        while True:
            excess = np.maximum(sign * fours, 0).sum(axis=-1) - MOST_OF_FOUR
            where = np.nonzero(excess > 0)
            if not len(where[0]):
                break
            largest = (sign * fours[where]).argmax(axis=-1)
            fours[(*where, largest)] -= sign * np.minimum(sign * fours[(*where, largest)], excess[where])
    tame = fours.reshape(n, dim // 8, 2, 2, 2).transpose(0, 1, 3, 2, 4).reshape(n, dim)
    rest = vectors - tame
    where = np.nonzero(rest)
    return tame.astype(np.int8), np.stack([*where, rest[where]], axis=1).astype(np.int32)


def pack_lanes(vectors: SignedBytes) -> SignedBytes:
    """(n, dim) signed bytes -> (ceil(n / 32), dim / 4, 32, 4), missing lanes zero."""
    n, dim = vectors.shape
    padded = np.zeros((-(-max(n, 1) // LANES) * LANES, dim), np.int8)
    padded[:n] = vectors
    return np.ascontiguousarray(padded.reshape(-1, LANES, dim // 4, 4).transpose(0, 2, 1, 3))
