"""How dot products of bytes are emitted on each processor, and what explicit vectors of 32 lanes are made of.

Numba and LLVM are imported here: `dot_products` imports this when a kernel is first compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def has(feature: str) -> bool:
    """Tell whether Numba compiles for processors with a feature, by the name that LLVM has for it."""
    config: Any = numba.config
    if config.CPU_NAME is not None or config.CPU_FEATURES is not None:
        return f"+{feature}" in (config.CPU_FEATURES or "").split(",")
    return bool(llvm.get_host_cpu_features().get(feature, False))


def _level() -> str:
    """Name the instructions that products are made of; the first that the processor has."""
    levels = ("avx512vnni", "avx512vnni"), ("avxvnni", "avxvnni"), ("avx2", "avx2"), ("i8mm", "i8mm"), ("dotprod", "dotprod")
    return next((level for level, feature in levels if COMPILED and has(feature)), "plain")


LEVEL = _level()
"""avx512vnni: ``vpdpbusd`` of 512 bits; avxvnni: of 256; avx2: ``vpmaddubsw`` and ``vpmaddwd``; i8mm and dotprod: ARM's
``usdot`` and ``sdot``; plain: shifts and multiplications, which LLVM lowers for any processor."""
WIDTHS = {"avx512vnni": 512, "avxvnni": 256, "avx2": 256, "i8mm": 128, "dotprod": 128, "plain": 512}
"""Bits that an instruction takes."""
ROW_BITS = 7 if LEVEL == "avx2" else 8
"""Bits of activations that networks multiply fastest: sums of two products of 7 bits and 8 fit 16 bits, where AVX2 has them."""


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
    if LEVEL == "plain":
        return _shifted(builder, sums, row, vectors)
    if LEVEL == "avx512vnni":
        return call(builder, "llvm.x86.avx512.vpdpbusd.512", INTS, sums, row, vectors)
    parts = zip(*(_cut(builder, value) for value in (sums, row, vectors)), strict=True)
    return _joined(builder, [PRODUCTS[LEVEL](builder, *part, nbits) for part in parts])


def _shifted(builder: Any, sums: Any, row: Any, vectors: Any) -> Any:
    for byte in range(4):
        left = builder.and_(builder.lshr(row, constant(8 * byte)), constant(255))
        right = builder.ashr(builder.shl(vectors, constant(24 - 8 * byte)), constant(24))
        sums = builder.add(sums, builder.mul(left, right))
    return sums


def _cut(builder: Any, value: Any) -> list[Any]:
    """Cut 16 words into vectors that an instruction takes."""
    n = WIDTHS[LEVEL] // 32
    numbers = [ir.Constant(ir.VectorType(I32, n), list(range(at, at + n))) for at in range(0, HALF, n)]
    return [builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), each) for each in numbers]


def _joined(builder: Any, parts: Sequence[Any]) -> Any:
    """Put them together again, two by two."""
    while len(parts) > 1:
        n = 2 * parts[0].type.count
        all_of = ir.Constant(ir.VectorType(I32, n), list(range(n)))
        parts = [builder.shuffle_vector(*pair, all_of) for pair in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _cast(builder: Any, value: Any, kind: Any) -> Any:
    """See the bits of a vector as others."""
    return builder.bitcast(value, ir.VectorType(kind, WIDTHS[LEVEL] // kind.width))


def _same(kind: Any, value: int) -> Any:
    return ir.Constant(ir.VectorType(kind, WIDTHS[LEVEL] // kind.width), [value] * (WIDTHS[LEVEL] // kind.width))


def call(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    """Call an instruction by the name of its LLVM intrinsic."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, arguments)


def _avxvnni(builder: Any, sums: Any, row: Any, vectors: Any, nbits: int) -> Any:
    return call(builder, "llvm.x86.avx512.vpdpbusd.256", sums.type, sums, row, vectors)


