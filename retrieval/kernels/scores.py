"""Arrays of scores and masks of documents: their types, and what is asked of a stretch of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import Integer, kernel

Ranks = npt.NDArray[np.int64]
Accumulator = npt.NDArray[Any]
"""uint16, or uint32 when sums can pass 65,535; bounds and query weights have the same type."""
Allowed = npt.NDArray[np.bool_]


@kernel
def largest(scores: Accumulator) -> Integer:
    """Return the maximum of a non-empty array."""
    top = scores[0]
    for i in range(len(scores)):
        top = max(top, scores[i])
    return np.int64(top)


@kernel
def count_allowed(allowed: Allowed) -> Integer:
    """Count allowed documents, eight in one step."""
    whole = len(allowed) // 8 * 8
    count = np.uint64(0)
    for eight in allowed[:whole].view(np.uint64):  # a document is a byte, 0 or 1
        count += (eight * np.uint64(0x0101010101010101)) >> np.uint64(56)
    rest: Integer = allowed[whole:].sum()
    return np.int64(count) + rest
