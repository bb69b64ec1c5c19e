"""Arrays of scores, masks of documents and weights of terms: their types, and what kernels share about them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...index.kernels import kernel_or
from . import Integer, kernel

Ranks = npt.NDArray[np.int64]
Accumulator = npt.NDArray[Any]
"""uint16, or uint32 when sums can pass 65,535; bounds and query weights have the same type."""
Allowed = npt.NDArray[np.bool_]


def _largest_of_array(scores: Any) -> Any:
    """Do what `largest` does."""
    return np.int64(scores.max())


@kernel_or(_largest_of_array)
def largest(scores: Accumulator) -> Integer:
    """Return the maximum of a non-empty array."""
    top = scores[0]
    for i in range(len(scores)):
        top = max(top, scores[i])
    return np.int64(top)


@kernel
def known_terms(ranks: Ranks, integers: Ranks) -> tuple[Ranks, Ranks]:
    """Terms of the query that the segment has, and their weights."""
    terms, weights = np.empty(len(ranks), np.int64), np.empty(len(ranks), np.int64)
    n = 0
    for i in range(len(ranks)):
        if ranks[i] >= 0 and integers[i] > 0:
            terms[n], weights[n] = ranks[i], integers[i]
            n += 1
    return terms[:n], weights[:n]