def _avx2(builder: Any, sums: Any, row: Any, vectors: Any, nbits: int) -> Any:
    if nbits < 8:
        return builder.add(sums, _widened(builder, _pairs(builder, row, vectors)))
    # Even and odd bytes are widened to 16 bits, and pairs of them added in 32.
    eight = _same(I16, 8)
    row, vectors = _cast(builder, row, I16), _cast(builder, vectors, I16)
    even = builder.and_(row, _same(I16, 255)), builder.ashr(builder.shl(vectors, eight), eight)
    odd = builder.lshr(row, eight), builder.ashr(vectors, eight)
    for pair in (even, odd):
        sums = builder.add(sums, call(builder, "llvm.x86.avx2.pmadd.wd", sums.type, *pair))
    return sums


def _pairs(builder: Any, row: Any, vectors: Any) -> Any:
    """Sums of two products in 16 bits, which do not saturate for codes of up to 7 bits: they are at most 2 * 127 * 128."""
    kind = ir.VectorType(I16, WIDTHS[LEVEL] // 16)
    return call(builder, "llvm.x86.avx2.pmadd.ub.sw", kind, _cast(builder, row, I8), _cast(builder, vectors, I8))


def _widened(builder: Any, pairs: Any) -> Any:
    return call(builder, "llvm.x86.avx2.pmadd.wd", ir.VectorType(I32, pairs.type.count // 2), pairs, _same(I16, 1))


def _i8mm(builder: Any, sums: Any, row: Any, vectors: Any, nbits: int) -> Any:
    row, vectors = _cast(builder, row, I8), _cast(builder, vectors, I8)
    return call(builder, "llvm.aarch64.neon.usdot.v4i32.v16i8", sums.type, sums, row, vectors)


def _dotprod(builder: Any, sums: Any, row: Any, vectors: Any, nbits: int) -> Any:
    name, row, vectors = "llvm.aarch64.neon.sdot.v4i32.v16i8", _cast(builder, row, I8), _cast(builder, vectors, I8)
    if nbits < 8:
        return call(builder, name, sums.type, sums, row, vectors)
    # Both factors are signed: rows come with 128 less, and 128 times the sum of the vectors is added; it serves all rows.
    total = call(builder, name, sums.type, ir.Constant(sums.type, [0] * sums.type.count), _same(I8, 1), vectors)
    sums = builder.add(sums, builder.shl(total, ir.Constant(sums.type, [7] * sums.type.count)))
    return call(builder, name, sums.type, sums, builder.xor(row, _same(I8, -128)), vectors)


PRODUCTS: dict[str, Callable[..., Any]] = {"avxvnni": _avxvnni, "avx2": _avx2, "i8mm": _i8mm, "dotprod": _dotprod}


def add_planes(builder: Any, sums: Any, codes: Sequence[Any], vectors: Sequence[Any], nbits: int) -> Any:
    """Add the products of all planes of a word, as `add_dot4` adds one.

    AVX2 adds those of codes of up to 4 bits in 16 bits first: 8 / nbits planes reach at most 2 * 8 * 1 * 128.
    """
    if LEVEL != "avx2" or not len(codes) > 1:
        for code, lanes in zip(codes, vectors, strict=True):
            sums = add_dot4(builder, sums, code, lanes, nbits)
        return sums
    cut = [zip(_cut(builder, code), _cut(builder, lanes), strict=True) for code, lanes in zip(codes, vectors, strict=True)]
    found = []
    for before, parts in zip(_cut(builder, sums), zip(*cut, strict=True), strict=True):
        pairs = [_pairs(builder, *part) for part in parts]
        while len(pairs) > 1:
            pairs = [builder.add(*two) for two in zip(pairs[::2], pairs[1::2], strict=True)]
        found.append(builder.add(before, _widened(builder, pairs[0])))
    return _joined(builder, found)


def tile_size(nbits: int, used: int | None = None) -> int:
    """Rows of codes that meet a block of lanes together: as many as registers hold the sums of, as measured."""
    if LEVEL == "avx2":  # sums of planes in 16 bits take registers too; widened codes of 8 bits are worth more rows
        return 1 if nbits < 8 else 2 if used == 7 else 4
    if LEVEL == "avx512vnni" and nbits == 8:  # twice the registers
        return 8
    return 4 if LEVEL in ("avx512vnni", "plain") else 2


def tile_of(builder: Any, number: Any, n: Any, size: int) -> list[Any]:
    """Emit the ``size`` positions of a tile of ``n`` > 0 rows; past the last row it comes again."""
    last = builder.sub(n, I64(1))
    wanted = [builder.add(builder.mul(number, I64(size)), I64(i)) for i in range(size)]
    return [builder.select(builder.icmp_unsigned("<", at, last), at, last) for at in wanted]


def n_tiles(builder: Any, n: Any, size: int) -> Any:
    """Emit the number of tiles of ``n`` rows."""
    return builder.udiv(builder.add(n, I64(size - 1)), I64(size))


def add_dots(
    builder: Any, start: tuple[Any, Any], rows: Sequence[Any], n_words: Any, packed: Any, nbits: int, used: int | None = None,
    step: int = 1,
) -> list[tuple[Any, Any]]:  # fmt: skip
    """Emit the loop over rows of ``n_words`` packed words; returns both halves of each row's 32 sums.

    Rows that go together load the lanes once, and their sums do not wait for each other. A word holds the codes of
    ``32 / nbits`` dimensions: plane ``c`` of it, its bits ``c * nbits`` onwards of each byte, those of dimensions
    ``c * 4 * n_words + 4 * word`` and the next three. ``used``: bits of a code that can be set, where not all can. ``step``:
    words whose products are added together as `add_planes` adds those of planes; it divides ``n_words``.
    """
    mask = constant(((1 << nbits) - 1) * 0x01010101)
    sums = [[place(builder, INTS) for _ in range(2)] for _ in rows]
    for pair in sums:
        for address, value in zip(pair, start, strict=True):
            builder.store(value, address)
    plane_bytes = builder.mul(n_words, I64(4 * LANES))
    with cgutils.for_range(builder, builder.udiv(n_words, I64(step))) as loop:
        first = builder.mul(loop.index, I64(step))
        numbers = [builder.add(first, I64(i)) for i in range(step)]
        words = [
            [splat(builder, load(builder, builder.add(row, builder.mul(at, I64(4))), I32)) for at in numbers] for row in rows
        ]
        starts = [builder.add(packed, builder.mul(at, I64(4 * LANES))) for at in numbers]
        places = [builder.add(at, builder.mul(plane_bytes, I64(plane))) for at in starts for plane in range(8 // nbits)]
        lanes = [[load(builder, builder.add(each, I64(64 * half)), INTS) for each in places] for half in range(2)]
        for own, pair in zip(words, sums, strict=True):
            shifted = [builder.lshr(word, constant(c * nbits)) if c else word for word in own for c in range(8 // nbits)]
            codes = [builder.and_(each, mask) for each in shifted] if nbits < 8 else shifted
            for address, vectors in zip(pair, lanes, strict=True):
                builder.store(add_planes(builder, builder.load(address), codes, vectors, used or nbits), address)
    return [(builder.load(low), builder.load(high)) for low, high in sums]


def dot_rows(
    context: Any, rows: Any, n: Any, n_words: Any, packed: Any, start: Any, out: Any, used: int = 8, step: int = 1
) -> Any:  # fmt: skip
    """Type and generate the products of rows, bytes below ``2 ** used``, with a block of lanes, ``step`` words at once."""
    signature = types.void(*[types.int64] * 6)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, n, n_words, packed, start, out = arguments
        first = tuple(load(builder, builder.add(start, I64(64 * half)), INTS) for half in range(2))
        n_bytes, size = builder.mul(n_words, I64(4)), tile_size(8, used)
        with cgutils.for_range(builder, n_tiles(builder, n, size)) as loop:
            numbers = tile_of(builder, loop.index, n, size)
            places = [builder.add(rows, builder.mul(number, n_bytes)) for number in numbers]
            for number, pair in zip(numbers, add_dots(builder, first, places, n_words, packed, 8, used, step), strict=True):
                target = builder.add(out, builder.mul(number, I64(4 * LANES)))
                for half, sums in enumerate(pair):
                    store(builder, sums, builder.add(target, I64(64 * half)))
        return context.get_dummy_value()

    return signature, emit
