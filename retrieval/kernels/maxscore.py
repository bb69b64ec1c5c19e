"""The scan with non-essential terms (MaxScore: Turtle, Flood, IP&M 1995), bounded by blocks.

Once a threshold is known, frequent terms of little weight need not be added posting by posting: the accumulator begins with
the bounds of their blocks, half a byte for eight documents, only the *essential* terms' postings are added, and the few
documents whose sum still passes the threshold are scored from their rows. How many terms are essential is settled from window
to window by what the last one cost. Exact with ``alpha`` = 1: a document is skipped only when its score is not above the
threshold.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...index.kernels.postings import BLOCK, I64, PostingArrays, step_of, verify_rows
from ...index.kernels.sorting import order_of
from . import Integer, kernel
from .bounds import bound_window
from .prefetch import prefetch
from .rows import prefetch_rows, score_document
from .scan import NS_POSTING, add_terms, push_window
from .scores import Accumulator, Allowed, Ranks
from .simd import LANES, lowest, passing
from .topk import Keys, key_of, push, raise_threshold

AHEAD = 8
"""Candidates whose rows are prefetched; their offsets are twice as far ahead."""
NS_CANDIDATE = 300.0
"""What a candidate scored costs. It steers, and never changes an answer."""
FIRST_SHARE, LAST_SHARE = 1.0, 6.0
"""What non-essential terms may reach together, in thresholds: at first, and at most. It may be more than one: bounds of blocks
are far below the sum of the terms' largest impacts."""


@kernel
def spread(bounds: Accumulator, accumulator: Accumulator) -> None:
    """Give each of a block's documents its bound."""
    for b in range(len(bounds)):
        for i in range(BLOCK):
            accumulator[b * BLOCK + i] = bounds[b]


@kernel
def by_worth(arrays: PostingArrays, ranks: Ranks, weights: Accumulator) -> I64:
    """Order of the terms, those with the least reach for each posting first, and last those without block maxima."""
    worth = np.empty(len(ranks), np.float64)
    for i in range(len(ranks)):
        t = ranks[i]
        length = np.float64(arrays.starts[t + 1] - arrays.starts[t])
        worth[i] = np.int64(weights[i]) * np.int64(arrays.kth[t, 0]) / length if arrays.dense_rows[t] >= 0 else np.inf
    order: I64 = order_of(worth)
    return order


@kernel
def sum_up(arrays: PostingArrays, ranks: Ranks, weights: Accumulator) -> tuple[I64, I64, int]:
    """What the first i terms reach together at most, their postings, both (n_terms + 1,), and how many have block maxima."""
    reach, n_postings = np.zeros(len(ranks) + 1, np.int64), np.zeros(len(ranks) + 1, np.int64)
    n_dense = 0
    for i in range(len(ranks)):
        t = ranks[i]
        n_dense += arrays.dense_rows[t] >= 0
        reach[i + 1] = reach[i] + np.int64(weights[i]) * 15 * step_of(np.int64(arrays.kth[t, 0]))
        n_postings[i + 1] = n_postings[i] + arrays.starts[t + 1] - arrays.starts[t]
    return reach, n_postings, n_dense


@kernel
def next_share(share: float, n_candidates: Integer, n_postings: float) -> float:
    """Let candidates cost between half of what the essential terms' postings cost and as much."""
    spent, scanned = NS_CANDIDATE * n_candidates, NS_POSTING * n_postings
    if spent > scanned:
        return share * 0.75
    return min(share * 1.3, LAST_SHARE) if spent < 0.5 * scanned else share


@kernel
def collect(scores: Accumulator, size: Integer, allowed: Allowed, threshold: Integer, slots: npt.NDArray[np.uint16]) -> Integer:
    """Fill ``slots`` with those below ``size`` that are allowed and whose score passes the threshold; returns their number."""
    n = 0
    for first in range(0, size, LANES):
        bits = passing(scores, first, threshold)
        while bits != 0:
            slot = first + lowest(bits)
            bits &= bits - 1
            if slot < size and (len(allowed) == 0 or allowed[slot]):
                slots[n] = slot
                n += 1
    return n


