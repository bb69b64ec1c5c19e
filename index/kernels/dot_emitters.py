"""How dot products of bytes are emitted on each processor, and what explicit vectors of 32 lanes are made of.

Numba and LLVM are imported here: `dot_products` imports this when a kernel is first compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba.core import cgutils, types

LANES = 32
HALF = 16
COMPILED = not numba.config.DISABLE_JIT  # type: ignore[attr-defined]
I8, I16, I32, I64 = (ir.IntType(width) for width in (8, 16, 32, 64))
F32 = ir.FloatType()
INTS = ir.VectorType(I32, HALF)
FLOATS = ir.VectorType(F32, HALF)
# The 256 bits that an AVX2 instruction takes: a quarter of the lanes.
QUARTER_BYTES, QUARTER_SHORTS, QUARTER_INTS = ir.VectorType(I8, 32), ir.VectorType(I16, 16), ir.VectorType(I32, 8)


def has(feature: str) -> bool:
    """Tell whether Numba compiles for processors with a feature, by the name that LLVM has for it."""
    config: Any = numba.config
    if config.CPU_NAME is not None or config.CPU_FEATURES is not None:
        return f"+{feature}" in (config.CPU_FEATURES or "").split(",")
    return bool(llvm.get_host_cpu_features().get(feature, False))


VNNI = COMPILED and has("avx512vnni")
AVX2 = COMPILED and has("avx2")
TILE = 2 if AVX2 and not VNNI else 4
"""Rows that meet a block of lanes together: as many as registers hold the sums of."""


def load(builder: Any, address: Any, kind: Any, align: int = 1) -> Any:
    """Load a value of LLVM type ``kind`` from an address held in an i64."""
    value = builder.load(builder.inttoptr(address, kind.as_pointer()))
    value.align = align
    return value


def store(builder: Any, value: Any, address: Any) -> None:
    """Store a value at an address held in an i64, of any alignment."""
    builder.store(value, builder.inttoptr(address, value.type.as_pointer())).align = 1


def place(builder: Any, kind: Any) -> Any:
    """Reserve a local variable of LLVM type ``kind``; returns its address."""
    return cgutils.alloca_once(builder, kind)  # type: ignore[no-untyped-call]


def splat(builder: Any, value: Any) -> Any:
    """Repeat a 32-bit scalar in 16 lanes."""
    kind = ir.VectorType(value.type, HALF)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, I32(0))
    return builder.shuffle_vector(first, first, ir.Constant(INTS, [0] * HALF))


def constant(value: int) -> Any:
    """Return 16 lanes of an integer constant."""
    return ir.Constant(INTS, [value] * HALF)


def add_dot4(builder: Any, sums: Any, row: Any, vectors: Any, nbits: int) -> Any:
    """Add the dot products of four unsigned bytes (in each of 16 words) with four signed ones, lane by lane.

    Bytes of the row are below ``2 ** nbits``; all three are (16,) i32.
    """
    if VNNI:
        return call(builder, "llvm.x86.avx512.vpdpbusd.512", INTS, sums, row, vectors)
    if AVX2:
        product = _bytes_product if nbits < 8 else _shorts_product
        quarters = [[_quarter(builder, value, at) for value in (sums, row, vectors)] for at in range(2)]
        added = [builder.add(before, product(builder, codes, lanes)) for before, codes, lanes in quarters]
        return builder.shuffle_vector(*added, ir.Constant(INTS, list(range(HALF))))
    for byte in range(4):
        left = builder.and_(builder.lshr(row, constant(8 * byte)), constant(255))
        right = builder.ashr(builder.shl(vectors, constant(24 - 8 * byte)), constant(24))
        sums = builder.add(sums, builder.mul(left, right))
    return sums


def call(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    """Call an instruction by the name of its LLVM intrinsic."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, arguments)


def _quarter(builder: Any, value: Any, at: int) -> Any:
    picked = ir.Constant(QUARTER_INTS, list(range(8 * at, 8 * at + 8)))
    return builder.shuffle_vector(value, ir.Constant(INTS, ir.Undefined), picked)


def _bytes_product(builder: Any, row: Any, vectors: Any) -> Any:
    """Multiply codes of up to 4 bits, for AVX2: sums of two products, at most 2 * 15 * 128, do not saturate in 16 bits."""
    left, right = (builder.bitcast(value, QUARTER_BYTES) for value in (row, vectors))
    pairs = call(builder, "llvm.x86.avx2.pmadd.ub.sw", QUARTER_SHORTS, left, right)
    return call(builder, "llvm.x86.avx2.pmadd.wd", QUARTER_INTS, pairs, ir.Constant(QUARTER_SHORTS, [1] * 16))


