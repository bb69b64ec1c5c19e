"""Windowed term-at-a-time scan: every posting of the query's terms is added, whatever k is.

Each window of documents is scored into an accumulator that stays in cache; then 64 scores at once are compared with the
threshold. `maxscore` does the same with bounds in place of frequent terms.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...index.kernels import kernel_or
from ...index.kernels.postings import I64, PostingArrays, run_span, verify_lists
from . import Integer, kernel
from .scores import Accumulator, Allowed, Ranks
from .simd import LANES, lowest, passing
from .topk import Keys, key_of, push, raise_threshold

NS_POSTING = 0.45
"""What a posting added costs. It steers, and never changes an answer."""


def _accumulate_arrays(accumulator: Any, slots: Any, impacts: Any, weight: Any) -> None:
    """Do what `accumulate` does: no slot comes twice in a run."""
    accumulator[slots] += impacts.astype(accumulator.dtype) * weight


@kernel_or(_accumulate_arrays)
def accumulate(accumulator: Accumulator, slots: npt.NDArray[np.uint16], impacts: npt.NDArray[np.uint8], weight: Any) -> None:
    """Add ``weight x impact`` at each posting's slot; the caller made sure that no sum passes the accumulator's type."""
    for i in range(len(slots)):
        slot = slots[i]
        accumulator[slot] += weight * accumulator.dtype.type(impacts[i])


@kernel
def add_terms(
    arrays: PostingArrays, ranks: Ranks, weights: Accumulator, n_skipped: Integer, cursors: I64, w: Integer,
    accumulator: Accumulator, size: Integer, begun: bool,
) -> bool:  # fmt: skip
    """Add the postings of all terms but the first ``n_skipped`` in window ``w``; False where none stands in the accumulator.

    ``begun``: it holds something already; else it is cleared before the first. ``cursors`` are each term's next run, and
    move on.
    """
    for i in range(n_skipped, len(ranks)):
        t, r = ranks[i], cursors[i]
        while r < arrays.run_starts[t + 1] and arrays.run_windows[r] < w:  # windows that were passed over
            r += 1
        cursors[i] = r
        if r == arrays.run_starts[t + 1] or arrays.run_windows[r] != w:
            continue
        if not begun:
            accumulator[:size] = 0
            begun = True
        first, end = run_span(arrays.starts, arrays.run_starts, arrays.run_offsets, t, r)
        cursors[i] = r + 1
        accumulate(accumulator, arrays.slots[first:end], arrays.impacts[first:end], weights[i])
    return begun


@kernel
def scan_segment(
    arrays: PostingArrays, window: Integer, first_window: Integer, last_window: Integer, n_docs: Integer, base: Integer,
    ranks: Ranks, weights: Accumulator, accumulator: Accumulator, allowed: Allowed, counts: I64,
    keys: Keys, n: Integer, k: Integer, floor: Integer, shared_threshold: I64,
) -> tuple[Integer, Integer]:  # fmt: skip
    """Push every document of some windows of the segment that can be among the k best.

    Parameters
    ----------
    first_window, last_window : int
        From the first on, before the last.
    ranks, weights : (n_terms,)
        The query; weights in the accumulator's dtype.
    accumulator : (65,536,) uint16 or uint32
        Scratch; any slot value fits it, so a damaged posting cannot write elsewhere.
    allowed : (n_docs,) bool, or empty for all
    counts : (n_windows,)
        Allowed documents of each window of the segment, where there is ``allowed``.
    keys, n, k, floor
        See `topk`; keys of earlier documents stay and compete.
    shared_threshold : (1,)
        Scores not above it are known not to matter, in addition to the floor; see `topk.raise_threshold`.

    Returns
    -------
    (n, floor)
    """
    cursors = np.empty(len(ranks), np.int64)
    for i in range(len(ranks)):
        cursors[i] = arrays.run_starts[ranks[i]]
    threshold = max(shared_threshold[0], floor >> 32)
    for w in range(first_window, last_window):
        threshold = max(threshold, raise_threshold(shared_threshold, (floor >> 32) - 1))
        first = w * window
        size = min(window, n_docs - first)
        if len(allowed) > 0 and counts[w] == 0:
            continue
        here = allowed[first : first + size] if len(allowed) > 0 else allowed
        if add_terms(arrays, ranks, weights, 0, cursors, w, accumulator, size, False):
            n, floor = push_window(accumulator, size, here, base + first, keys, n, k, floor, threshold)
            threshold = max(threshold, floor >> 32)
    return n, floor


@kernel
def push_window(
    scores: Accumulator, size: Integer, allowed: Allowed, base: Integer,
    keys: Keys, n: Integer, k: Integer, floor: Integer, threshold: Integer,
) -> tuple[Integer, Integer]:  # fmt: skip
    """Push the documents of a window whose scores are exact; ``base`` is the doc_num of the first."""
    for slot in range(len(allowed)):  # all at once: of few allowed documents the threshold is low, and most others pass it
        scores[slot] = scores[slot] * allowed[slot]
    for first in range(0, size, LANES):
        bits = passing(scores, first, threshold)
        while bits != 0:
            slot = first + lowest(bits)
            bits &= bits - 1
            score = np.int64(scores[slot])
            if score > threshold and slot < size:
                n, floor = push(keys, n, k, key_of(score, base + slot), floor)
                threshold = max(threshold, floor >> 32)
    return n, floor


@kernel
def score_all(arrays: PostingArrays, window: Integer, ranks: Ranks, weights: I64, scores: I64) -> None:
    """Exhaustive scoring into (n_docs,) int64 ``scores``: the oracle's loop, without windows, groups or thresholds."""
    verify_lists(arrays, ranks)
    for i in range(len(ranks)):
        t = ranks[i]
        for r in range(arrays.run_starts[t], arrays.run_starts[t + 1]):
            first, end = run_span(arrays.starts, arrays.run_starts, arrays.run_offsets, t, r)
            base = np.int64(arrays.run_windows[r]) * window
            for p in range(first, end):
                scores[base + arrays.slots[p]] += weights[i] * np.int64(arrays.impacts[p])
