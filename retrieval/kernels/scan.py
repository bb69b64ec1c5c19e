"""Windowed term-at-a-time scan: every posting of the query's terms is added, whatever k is.

Each window of documents is scored into an accumulator that stays in cache (`accumulation`); then 64 scores at once are compared
with the threshold. Scores are added in 16 bits; a window where one could pass 65,535 is added again in 32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...index.kernels import kernel_or
from ...index.kernels.postings import I64, PostingArrays, run_span, verify_columns, verify_postings
from . import Integer, kernel
from .accumulation import ADDED, OVERFLOW, add_window, columns_last
from .scores import Accumulator, Allowed, Ranks, largest
from .simd import LANES, lowest, passing
from .topk import HEAP_K, Keys, cut, key_of, push, raise_threshold

GROUPS, MANY_GROUPS = 512, 4096
"""Groups of a window's documents whose maxima give a first threshold: for small k, and for large."""
BUCKETS = 512
"""Their maxima are counted in so many."""


@kernel
def scan_segment(
    arrays: PostingArrays, window: Integer, first_window: Integer, last_window: Integer, n_docs: Integer, base: Integer,
    ranks: Ranks, weights: I64, narrow: Accumulator, wide: Accumulator, allowed: Allowed, counts: I64,
    keys: Keys, n: Integer, k: Integer, floor: Integer, shared_threshold: I64,
) -> tuple[Integer, Integer]:  # fmt: skip
    """Push every document of some windows of the segment that can be among the k best.

    Parameters
    ----------
    first_window, last_window : int
        From the first on, before the last.
    ranks, weights : (n_terms,)
        The query: terms that the segment has.
    narrow, wide : (65,536,) uint16 and uint32
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
    ranks, weights, n_listed = columns_last(arrays, ranks, weights)
    verify_postings(arrays, ranks[:n_listed])
    verify_columns(arrays, ranks[n_listed:])
    cursors = arrays.run_starts[ranks[:n_listed]]
    for w in range(first_window, last_window):
        threshold = max(floor >> 32, raise_threshold(shared_threshold, (floor >> 32) - 1))
        first = w * window
        size = min(window, n_docs - first)
        if len(allowed) > 0 and counts[w] == 0:
            continue
        here = allowed[first : first + size] if len(allowed) > 0 else allowed
        added = add_window(arrays, ranks, weights, n_listed, cursors, w, first, narrow, size)
        if added == ADDED:
            n, floor = push_window(narrow, size, here, base + first, keys, n, k, floor, threshold, shared_threshold)
        elif added == OVERFLOW:
            add_window(arrays, ranks, weights, n_listed, cursors, w, first, wide, size)
            n, floor = push_window(wide, size, here, base + first, keys, n, k, floor, threshold, shared_threshold)
    return n, floor


@kernel
def push_window(
    scores: Accumulator, size: Integer, allowed: Allowed, base: Integer,
    keys: Keys, n: Integer, k: Integer, floor: Integer, threshold: Integer, shared_threshold: I64,
) -> tuple[Integer, Integer]:  # fmt: skip
    """Push the documents of a window whose scores are exact; ``base`` is the doc_num of the first."""
    for slot in range(len(allowed)):  # all at once: of few allowed documents the threshold is low, and most others pass it
        scores[slot] = scores[slot] * allowed[slot]
    if n < k:
        threshold = max(threshold, raise_threshold(shared_threshold, exceeded_by(scores, size, k)))
    if threshold >= (np.int64(1) << (8 * scores.itemsize)) - 1:
        return n, floor
    scores[size : size + LANES] = 0  # a damaged posting may have written there
    for first in range(0, size, LANES):
        bits = passing(scores, first, threshold)
        if bits == 0:
            continue
        if k > HEAP_K:
            if n + LANES > len(keys):
                floor = max(floor, cut(keys, n, k))
                n = k
                threshold = max(threshold, floor >> 32)
            n = append_all(scores, first, bits, base, keys, n)
            continue
        while bits != 0:
            slot = first + lowest(bits)
            bits &= bits - 1
            score = np.int64(scores[slot])
            if score > threshold:
                n, floor = push(keys, n, k, key_of(score, base + slot), floor)
                threshold = max(threshold, floor >> 32)
    return n, floor


@kernel
def append_all(scores: Accumulator, first: Integer, bits: Integer, base: Integer, keys: Keys, n: Integer) -> Integer:
    """Put the keys of those of 64 documents whose bits are set behind the n that there are; returns how many there are then."""
    while bits != 0:
        slot = first + lowest(bits)
        bits &= bits - 1
        keys[n] = key_of(np.int64(scores[slot]), base + slot)
        n += 1
    return n


def _raise_array(maxima: Any, scores: Any) -> None:
    """Do what `raise_maxima` does."""
    np.maximum(maxima, scores, out=maxima)


@kernel_or(_raise_array)
def raise_maxima(maxima: Accumulator, scores: Accumulator) -> None:
    """Keep the larger of both, place by place."""
    for i in range(len(maxima)):
        maxima[i] = max(maxima[i], scores[i])


@kernel
def exceeded_by(scores: Accumulator, size: Integer, k: Integer) -> Integer:
    """Return a score that at least k of the first ``size`` exceed, as the maxima of groups of them tell; 0 where they do not.

    Without it the first window pushes thousands of documents that later ones push out.
    """
    n_groups = GROUPS if 4 * k <= GROUPS else MANY_GROUPS
    if size < 2 * n_groups or n_groups < 2 * k:
        return np.int64(0)
    maxima = scores[:n_groups].copy()
    for first in range(n_groups, size - n_groups + 1, n_groups):
        raise_maxima(maxima, scores[first : first + n_groups])
    top, shift = largest(maxima), 0
    while top >> shift >= BUCKETS:
        shift += 1
    counts = np.zeros(BUCKETS, np.int64)
    for j in range(n_groups):
        counts[maxima[j] >> shift] += 1
    n, bucket = np.int64(0), BUCKETS
    while n < k:
        bucket -= 1
        n += counts[bucket]
    return max((np.int64(bucket) << shift) - 1, np.int64(0))


@kernel
def score_all(arrays: PostingArrays, window: Integer, ranks: Ranks, weights: I64, scores: I64) -> None:
    """Exhaustive scoring into (n_docs,) int64 ``scores``: the oracle's loop, without windows, groups or thresholds."""
    verify_postings(arrays, ranks)
    for i in range(len(ranks)):
        t = ranks[i]
        for r in range(arrays.run_starts[t], arrays.run_starts[t + 1]):
            first, end = run_span(arrays.starts, arrays.run_starts, arrays.run_offsets, t, r)
            base = np.int64(arrays.run_windows[r]) * window
            for p in range(first, end):
                scores[base + arrays.slots[p]] += weights[i] * np.int64(arrays.impacts[p])