def _shorts_product(builder: Any, row: Any, vectors: Any) -> Any:
    """Multiply codes of 8 bits, for AVX2: even and odd bytes are widened to 16 bits, and pairs of them added in 32."""
    eight = ir.Constant(QUARTER_SHORTS, [8] * 16)
    row, vectors = (builder.bitcast(value, QUARTER_SHORTS) for value in (row, vectors))
    even = builder.and_(row, ir.Constant(QUARTER_SHORTS, [255] * 16)), builder.ashr(builder.shl(vectors, eight), eight)
    odd = builder.lshr(row, eight), builder.ashr(vectors, eight)
    sums = [call(builder, "llvm.x86.avx2.pmadd.wd", QUARTER_INTS, *pair) for pair in (even, odd)]
    return builder.add(*sums)


def tile_of(builder: Any, number: Any, n: Any) -> list[Any]:
    """Emit the `TILE` positions of a tile of ``n`` > 0 rows; past the last row it comes again."""
    last = builder.sub(n, I64(1))
    wanted = [builder.add(builder.mul(number, I64(TILE)), I64(i)) for i in range(TILE)]
    return [builder.select(builder.icmp_unsigned("<", at, last), at, last) for at in wanted]


def n_tiles(builder: Any, n: Any) -> Any:
    """Emit the number of tiles of ``n`` rows."""
    return builder.udiv(builder.add(n, I64(TILE - 1)), I64(TILE))


def add_dots(
    builder: Any, start: tuple[Any, Any], rows: Sequence[Any], n_words: Any, packed: Any, nbits: int
) -> list[tuple[Any, Any]]:  # fmt: skip
    """Emit the loop over rows of ``n_words`` packed words; returns both halves of each row's 32 sums.

    Rows that go together load the lanes once, and their sums do not wait for each other. A word holds the codes of
    ``32 / nbits`` dimensions: plane ``c`` of it, its bits ``c * nbits`` onwards of each byte, those of dimensions
    ``c * 4 * n_words + 4 * word`` and the next three.
    """
    mask = constant(((1 << nbits) - 1) * 0x01010101)
    sums = [[place(builder, INTS) for _ in range(2)] for _ in rows]
    for pair in sums:
        for address, value in zip(pair, start, strict=True):
            builder.store(value, address)
    plane_bytes = builder.mul(n_words, I64(4 * LANES))
    with cgutils.for_range(builder, n_words) as loop:
        offset = builder.mul(loop.index, I64(4))
        words = [splat(builder, load(builder, builder.add(row, offset), I32)) for row in rows]
        at = builder.add(packed, builder.mul(loop.index, I64(4 * LANES)))
        for plane in range(8 // nbits):
            lanes = [load(builder, builder.add(at, I64(64 * half)), INTS) for half in range(2)]
            for word, pair in zip(words, sums, strict=True):
                codes = builder.lshr(word, constant(plane * nbits)) if plane else word
                if nbits < 8:
                    codes = builder.and_(codes, mask)
                for address, vectors in zip(pair, lanes, strict=True):
                    builder.store(add_dot4(builder, builder.load(address), codes, vectors, nbits), address)
            at = builder.add(at, plane_bytes)
    return [(builder.load(low), builder.load(high)) for low, high in sums]


def dot_rows(context: Any, rows: Any, n: Any, n_words: Any, packed: Any, start: Any, out: Any) -> Any:
    """Type and generate the products of rows with a block of lanes."""
    signature = types.void(*[types.int64] * 6)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, n, n_words, packed, start, out = arguments
        first = tuple(load(builder, builder.add(start, I64(64 * half)), INTS) for half in range(2))
        n_bytes = builder.mul(n_words, I64(4))
        with cgutils.for_range(builder, n_tiles(builder, n)) as loop:
            numbers = tile_of(builder, loop.index, n)
            places = [builder.add(rows, builder.mul(number, n_bytes)) for number in numbers]
            for number, pair in zip(numbers, add_dots(builder, first, places, n_words, packed, 8), strict=True):
                target = builder.add(out, builder.mul(number, I64(4 * LANES)))
                for half, sums in enumerate(pair):
                    store(builder, sums, builder.add(target, I64(64 * half)))
        return context.get_dummy_value()

    return signature, emit
