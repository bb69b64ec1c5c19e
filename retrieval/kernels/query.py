"""Queries as integers: rounded weights, thresholds from the index alone, and scores as floats again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...index.kernels.postings import I32, I64, KTH, U8
from ...index.kernels.sorting import sort
from . import Integer, kernel
from .topk import HEAP_K, Keys

MAX_WEIGHT = 255
MIN_TOP_WEIGHT = 64
"""The heaviest term keeps at least this many levels, even when 16-bit sums might then not suffice."""
MAX_NARROW_SCORE = 65_535
MAX_SCORE = 2**31 - 1
SHARES = 2.0**24
"""Parts of the heaviest weight that weights are added in."""

Floats = npt.NDArray[np.float32]


@kernel
def weigh(weights: Floats, tops: I64, integers: I64) -> tuple[float | np.float64, bool | np.bool_]:
    """Fill ``integers`` with the weights rounded to 1..255, 0 where ``tops``, the reach of the term, is 0.

    As fine as 16-bit sums allow, but never below 64 levels for the heaviest term where 31-bit sums allow that. Whole numbers up
    to 255 are kept as they are.

    Returns
    -------
    (scale, narrow)
        Integer / weight; whether no score can pass 65,535.

    Raises
    ------
    ValueError
        So many terms (8 million or more) that weights of 1 already pass 31 bits.
    """
    top, whole = np.float64(0.0), True
    for i in range(len(weights)):
        if tops[i] > 0:
            w = np.float64(weights[i])
            top = max(top, w)
            whole = whole and w == np.floor(w)
    if top == 0.0:
        integers[:] = 0
        return 1.0, True
    shares = np.int64(0)  # whole numbers, whose sum does not depend on the order of the terms
    for i in range(len(weights)):
        if tops[i] > 0:
            shares += np.int64(np.rint(np.float64(weights[i]) / top * SHARES)) * tops[i]
    reach = max(np.float64(shares), 1.0) * top / SHARES
    scale = np.float64(1.0) if whole and top <= MAX_WEIGHT else np.float64(MAX_WEIGHT) / top
    total = round_weights(weights, tops, scale, integers)
    while total > MAX_NARROW_SCORE and scale * top > MIN_TOP_WEIGHT and not (whole and scale == 1.0):
        scale = max(min(scale * 0.98, MAX_NARROW_SCORE / reach), MIN_TOP_WEIGHT / top)
        total = round_weights(weights, tops, scale, integers)
    if total > MAX_SCORE:
        scale *= np.float64(MAX_SCORE) / total
    while round_weights(weights, tops, scale, integers) > MAX_SCORE:  # rounded up
        if scale * top < 1:
            raise ValueError("the query has too many terms: its scores do not fit 31 bits; leave out the lightest terms")
        scale *= 0.99
    return scale, total <= MAX_NARROW_SCORE


@kernel
def round_weights(weights: Floats, tops: I64, scale: float, integers: I64) -> Integer:
    """Round at one scale; returns the largest possible score."""
    total = np.int64(0)
    for i in range(len(weights)):
        integers[i] = 0
        if tops[i] > 0:
            integers[i] = min(max(np.int64(np.rint(np.float64(weights[i]) * scale)), np.int64(1)), np.int64(MAX_WEIGHT))
            total += integers[i] * tops[i]
    return total


@kernel
def seed(kth: U8, ranks: I64, integers: I64, needed: Integer) -> Integer:
    """Return a score that at least ``needed`` documents of the segment exceed, because one term alone gives it to them.

    ``ranks``, ``integers`` (n_terms,): terms that the segment has.
    """
    column = 0
    while column < len(KTH) and KTH[column] < needed:
        column += 1
    best = np.int64(0)
    if column < len(KTH):
        for i in range(len(ranks)):
            best = max(best, np.int64(kth[ranks[i], column]) * integers[i])
    return max(best - 1, np.int64(0))


@kernel
def write(keys: Keys, divisor: float, doc_nums: I32, scores: Floats) -> None:
    """Write doc_nums and float scores of the best of the ascending ``keys``, best first, as many as fit."""
    for i in range(min(len(keys), len(doc_nums))):
        key = keys[len(keys) - 1 - i]
        doc_nums[i] = np.int64(0xFFFFFFFF) - (key & np.int64(0xFFFFFFFF))
        scores[i] = np.float64(key >> 32) / divisor


@kernel
def finish(keys: Keys, k: Integer, divisor: float) -> tuple[I32, Floats]:
    """doc_nums and float scores of the k best of the ``keys``, best first; more than `topk.HEAP_K` keys ascend already."""
    if len(keys) <= HEAP_K:
        sort(keys)
    size = min(len(keys), k)
    doc_nums, scores = np.empty(size, np.int32), np.empty(size, np.float32)
    write(keys, divisor, doc_nums, scores)
    return doc_nums, scores
