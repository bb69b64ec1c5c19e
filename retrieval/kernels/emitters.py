"""What explicit vectors are made of: LLVM instructions for `simd` and `prefetch`, emitted when a kernel is first compiled.

Each function types its arguments and generates code, as `numba.extending.intrinsic` asks; here Numba and LLVM are imported.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

LANES = 64
"""Scores that are compared at once."""
ROW_LANES = 32
"""Entries of a row that meet a term at once."""
I1, I8, I16, I32, I64 = (ir.IntType(width) for width in (1, 8, 16, 32, 64))


def _splat(builder: Any, value: Any, lanes: int) -> Any:
    first = builder.insert_element(ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined), value, I32(0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))


def _load(builder: Any, array: Any, offset: Any, kind: Any) -> Any:
    """Load a vector from an element of an array on, at any alignment."""
    loaded = builder.load(builder.bitcast(builder.gep(array, [offset]), kind.as_pointer()))
    loaded.align = 1
    return loaded


def _data(context: Any, builder: Any, signature: Any, arguments: Any, number: int) -> Any:
    return context.make_array(signature.args[number])(context, builder, arguments[number]).data


def _whole(context: Any, builder: Any, signature: Any, arguments: Any, number: int) -> Any:
    return context.cast(builder, arguments[number], signature.args[number], types.int64)


def passing(context: Any, scores: Any, start: Any, threshold: Any) -> Any:
    """Type and generate the comparison of ``scores[start : start + 64]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        dtype = signature.args[0].dtype
        kind = ir.VectorType(context.get_value_type(dtype), LANES)
        offset = _whole(context, builder, signature, arguments, 1)
        loaded = _load(builder, _data(context, builder, signature, arguments, 0), offset, kind)
        low = context.cast(builder, arguments[2], signature.args[2], dtype)
        return builder.bitcast(builder.icmp_unsigned(">", loaded, _splat(builder, low, LANES)), I64)

    return types.int64(scores, start, threshold), generate


def lowest(context: Any, bits: Any) -> Any:
    """Type and generate the count of trailing zeros."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], I1(1))

    return types.int64(types.int64), generate


def row_scorer(width: int) -> Any:
    """Make the function that types and generates the scoring of a row whose ranks have a number of bytes."""
    rank_type = ir.IntType(8 * width)
    kind, sums_kind = ir.VectorType(rank_type, ROW_LANES), ir.VectorType(I32, ROW_LANES)
    zeros, numbers = ir.Constant(kind, [0] * ROW_LANES), ir.Constant(kind, list(range(ROW_LANES)))

    def score_row(context: Any, rows: Any, start: Any, n: Any, terms: Any, weights: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            def element(number: int, index: Any) -> Any:
                value = builder.load(builder.gep(_data(context, builder, signature, arguments, number), [index]))
                return builder.trunc(value, rank_type) if value.type.width > rank_type.width else builder.zext(value, rank_type)

            row = _data(context, builder, signature, arguments, 0)
            first, n = (_whole(context, builder, signature, arguments, number) for number in (1, 2))
            n_terms = builder.extract_value(context.make_array(signature.args[3])(context, builder, arguments[3]).shape, 0)
            impacts = builder.add(first, builder.mul(n, I64(width)))
            sums = cgutils.alloca_once_value(builder, ir.Constant(sums_kind, [0] * ROW_LANES))  # type: ignore[no-untyped-call]
            found = cgutils.alloca_once(builder, kind)  # type: ignore[no-untyped-call]
            steps = cgutils.for_range_slice(builder, I64(0), n, I64(ROW_LANES), inc=True)
            with steps as (i, _):
                ranks = _load(builder, row, builder.add(first, builder.mul(i, I64(width))), kind)
                builder.store(zeros, found)
                with cgutils.for_range(builder, n_terms) as loop:
                    same = builder.icmp_unsigned("==", ranks, _splat(builder, element(3, loop.index), ROW_LANES))
                    weight = _splat(builder, element(4, loop.index), ROW_LANES)
                    builder.store(builder.select(same, weight, builder.load(found)), found)
                left = builder.sub(n, i)
                left = builder.select(builder.icmp_signed("<", left, I64(ROW_LANES)), left, I64(ROW_LANES))
                inside = builder.icmp_unsigned("<", numbers, _splat(builder, builder.trunc(left, rank_type), ROW_LANES))
                weight = builder.select(inside, builder.load(found), zeros)
                impact = _load(builder, row, builder.add(impacts, i), ir.VectorType(I8, ROW_LANES))
                widened = weight if rank_type.width == 32 else builder.zext(weight, sums_kind)
                product = builder.mul(widened, builder.zext(impact, sums_kind))
                builder.store(builder.add(builder.load(sums), product), sums)
            add = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
                builder.module, ir.FunctionType(I32, [sums_kind]), f"llvm.vector.reduce.add.v{ROW_LANES}i32"
            )
            return builder.zext(builder.call(add, [builder.load(sums)]), I64)

        return types.int64(rows, start, n, terms, weights), generate

    return score_row


def prefetch(context: Any, array: Any, position: Any, level: int) -> Any:
    """Type and generate LLVM's prefetch: 3 for the first cache and all behind it, 2 for the second."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        offset = context.cast(builder, arguments[1], signature.args[1], types.intp)
        byte, flag = I8.as_pointer(), I32
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")  # type: ignore[no-untyped-call]
        address = builder.bitcast(builder.gep(data, [offset]), byte)
        builder.call(function, [address, flag(0), flag(level), flag(1)])  # read, level, data
        return context.get_dummy_value()

    return types.void(array, position), generate
