"""Ask the processor to bring a part of an array into its cache before it is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...index.kernels import Intrinsic

LINE_BYTES = 64


def _emit_near(context: Any, array: Any, position: Any) -> Any:
    from .emitters import prefetch

    return prefetch(context, array, position, 3)


def _emit_far(context: Any, array: Any, position: Any) -> Any:
    from .emitters import prefetch

    return prefetch(context, array, position, 2)


def _no_prefetch(array: Any, position: Any) -> None:
    """Stand in where kernels run as plain Python."""


prefetch: Callable[[Any, Any], None] = Intrinsic(_emit_near, _no_prefetch)
"""``prefetch(array, position)``: bring the cache line of ``array[position]`` nearer; a hint that cannot fail."""
prefetch_far: Callable[[Any, Any], None] = Intrinsic(_emit_far, _no_prefetch)
"""The same into the second cache alone, which has room for more lines on their way."""
