"""Explicit vectors for matrices times tiles of columns: sums of 16 columns at a time stay in registers.

LLVM does not keep them there in plain loops, which is half as fast. Without compilation (NUMBA_DISABLE_JIT) NumPy stands in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...index.kernels import Intrinsic

TILE = 64
"""Columns of a tile."""
ROWS = 4
"""Rows of a matrix that meet a column at once."""


def _emit_products(context: Any, matrix: Any, first: Any, n: Any, tile: Any, out: Any, row: Any) -> Any:
    from .tile_emitters import adder

    return adder(ROWS)(context, matrix, first, n, tile, out, row)


def _emit_product(context: Any, matrix: Any, first: Any, n: Any, tile: Any, out: Any, row: Any) -> Any:
    from .tile_emitters import adder

    return adder(1)(context, matrix, first, n, tile, out, row)


def _plain_adder(n_rows: int) -> Any:
    def add_products(matrix: Any, first: Any, n: Any, tile: Any, out: Any, row: Any) -> None:
        out[row : row + n_rows] += np.einsum("rn,nc->rc", matrix[first : first + n_rows * n].reshape(n_rows, n), tile[:n])

    return add_products


add_products: Callable[..., None] = Intrinsic(_emit_products, _plain_adder(ROWS))
"""``add_products(matrix, first, n, tile, out, row)``: add four rows of a matrix times a tile to rows of ``out``.

The four rows, of n numbers each, are ``matrix[first : first + 4 n]``, (.,) float32. The first n rows of ``tile`` are read, and
the rows ``row`` to ``row + 3`` of ``out`` added to; both are (., TILE) float32. Each sum runs over the tile's rows in order.
"""
add_product: Callable[..., None] = Intrinsic(_emit_product, _plain_adder(1))
"""The same of one row."""
