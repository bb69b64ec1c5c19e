"""Numba kernels of the index: arrays in, arrays out, no I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

Kernel = TypeVar("Kernel", bound=Callable[..., object])


def kernel(function: Kernel) -> Kernel:
    """Compile with lexmax's one set of options: cached on disk, without the GIL, IEEE division."""
    return cast(Kernel, njit(cache=True, nogil=True, error_model="numpy")(function))
