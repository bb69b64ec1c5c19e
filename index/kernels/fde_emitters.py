"""Explicit vectors for `fde`: sums of columns with signs, imported when a kernel is first compiled."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from .dot_emitters import F32, FLOATS, HALF, I32, I64, LANES, call, load, place, splat, store

SUMMED = 2 * LANES
"""Tokens that are projected together."""


def signed_sums(context: Any, columns: Any, starts: Any, coordinates: Any, signs: Any, n: Any, out: Any) -> Any:
    """Type and generate sums of columns with signs, cell by cell."""
    signature = types.void(*[types.int64] * 6)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        columns, starts, coordinates, signs, n, out = arguments
        sums = [place(builder, FLOATS) for _ in range(SUMMED // HALF)]
        with cgutils.for_range(builder, n) as target:
            begin, end = (
                builder.zext(load(builder, builder.add(starts, builder.mul(at, I64(4))), I32), I64)
                for at in (target.index, builder.add(target.index, I64(1)))
            )
            for address in sums:
                builder.store(ir.Constant(FLOATS, [0.0] * HALF), address)
            with cgutils.for_range_slice(builder, begin, end, I64(1)) as (i, _):
                offset = builder.mul(i, I64(4))
                coordinate = builder.zext(load(builder, builder.add(coordinates, offset), I32), I64)
                sign = splat(builder, load(builder, builder.add(signs, offset), F32))
                column = builder.add(columns, builder.mul(coordinate, I64(4 * SUMMED)))
                for half, address in enumerate(sums):
                    lanes = load(builder, builder.add(column, I64(64 * half)), FLOATS)
                    added = call(builder, "llvm.fmuladd.v16f32", FLOATS, sign, lanes, builder.load(address))
                    builder.store(added, address)  # fused or not: exact, since signs are 1 and -1
            row = builder.add(out, builder.mul(target.index, I64(4 * SUMMED)))
            for half, address in enumerate(sums):
                store(builder, builder.load(address), builder.add(row, I64(64 * half)))
        return context.get_dummy_value()

    return signature, emit
