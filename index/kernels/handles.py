"""Many arrays as one: their addresses and shapes, for kernels that are called for each query.

To hand an array to a kernel costs a tenth of a microsecond and several cache lines, and a segment has twenty. Whoever makes a
handle keeps the arrays alive and in place for as long as it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import Intrinsic, read_only

Handle = npt.NDArray[np.int64]
PLACE = 3
"""Numbers that an array takes: its address, rows and columns."""


def handle_of(arrays: Sequence[npt.NDArray[Any]]) -> Handle:
    """Return (3 x arrays,) int64: of each contiguous array its address, rows and, where there are two dimensions, columns."""
    places = [(array.ctypes.data, *array.shape, *[0] * (2 - array.ndim)) for array in arrays]
    return read_only(np.array(places, np.int64).reshape(-1))


def _emitter(kind: str, n_dimensions: int, writable: bool) -> Callable[..., Any]:
    def array(context: Any, handle: Any, number: Any) -> Any:
        from .handle_emitters import array_at

        return array_at(kind, n_dimensions, writable, PLACE)(context, handle, number)

    array.__name__ = f"array_at_{kind}_{n_dimensions}{'_writable' * writable}"
    return array


def array_at(kind: str, n_dimensions: int = 1, *, writable: bool = False) -> Callable[[Any, Any], Any]:
    """``array_at(kind)(handle, i)``: the i-th array of a handle, which has that type; in compiled kernels alone."""
    return Intrinsic(_emitter(kind, n_dimensions, writable))
