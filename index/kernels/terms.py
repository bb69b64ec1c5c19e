"""Rows in other term numbers, and what a query asks of them: one pass, where NumPy would take a dozen calls."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from . import kernel
from .sorting import lower_bound

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
GAPS = (1750, 701, 301, 132, 57, 23, 10, 4, 1)
"""Ciura's for Shell's sort (FCT 2001): short rows pay for nothing, and the kernel compiles in a fifth of a merge's time."""


@kernel
def renumber_rows(indptr: I64, terms: I32, weights: Floats, numbers: I32) -> tuple[I64, I32, Floats]:
    """CSR rows with ``numbers[t]`` for each term ``t``, ascending again; terms whose number is negative are dropped."""
    new_indptr, new_terms, new_weights = np.zeros(len(indptr), np.int64), np.empty_like(terms), np.empty_like(weights)
    n = 0
    for row in range(len(indptr) - 1):
        first = n
        for p in range(indptr[row], indptr[row + 1]):
            if numbers[terms[p]] >= 0:
                new_terms[n], new_weights[n] = numbers[terms[p]], weights[p]
                n += 1
        sort_pairs(new_terms[first:n], new_weights[first:n])
        new_indptr[row + 1] = n
    return new_indptr, new_terms[:n].copy(), new_weights[:n].copy()


@kernel
def sort_pairs(terms: I32, weights: Floats) -> None:
    """Sort pairs by term, in place, by insertion over shrinking gaps; no term comes twice."""
    for gap in GAPS:
        for i in range(gap, len(terms)):
            term, weight, at = terms[i], weights[i], i
            while at >= gap and terms[at - gap] > term:
                terms[at], weights[at] = terms[at - gap], weights[at - gap]
                at -= gap
            terms[at], weights[at] = term, weight


@kernel
def add_frequencies(terms: I32, starts: I64, wanted: I32, frequencies: I64) -> None:
    """Add the postings of each wanted term number, in any order; ``terms`` ascends, term ``terms[r]`` has rank r."""
    for i in range(len(wanted)):
        rank = lower_bound(terms, wanted[i])
        if rank < len(terms) and terms[rank] == wanted[i]:
            frequencies[i] += starts[rank + 1] - starts[rank]


@kernel
def times_idf(weights: Floats, frequencies: I64, n_docs: int) -> Floats:
    """Weights times BM25's inverse document frequency, ``log(1 + (N - df + 1/2) / (df + 1/2))`` > 0."""
    result = np.empty_like(weights)
    for i in range(len(weights)):
        df = np.float64(frequencies[i])
        result[i] = weights[i] * np.float32(np.log1p((n_docs - df + 0.5) / (df + 0.5)))
    return result
