"""Code for arrays at addresses: what `handles.array_at` is made of; here Numba and LLVM are imported."""

from __future__ import annotations

from typing import Any

from numba.core import cgutils, types
from numba.np.arrayobj import populate_array


def array_at(kind: str, n_dimensions: int, writable: bool, place: int) -> Any:
    """Make the function that types and generates an array of a NumPy type, whose address and shape stand in a handle.

    An array takes ``place`` numbers there.
    """
    array_type = types.Array(getattr(types, kind), n_dimensions, "C", readonly=not writable)

    def emit(context: Any, handle: Any, number: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            numbers = context.make_array(signature.args[0])(context, builder, arguments[0]).data
            number = context.cast(builder, arguments[1], signature.args[1], types.intp)
            first = builder.mul(number, number.type(place))
            address, *shape = (
                builder.load(builder.gep(numbers, [builder.add(first, first.type(i))])) for i in range(1 + n_dimensions)
            )
            item = context.get_data_type(array_type.dtype)
            width = first.type(context.get_abi_sizeof(item))
            strides = [width] if n_dimensions == 1 else [builder.mul(shape[1], width), width]
            array = context.make_array(array_type)(context, builder)
            populate_array(  # type: ignore[no-untyped-call]
                array, data=builder.inttoptr(address, item.as_pointer()), shape=cgutils.pack_array(builder, shape),  # type: ignore[no-untyped-call]
                strides=cgutils.pack_array(builder, strides), itemsize=width, meminfo=None,  # type: ignore[no-untyped-call]
            )  # fmt: skip
            return array._getvalue()

        return array_type(handle, number), generate

    return emit
