"""Explicit vectors for `tiles`: rows of a matrix times columns, imported when a kernel is first compiled."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

TILE = 64
"""Columns of a tile."""
LANES = 16
"""Columns whose sums are held at once, for each of some rows."""
_F32, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_F32, LANES)
_FUSED = ("contract",)


def adder(n_rows: int) -> Any:
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
