"""Numbers of dense rows as floats and as bits, for `dense`: imported when a kernel is first compiled."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from .dot_emitters import has

F16C = has("f16c")
I32, F32 = ir.IntType(32), ir.FloatType()


def _half(builder: Any, bits: Any) -> Any:
    """Widen 16 bits, by the instruction or by shifts: the exponent's bias differs by 112."""
    if F16C:
        return builder.fpext(builder.bitcast(bits, ir.HalfType()), F32)
    wide = builder.zext(bits, I32)
    magnitude = builder.bitcast(builder.shl(builder.and_(wide, I32(0x7FFF)), I32(13)), F32)
    scaled = builder.bitcast(builder.fmul(magnitude, ir.Constant(F32, 2.0**112)), I32)
    return builder.bitcast(builder.or_(scaled, builder.shl(builder.and_(wide, I32(0x8000)), I32(16))), F32)


def to_float(typingctx: Any, value: Any) -> Any:
    """Type and generate a number of a row as float32."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if value == types.uint16:
            return _half(builder, arguments[0])
        return builder.sitofp(arguments[0], F32) if value == types.int8 else arguments[0]

    return types.float32(value), codegen


def bits_of(typingctx: Any, value: Any) -> Any:
    """Type and generate the bits of a float32."""
    return types.int32(types.float32), lambda context, builder, signature, arguments: builder.bitcast(arguments[0], I32)


def float_of(typingctx: Any, bits: Any) -> Any:
    """Type and generate the float32 of bits."""
    return types.float32(types.int32), lambda context, builder, signature, arguments: builder.bitcast(arguments[0], F32)


def float_at(typingctx: Any, rows: Any, offset: Any) -> Any:
    """Type and generate the float32 that begins at a byte."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        loaded = builder.load(builder.bitcast(builder.gep(data, [arguments[1]]), F32.as_pointer()))
        loaded.align = 1
        return loaded

    return types.float32(rows, types.int64), codegen