@kernel
def scan_bounded(
    arrays: PostingArrays, window: Integer, first_window: Integer, last_window: Integer, n_docs: Integer, base: Integer,
    ranks: Ranks, weights: Accumulator, accumulator: Accumulator, bounds: Accumulator, allowed: Allowed, counts: I64,
    keys: Keys, n: Integer, k: Integer, floor: Integer, shared_threshold: I64, alpha: float,
    tight: bool | np.bool_,
) -> tuple[Integer, Integer]:  # fmt: skip
    """Push every document of some windows of the segment that can be among the k best.

    Parameters are those of `scan.scan_segment`, and

    bounds : (>= 8,192,) of the accumulator's dtype
        Scratch.
    alpha : float
        1: exact. Less: a document whose bounds are not above the threshold / alpha is skipped.
    tight : bool
        The threshold comes from whole scores, not from single terms.

    Returns
    -------
    (n, floor)
    """
    order = by_worth(arrays, ranks, weights)
    ranks, weights = ranks[order], weights[order]
    reach, n_postings, n_dense = sum_up(arrays, ranks, weights)
    cursors = arrays.run_starts[ranks]
    candidates = np.empty(window, np.uint16)
    share = FIRST_SHARE
    threshold = max(shared_threshold[0], floor >> 32)
    for w in range(first_window, last_window):
        tight = tight or shared_threshold[0] > threshold  # another thread's answers
        threshold = max(threshold, raise_threshold(shared_threshold, (floor >> 32) - 1))
        first = w * window
        size = min(window, n_docs - first)
        if len(allowed) > 0 and counts[w] == 0:
            continue
        here = allowed[first : first + size] if len(allowed) > 0 else allowed
        n_bounded = 0
        while (tight or n >= k) and n_bounded < n_dense and reach[n_bounded + 1] <= share * threshold:
            n_bounded += 1
        if n_bounded > 0:
            bound_window(arrays, window, w, ranks[:n_bounded], weights[:n_bounded], bounds)
            spread(bounds[: (size + BLOCK - 1) // BLOCK], accumulator)
        if not add_terms(arrays, ranks, weights, n_bounded, cursors, w, accumulator, size, bool(n_bounded > 0)):
            continue
        n_candidates: Integer = 0
        if n_bounded == 0:
            n, floor = push_window(accumulator, size, here, base + first, keys, n, k, floor, threshold)
        else:
            highest = (1 << (8 * accumulator.itemsize)) - 1
            n_candidates = collect(accumulator, size, here, np.int64(min(threshold / alpha, highest)), candidates)
            n, floor = score_candidates(
                arrays, first, base, candidates[:n_candidates], accumulator, ranks, weights, keys, n, k, floor, threshold
            )
        threshold = max(threshold, floor >> 32)
        if n_bounded > 0:
            share = next_share(share, n_candidates, (n_postings[-1] - n_postings[n_bounded]) * window / n_docs)
    return n, floor


@kernel
def score_candidates(
    arrays: PostingArrays, first: Integer, base: Integer, candidates: npt.NDArray[np.uint16], accumulator: Accumulator,
    ranks: Ranks, weights: Accumulator, keys: Keys, n: Integer, k: Integer, floor: Integer, threshold: Integer,
) -> tuple[Integer, Integer]:  # fmt: skip
    """Score the candidates of the window that begins at document ``first`` from their rows, and push them."""
    verify_rows(arrays, first, candidates, 1)
    for i in range(len(candidates)):
        if i + 2 * AHEAD < len(candidates):
            prefetch(arrays.forward_indptr, first + np.int64(candidates[i + 2 * AHEAD]))
        if i + AHEAD < len(candidates):
            ahead = first + np.int64(candidates[i + AHEAD])
            prefetch_rows(arrays, ahead, ahead + 1)
        if accumulator[candidates[i]] <= threshold:
            continue
        d = first + np.int64(candidates[i])
        score = score_document(arrays, d, ranks, weights)
        if score > threshold:
            n, floor = push(keys, n, k, key_of(score, base + d), floor)
            threshold = max(threshold, floor >> 32)
    return n, floor
