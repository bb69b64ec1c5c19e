"""Rows of dense vectors: their numbers as floats, inner products with a query, verified before they are read.

A row holds a vector as 16-bit floats (``uint16`` here, since Numba computes with none), 32-bit floats, or signed bytes that
four more bytes follow: the value of a step, float32. A query may have fewer numbers than the rows: then their first ones count.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Floats, Int32s
from . import Intrinsic, kernel, sum_kernel
from .checksums import HasChecked, is_unread, position, verify_span
from .sorting import lower_bound

Rows = npt.NDArray[Any]
SCALE_BYTES = 4


@cache
def has_f16c() -> bool:
    """Tell whether kernels widen 16-bit floats by an instruction."""
    from .dense_emitters import F16C

    return F16C


def _emit_to_float(context: Any, value: Any) -> Any:
    from .dense_emitters import to_float

    return to_float(context, value)


def _emit_bits_of(context: Any, value: Any) -> Any:
    from .dense_emitters import bits_of

    return bits_of(context, value)


def _emit_float_of(context: Any, bits: Any) -> Any:
    from .dense_emitters import float_of

    return float_of(context, bits)


def _emit_float_at(context: Any, rows: Any, offset: Any) -> Any:
    from .dense_emitters import float_at

    return float_at(context, rows, offset)


def _to_float_plainly(value: Any) -> Any:
    return value.view(np.float16).astype(np.float32) if value.dtype == np.uint16 else np.float32(value)


to_float: Any = Intrinsic(_emit_to_float, _to_float_plainly)
"""A number of a row as float32."""
bits_of: Any = Intrinsic(_emit_bits_of, lambda value: np.float32(value).view(np.int32))
float_of: Any = Intrinsic(_emit_float_of, lambda bits: np.int32(bits).view(np.float32))

float_at: Any = Intrinsic(_emit_float_at, lambda rows, entry: rows.reshape(-1)[entry:][:4].view(np.float32)[0])
"""The float32 whose bytes begin at an entry of a contiguous matrix of bytes."""


@kernel
def key_of(score: Any, number: Any) -> Any:
    """Pack a score and a number below 2^32 into an int64: keys have the order of scores, then of falling numbers."""
    bits = bits_of(np.float32(score))
    if bits < 0:
        bits = bits ^ np.int32(0x7FFFFFFF)
    return (np.int64(bits) << 32) | (np.int64(0xFFFFFFFF) - np.int64(number))


@kernel
def score_of(key: Any) -> Any:
    """Return the score of a key, float32."""
    bits = np.int32(key >> 32)
    if bits < 0:
        bits = bits ^ np.int32(0x7FFFFFFF)
    return float_of(bits)


def unpacked(keys: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], Floats]:
    """Numbers and scores of keys."""
    bits = (keys >> 32).astype(np.int32)
    scores = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits).astype(np.int32).view(np.float32)
    return np.int64(0xFFFFFFFF) - (keys & np.int64(0xFFFFFFFF)), scores


@kernel
def scale_of(rows: Rows, row: Any) -> Any:
    """Return the value of a step of a row of signed bytes."""
    return float_at(rows, np.int64(row + 1) * rows.shape[1] - SCALE_BYTES)


@sum_kernel
def product(rows: Rows, row: Any, query: Floats) -> Any:
    """Return the inner product of a row with a query."""
    total = np.float32(0)
    for j in range(len(query)):
        total += to_float(rows[row, j]) * query[j]
    if rows.itemsize == 1:
        total *= scale_of(rows, row)
    return total


@kernel
def read_row(rows: Rows, row: Any, out: Floats) -> None:
    """Write a row's numbers to ``out`` (dim,)."""
    for j in range(len(out)):
        out[j] = to_float(rows[row, j])
    if rows.itemsize == 1:
        scale = scale_of(rows, row)
        for j in range(len(out)):
            out[j] *= scale


@kernel
def read_rows(rows: Rows, out: Floats) -> None:
    """Write all rows' numbers to ``out`` (n, dim)."""
    for i in range(len(rows)):
        read_row(rows, i, out[i])


@kernel
def verify_row(checked: HasChecked, first: Any, row_bytes: Any, row: Any) -> None:
    """Verify a row of a matrix that begins at byte ``first`` of the content."""
    start = first + row * row_bytes
    if is_unread(checked.states, start, start + row_bytes):
        verify_span(checked, start, start + row_bytes)


@kernel
def verify_rows(checked: HasChecked, rows: Rows, numbers: npt.NDArray[np.int64]) -> None:
    """Verify the rows of some numbers."""
    first, row_bytes = position(checked, rows), rows.shape[1] * rows.itemsize
    for row in numbers:
        verify_row(checked, first, row_bytes, row)


@kernel
def settled(score: Any) -> Any:
    """Return 0 for -0, so that equal scores have equal bits."""
    return np.float32(0) if bits_of(score) == np.int32(-0x80000000) else score


@kernel
def is_finite(score: Any) -> Any:
    """Whether a score is a finite number; by its bits, since sums are compiled as if all floats were."""
    return (bits_of(score) & np.int32(0x7F800000)) != np.int32(0x7F800000)


@sum_kernel
def products(
    checked: HasChecked, rows: Rows, row_of: Int32s, m: Any, numbers: Int32s, base: Any, n: Any, query: Floats, out: Floats
) -> Any:  # fmt: skip
    """Score documents of one segment: all scores of dense fields that anyone sees come from here.

    Parameters
    ----------
    row_of : (n * m,) int32
        Row of each vector; (0,): the vector's number.
    m : int
        Vectors of a document, of which the best counts: document d has the vectors ``d * m`` to ``d * m + m - 1``.
    numbers : (n_numbers,) int32
        doc_nums, ascending; those from ``base`` to ``base + n - 1`` are the segment's, others are passed over.
    out : (n_numbers,) float32

    Returns
    -------
    n_wrong : int
        Products that are not finite.
    """
    first, row_bytes, n_wrong = position(checked, rows), rows.shape[1] * rows.itemsize, 0
    for i in range(lower_bound(numbers, base), lower_bound(numbers, base + n)):
        vector = (np.int64(numbers[i]) - base) * m
        for j in range(m):
            row = np.int64(row_of[vector + j]) if len(row_of) else vector + j
            verify_row(checked, first, row_bytes, row)
            score = settled(product(rows, row, query))
            n_wrong += not is_finite(score)
            if j == 0 or score > out[i]:
                out[i] = score
    return n_wrong
