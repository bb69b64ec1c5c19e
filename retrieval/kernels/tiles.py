"""Explicit vectors for matrices times tiles of columns: sums of 16 columns at a time stay in registers.

LLVM does not keep them there in plain loops, which is half as fast. Without compilation (NUMBA_DISABLE_JIT) NumPy stands in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

TILE = 64
"""Columns of a tile."""
LANES = 16
"""Columns whose sums are held at once, for each of some rows."""
ROWS = 4
"""Rows of a matrix that meet a column at once."""
_F32, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_F32, LANES)
_FUSED = ("contract",)


def _adder(n_rows: int) -> Any:
    """Make the function that types and generates `add_products` for so many rows."""

    def add_products(context: Any, matrix: Any, first: Any, n: Any, tile: Any, out: Any, row: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            matrix, tile, out = (
                context.make_array(signature.args[number])(context, builder, arguments[number]).data for number in (0, 3, 4)
            )
            first, n, row = (
                context.cast(builder, arguments[number], signature.args[number], types.int64) for number in (1, 2, 5)
            )

            def vector(data: Any, offset: Any) -> Any:
                return builder.bitcast(builder.gep(data, [offset]), _VECTOR.as_pointer())

            with cgutils.for_range_slice(builder, _I64(0), _I64(TILE), _I64(LANES), inc=True) as (column, _):
                places = [
                    vector(out, builder.add(column, builder.mul(builder.add(row, _I64(r)), _I64(TILE)))) for r in range(n_rows)
                ]
                sums = [cgutils.alloca_once(builder, _VECTOR) for _ in range(n_rows)]  # type: ignore[no-untyped-call]
                for place, total in zip(places, sums, strict=True):
                    builder.store(_load(builder, place), total)
                starts = [builder.add(first, builder.mul(n, _I64(r))) for r in range(n_rows)]
                with cgutils.for_range(builder, n) as loop:
                    entries = _load(builder, vector(tile, builder.add(column, builder.mul(loop.index, _I64(TILE)))))
                    for start, total in zip(starts, sums, strict=True):
                        weight = builder.load(builder.gep(matrix, [builder.add(start, loop.index)]))
                        product = builder.fmul(_splat(builder, weight), entries, flags=_FUSED)
                        builder.store(builder.fadd(builder.load(total), product, flags=_FUSED), total)
                for place, total in zip(places, sums, strict=True):
                    builder.store(builder.load(total), place).align = 4
            return context.get_dummy_value()

        return types.void(matrix, first, n, tile, out, row), generate

    return add_products


def _load(builder: Any, place: Any) -> Any:
    loaded = builder.load(place)
    loaded.align = 4
    return loaded


def _splat(builder: Any, value: Any) -> Any:
    first = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, _I32(0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))


def _plain_adder(n_rows: int) -> Any:
    def add_products(matrix: Any, first: Any, n: Any, tile: Any, out: Any, row: Any) -> None:
        out[row : row + n_rows] += np.einsum("rn,nc->rc", matrix[first : first + n_rows * n].reshape(n_rows, n), tile[:n])

    return add_products


_jit_off: bool = config.DISABLE_JIT  # type: ignore[attr-defined]
add_products: Callable[..., None] = _plain_adder(ROWS) if _jit_off else cast(Any, intrinsic(_adder(ROWS)))
"""``add_products(matrix, first, n, tile, out, row)``: add four rows of a matrix times a tile to rows of ``out``.

The four rows, of n numbers each, are ``matrix[first : first + 4 n]``, (.,) float32. The first n rows of ``tile`` are read, and
the rows ``row`` to ``row + 3`` of ``out`` added to; both are (., TILE) float32. Each sum runs over the tile's rows in order.
"""
add_product: Callable[..., None] = _plain_adder(1) if _jit_off else cast(Any, intrinsic(_adder(1)))
"""The same of one row."""
