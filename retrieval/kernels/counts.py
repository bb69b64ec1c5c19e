"""Texts as counts of their terms."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...index.kernels.terms import sort_pairs
from . import kernel

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


@kernel
def count_terms(ids: Int64s, lengths: Int64s, n_terms: int) -> tuple[Int64s, Int32s, Floats]:
    """Count the terms of texts that lie end to end, text ``i`` of ``lengths[i]`` ids; negative ids are passed over.

    Returns
    -------
    indptr (n + 1,), terms ascending in a row, counts
        CSR rows.
    """
    counts, indptr = np.zeros(n_terms, np.int64), np.zeros(len(lengths) + 1, np.int64)
    terms, weights = np.empty(len(ids), np.int32), np.empty(len(ids), np.float32)
    n, at = 0, 0
    for row in range(len(lengths)):
        first = n
        for p in range(at, at + lengths[row]):
            if ids[p] >= 0:
                if counts[ids[p]] == 0:
                    terms[n] = ids[p]
                    n += 1
                counts[ids[p]] += 1
        at += lengths[row]
        for i in range(first, n):
            weights[i] = counts[terms[i]]
            counts[terms[i]] = 0
        sort_pairs(terms[first:n], weights[first:n])
        indptr[row + 1] = n
    return indptr, terms[:n].copy(), weights[:n].copy()
