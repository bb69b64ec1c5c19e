"""Checks of arrays in one pass: NumPy would take a dozen calls, which cost more than a short query's search."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from . import kernel

SOUND, BAD_OFFSETS, BAD_LENGTHS, BAD_WEIGHT, NEGATIVE_TERM, NOT_ASCENDING = range(6)


@kernel
def fault_of_rows(indptr: npt.NDArray[np.int64], terms: npt.NDArray[np.int32], weights: npt.NDArray[np.float32]) -> int:
    """What is wrong with sparse rows in CSR form, or SOUND: the first of the constants above that holds."""
    if len(indptr) == 0 or indptr[0] != 0:
        return BAD_OFFSETS
    for i in range(1, len(indptr)):
        if indptr[i] < indptr[i - 1]:
            return BAD_OFFSETS
    if indptr[-1] != len(terms) or len(terms) != len(weights):
        return BAD_LENGTHS
    bad_weight, negative, falls = False, False, False
    for i in range(len(weights)):
        bad_weight |= not (weights[i] > 0 and weights[i] < np.inf)
    for i in range(len(terms)):
        negative |= terms[i] < 0
    for row in range(len(indptr) - 1):
        for i in range(indptr[row] + 1, indptr[row + 1]):
            falls |= terms[i] <= terms[i - 1]
    if bad_weight:
        return BAD_WEIGHT
    return NEGATIVE_TERM if negative else (NOT_ASCENDING if falls else SOUND)
