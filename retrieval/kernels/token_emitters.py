"""Explicit vectors for `maxsim` and `centroids`, of 32 query tokens a row: imported when a kernel is first compiled."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from ...index.kernels.dot_emitters import (
    F32,
    FLOATS,
    I8,
    I16,
    I64,
    INTS,
    LANES,
    add_dots,
    constant,
    load,
    n_tiles,
    place,
    splat,
    store,
    tile_of,
    tile_size,
)

LOWEST = -1e30
"""Similarity of a lane to no token."""


def maxima_emitter(nbits: int) -> Any:
    """Make the emitter for one width: the largest similarity of each lane to the tokens of one document."""

    def maxima(
        context: Any, levels: Any, codes: Any, scalars: Any, n_tokens: Any, n_words: Any, centroid_dots: Any, packed: Any,
        constants: Any, out: Any,
    ) -> Any:  # fmt: skip
        signature = types.void(*[types.int64] * 9)

        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            levels, codes, scalars, n_tokens, n_words, centroid_dots, packed, constants, out = arguments
            means, middles = (
                [load(builder, builder.add(constants, I64(at + 64 * half)), FLOATS) for half in range(2)] for at in (0, 128)
            )  # fmt: skip
            numbers = [load(builder, builder.add(constants, I64(256 + 4 * i)), F32) for i in range(5)]
            centroid_scale = splat(builder, numbers[0])
            best = [place(builder, FLOATS) for _ in range(2)]
            for address in best:
                builder.store(ir.Constant(FLOATS, [LOWEST] * 16), address)
            n_bytes = builder.mul(n_words, I64(4))
            zero = (constant(0), constant(0))
            size = tile_size(nbits)
            with cgutils.for_range(builder, n_tiles(builder, n_tokens, size)) as loop:
                tokens = tile_of(builder, loop.index, n_tokens, size)
                rows = [builder.add(levels, builder.mul(token, n_bytes)) for token in tokens]
                found = add_dots(builder, zero, rows, n_words, packed, nbits)
                for token, sums in zip(tokens, found, strict=True):
                    code = builder.zext(load(builder, builder.add(codes, builder.mul(token, I64(2))), I16), I64)
                    pair = builder.add(scalars, builder.mul(token, I64(2)))
                    inverse, scale = (
                        splat(builder, _dequantised(builder, builder.add(pair, I64(i)), *numbers[1 + 2 * i : 3 + 2 * i]))
                        for i in range(2)
                    )  # fmt: skip
                    dots = builder.add(centroid_dots, builder.mul(code, I64(4 * LANES)))
                    for half in range(2):
                        centroid = builder.sitofp(load(builder, builder.add(dots, I64(64 * half)), INTS), FLOATS)
                        left = builder.fadd(builder.fmul(centroid, centroid_scale), means[half])
                        right = builder.fsub(builder.sitofp(sums[half], FLOATS), middles[half])
                        value = builder.fadd(builder.fmul(left, inverse), builder.fmul(right, scale))
                        before = builder.load(best[half])
                        larger = builder.fcmp_ordered(">", value, before)
                        builder.store(builder.select(larger, value, before), best[half])
            for half in range(2):
                store(builder, builder.load(best[half]), builder.add(out, I64(64 * half)))
            return context.get_dummy_value()

        return signature, emit

    return maxima


def _dequantised(builder: Any, address: Any, lowest: Any, step: Any) -> Any:
    coded = builder.uitofp(load(builder, address, I8), F32)
    return builder.fadd(builder.fmul(coded, step), lowest)


def max_rows_emitter(*, coded: bool) -> Any:
    """Make the emitter: lane by lane the largest of ``n`` rows of dot products, side by side or named by codes."""

    def max_rows(context: Any, dots: Any, codes: Any, n: Any, out: Any) -> Any:
        signature = types.void(*[types.int64] * 4)

        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            dots, codes, n, out = arguments
            best = [place(builder, INTS) for _ in range(2)]
            for address in best:
                builder.store(constant(-(1 << 31)), address)
            with cgutils.for_range(builder, n) as loop:
                number = loop.index
                if coded:
                    number = builder.zext(load(builder, builder.add(codes, builder.mul(number, I64(2))), I16), I64)
                row = builder.add(dots, builder.mul(number, I64(4 * LANES)))
                for half, address in enumerate(best):
                    value, before = load(builder, builder.add(row, I64(64 * half)), INTS), builder.load(address)
                    builder.store(builder.select(builder.icmp_signed(">", value, before), value, before), address)
            for half, address in enumerate(best):
                store(builder, builder.load(address), builder.add(out, I64(64 * half)))
            return context.get_dummy_value()

        return signature, emit

    return max_rows
