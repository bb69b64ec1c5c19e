"""One query over some windows: choose the cheaper algorithm, and fall back to the scan when block-max turns out expensive.

`scan_windows` answers where the plain scan is chosen, as it is in small segments, and `search_windows` always: the second takes
several times as long to compile and to load, so it is called when the first says that it is needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...index.kernels.postings import BLOCK, I64, PostingArrays, verify_lists
from . import Integer, kernel
from .blockmax import search_blocks
from .bounds import bound_blocks, drop_blocks
from .maxscore import NS_CANDIDATE, scan_bounded
from .scan import NS_POSTING, scan_segment
from .scores import Accumulator, Allowed, known_terms
from .topk import Keys, raise_threshold

AUTO, BLOCKMAX, SCAN, MAXSCORE = 0, 1, 2, 3
CANDIDATES_PER_HIT = 60
"""Bounded scan: how many candidates an answer means, whose cost must be saved in postings."""
BOUNDED_COST = 0.5
"""Scan: what is left of its cost where terms are bounded."""
NS_DENSE_BOUND, NS_RARE_BOUND = 0.025, 1.8
"""Block-max: the bound of a block added from block maxima, and from a posting of a rare term."""
NS_ENTRY = 1.2
"""Block-max: an entry of a document row read."""
BLOCKS_PER_HIT = 3
"""Block-max: blocks scored for each answer when it goes well."""
MARGIN, SHARE = 4.0, 0.25
"""By how much block-max must look better to be tried; the share of the scan's cost that it may use up. The bounds left above
the threshold after the first rounds tell how many blocks are to come. All of these steer the choice, never the answer."""

LOOSE_FILTER = 0.5
"""Share of allowed documents below which block-max is not tried."""


@kernel
def choose(
    arrays: PostingArrays, window: Integer, first_window: Integer, last_window: Integer, n_docs: Integer, terms: I64,
    counts: I64, k: Integer,
) -> tuple[Integer, bool, Integer]:  # fmt: skip
    """Choose SCAN or BLOCKMAX; whether a scan is bounded; how many documents block-max may score before the scan takes over."""
    first, end = np.int64(first_window) * window, min(np.int64(n_docs), np.int64(last_window) * window)
    part = (end - first) / n_docs
    n_blocks = part * 2 * arrays.dense.shape[1]
    n_postings, n_dense_postings, bound_ns = 0.0, 0.0, 0.0
    for i in range(len(terms)):
        length = part * (arrays.starts[terms[i] + 1] - arrays.starts[terms[i]])
        n_postings += length
        if arrays.dense_rows[terms[i]] < 0:
            bound_ns += NS_RARE_BOUND * length
        else:
            n_dense_postings += length
            bound_ns += NS_DENSE_BOUND * n_blocks
    bounded = bool(NS_POSTING * n_dense_postings > CANDIDATES_PER_HIT * k * NS_CANDIDATE)
    scan_ns = NS_POSTING * n_postings * (BOUNDED_COST if bounded else 1.0)
    block_ns = NS_ENTRY * BLOCK * len(arrays.slots) / n_docs
    if len(counts) > 0:
        n_allowed, n_windows = np.int64(0), np.int64(0)
        for w in range(first_window, last_window):
            n_allowed += counts[w]
            n_windows += np.int64(counts[w] > 0)
        scan_ns *= n_windows / (last_window - first_window)
        if n_allowed < LOOSE_FILTER * (end - first):
            scan_ns = 0.0  # without seeds, and with few answers a block, block-max does not pay
    algorithm = BLOCKMAX if scan_ns > MARGIN * (bound_ns + BLOCKS_PER_HIT * k * block_ns) else SCAN
    return algorithm, bounded, np.int64(SHARE * scan_ns / block_ns * BLOCK)


@kernel
def scan_windows(
    packed: tuple[Any, ...], window: Integer, first_window: Integer, last_window: Integer, n_docs: Integer, base: Integer,
    ranks: I64, integers: I64, allowed: Allowed, counts: I64, keys: Keys, n: Integer, k: Integer, floor: Integer,
    shared_threshold: I64, algorithm: Integer, accumulator: Accumulator,
) -> tuple[Integer, Integer, bool]:  # fmt: skip
    """Do what `search_windows` does where the plain scan is asked for or chosen; (n, floor, False) where it is not."""
    arrays = PostingArrays(*packed)
    terms, weights = known_terms(ranks, integers, accumulator)
    if len(terms) == 0:
        return n, floor, True
    if algorithm == AUTO:
        algorithm, bounded, _ = choose(arrays, window, first_window, last_window, n_docs, terms, counts, k)
        if bounded:
            return n, floor, False
    if algorithm != SCAN:
        return n, floor, False
    verify_lists(arrays, terms)
    n, floor = scan_segment(
        arrays, window, first_window, last_window, n_docs, base, terms, weights, accumulator, allowed, counts,
        keys, n, k, floor, shared_threshold,
    )  # fmt: skip
    return n, floor, True


@kernel
def search_windows(
    packed: tuple[Any, ...], window: Integer, first_window: Integer, last_window: Integer, n_docs: Integer, base: Integer,
    ranks: I64, integers: I64, allowed: Allowed, counts: I64, keys: Keys, n: Integer, k: Integer, floor: Integer,
    shared_threshold: I64, alpha: float, algorithm: Integer, accumulator: Accumulator, bounds: Accumulator,
) -> tuple[Integer, Integer]:  # fmt: skip
    """Push every document of some windows of a segment that can be among the k best.

    Parameters
    ----------
    packed : tuple
        The segment's `PostingArrays` as a plain tuple, whose type Numba finds out faster.
    first_window, last_window : int
        From the first on, before the last.
    n_docs, base : int
        Of the segment: its documents and the doc_num of the first.
    ranks, integers : (n_terms,)
        The query; terms of rank -1 or weight 0 are passed over.
    allowed : (n_docs,) bool, or empty for all
    counts : (n_windows,), or empty
        Allowed documents of each window of the segment.
    keys, n, k, floor, shared_threshold
        As `scan.scan_segment` has them.
    alpha : float
        1: exact; see `blockmax`.
    algorithm : AUTO, BLOCKMAX, SCAN or MAXSCORE
    accumulator, bounds : scratch
        (65,536,) and (blocks of the windows + 8,192,) uint16 or uint32, wide enough for the largest score.

    Returns
    -------
    (n, floor)
    """
    arrays = PostingArrays(*packed)
    terms, weights = known_terms(ranks, integers, accumulator)
    if len(terms) == 0:
        return n, floor
    verify_lists(arrays, terms)
    budget: Integer = np.int64(1) << 40
    bounded, tight = bool(algorithm == MAXSCORE), False
    if algorithm == AUTO:
        algorithm, bounded, budget = choose(arrays, window, first_window, last_window, n_docs, terms, counts, k)
    if algorithm == BLOCKMAX:
        first, end = np.int64(first_window) * window, min(np.int64(n_docs), np.int64(last_window) * window)
        here = allowed[first:end]
        bound_blocks(arrays, window, first_window, last_window, terms, weights, bounds)
        docs_per_block = 1.0 * BLOCK
        if len(allowed) > 0:
            docs_per_block = max(1.0, BLOCK * drop_blocks(bounds, here) / (end - first))
        before, n_before, threshold_before = np.empty(n, np.int64), n, shared_threshold[0]
        for i in range(n):
            before[i] = keys[i]
        n, reached, n_scored = search_blocks(
            arrays, first, end - first, base, terms, weights, bounds, here, keys, n, k, floor, shared_threshold, alpha,
            budget, docs_per_block,
        )  # fmt: skip
        if n_scored >= 0:
            return n, reached
        tight = bool(raise_threshold(shared_threshold, (reached >> 32) - 1) > threshold_before)
        n = n_before
        for i in range(n):
            keys[i] = before[i]
    if bounded:
        return scan_bounded(
            arrays, window, first_window, last_window, n_docs, base, terms, weights, accumulator, bounds, allowed, counts,
            keys, n, k, floor, shared_threshold, alpha, tight,
        )  # fmt: skip
    return scan_segment(
        arrays, window, first_window, last_window, n_docs, base, terms, weights, accumulator, allowed, counts,
        keys, n, k, floor, shared_threshold,
    )  # fmt: skip
