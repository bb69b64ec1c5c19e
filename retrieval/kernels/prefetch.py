"""Ask the processor to bring a part of an array into its cache before it is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

LINE_BYTES = 64


def _prefetch_into(level: int) -> Any:
    """Return an intrinsic that calls LLVM's prefetch: 3 for the first cache and all behind it, 2 for the second."""

    def prefetch(context: Any, array: Any, position: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
            offset = context.cast(builder, arguments[1], signature.args[1], types.intp)
            byte = ir.IntType(8).as_pointer()
            flag = ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
            function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")  # type: ignore[no-untyped-call]
            address = builder.bitcast(builder.gep(data, [offset]), byte)
            builder.call(function, [address, flag(0), flag(level), flag(1)])  # read, level, data
            return context.get_dummy_value()

        return types.void(array, position), generate

    return intrinsic(prefetch)


def _no_prefetch(array: Any, position: Any) -> None:
    """Stand in where kernels run as plain Python."""


_jit_off: bool = config.DISABLE_JIT  # type: ignore[attr-defined]
prefetch: Callable[[Any, Any], None] = _no_prefetch if _jit_off else _prefetch_into(3)
"""``prefetch(array, position)``: bring the cache line of ``array[position]`` nearer; a hint that cannot fail."""
prefetch_far: Callable[[Any, Any], None] = _no_prefetch if _jit_off else _prefetch_into(2)
"""The same into the second cache alone, which has room for more lines on their way."""
