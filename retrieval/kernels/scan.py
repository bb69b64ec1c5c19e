"""Windowed term-at-a-time scan: exact top k at a cost that depends on the postings alone, whatever k is.

Each window of documents is scored into an accumulator that stays in cache; then groups of 256 documents whose best score
does not pass the threshold are skipped at the speed of a vector maximum. Exact: a document is skipped only when its score
is not above ``threshold``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...index.kernels.postings import I64, PostingArrays
from . import Integer, kernel
from .topk import Keys, key_of, push

GROUP = 256
Ranks = npt.NDArray[np.int64]
Accumulator = npt.NDArray[Any]
Allowed = npt.NDArray[np.bool_]


@kernel
def accumulate(accumulator: Accumulator, slots: npt.NDArray[np.uint16], impacts: npt.NDArray[np.uint8], weight: Any) -> None:
    """Add ``weight x impact`` at each posting's slot; the caller made sure that no sum passes the accumulator's type."""
    for i in range(len(slots)):
        slot = slots[i]
        accumulator[slot] += weight * accumulator.dtype.type(impacts[i])


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


@kernel
def score_window(
    arrays: PostingArrays,
    ranks: Ranks,
    weights: Accumulator,
    cursors: I64,
    w: Integer,
    accumulator: Accumulator,
    size: Integer,
) -> bool:
    """Score the ``size`` documents of window ``w``; False when no term occurs in it.

    ``cursors`` are each term's next run, and move on.
    """
    found = False
    for i in range(len(ranks)):
        t, r = ranks[i], cursors[i]
        while r < arrays.run_starts[t + 1] and arrays.run_windows[r] < w:  # windows that were passed over
            r += 1
        cursors[i] = r
        if r == arrays.run_starts[t + 1] or arrays.run_windows[r] != w:
            continue
        if not found:
            accumulator[:size] = 0
            found = True
        first = arrays.starts[t] + arrays.run_offsets[r]
        cursors[i] = r + 1
        last = r + 1 == arrays.run_starts[t + 1]
        end = arrays.starts[t + 1] if last else arrays.starts[t] + arrays.run_offsets[r + 1]
        accumulate(accumulator, arrays.slots[first:end], arrays.impacts[first:end], weights[i])
    return found


@kernel
def scan_segment(
    arrays: PostingArrays, window: Integer, n_docs: Integer, base: Integer, ranks: Ranks, weights: Accumulator,
    accumulator: Accumulator, allowed: Allowed, keys: Keys, n: Integer, k: Integer, floor: Integer, threshold: Integer,
) -> tuple[Integer, Integer]:  # fmt: skip
    """Push every document of the segment that can be among the k best.

    Parameters
    ----------
    ranks, weights : (n_terms,)
        The query; weights in the accumulator's dtype.
    accumulator : (65,536,) uint16 or uint32
        Scratch; any slot value fits it, so a damaged posting cannot write elsewhere.
    allowed : (n_docs,) bool, or empty for all
    keys, n, k, floor
        See `topk`; keys of earlier segments stay and compete.
    threshold : int
        Scores not above it are known not to matter, beside the floor.

    Returns
    -------
    (n, floor)
    """
    cursors = arrays.run_starts[ranks]
    filtered = len(allowed) > 0
    eights = allowed[: len(allowed) // 8 * 8].view(np.uint64)  # windows begin at multiples of 8
    threshold = max(threshold, floor >> 32)
    for w in range((n_docs + window - 1) // window):
        first = w * window
        size = min(window, n_docs - first)
        if filtered and count_allowed(allowed[first : first + size]) == 0:
            continue
        if not score_window(arrays, ranks, weights, cursors, w, accumulator, size):
            continue
        for g in range(0, size, GROUP):
            end = min(g + GROUP, size)
            if largest(accumulator[g:end]) <= threshold:
                continue
            for eight in range(g, end, 8):
                if filtered and (first + eight) // 8 < len(eights) and eights[(first + eight) // 8] == 0:
                    continue
                for slot in range(eight, min(eight + 8, end)):
                    score = np.int64(accumulator[slot])
                    if score <= threshold or (filtered and not allowed[first + slot]):
                        continue
                    n, floor = push(keys, n, k, key_of(score, base + first + slot), floor)
                    threshold = max(threshold, floor >> 32)
    return n, floor


@kernel
def score_all(arrays: PostingArrays, window: Integer, ranks: Ranks, weights: I64, scores: I64) -> None:
    """Exhaustive scoring into (n_docs,) int64 ``scores``: the oracle's loop, without windows, groups or thresholds."""
    for i in range(len(ranks)):
        t = ranks[i]
        for r in range(arrays.run_starts[t], arrays.run_starts[t + 1]):
            first = arrays.starts[t] + arrays.run_offsets[r]
            last = r + 1 == arrays.run_starts[t + 1]
            end = arrays.starts[t + 1] if last else arrays.starts[t] + arrays.run_offsets[r + 1]
            base = np.int64(arrays.run_windows[r]) * window
            for p in range(first, end):
                scores[base + arrays.slots[p]] += weights[i] * np.int64(arrays.impacts[p])
