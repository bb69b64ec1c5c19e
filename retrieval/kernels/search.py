"""One query over some windows: choose the cheaper algorithm, and fall back to the scan when block-max turns out expensive."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...index.kernels.postings import BLOCK, I64, PostingArrays, verify_lists
from . import Integer, kernel
from .blockmax import search_blocks
from .bounds import bound_blocks, drop_blocks
from .scan import NS_POSTING, bounding_pays, scan_segment
from .scores import Accumulator, Allowed, count_allowed
from .topk import Keys, raise_threshold

AUTO, BLOCKMAX, SCAN, MAXSCORE = 0, 1, 2, 3
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
def allowed_shares(allowed: Allowed, window: Integer) -> tuple[float, float]:
    """Share of the documents that are allowed, and of the windows that hold one."""
    n_docs, n_windows, total = np.int64(0), np.int64(0), 0
    for first in range(0, len(allowed), window):
        count = np.int64(count_allowed(allowed[first : first + window]))
        n_docs += count
        n_windows += np.int64(count > 0)
        total += 1
    return n_docs / len(allowed), n_windows / total


@kernel
def search_windows(
    packed: tuple[Any, ...], window: Integer, first_window: Integer, last_window: Integer, n_docs: Integer, base: Integer,
    ranks: I64, integers: I64, allowed: Allowed, keys: Keys, n: Integer, k: Integer, floor: Integer,
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
    terms, weights = np.empty(len(ranks), np.int64), np.empty(len(ranks), accumulator.dtype)
    first, end = np.int64(first_window) * window, min(np.int64(n_docs), np.int64(last_window) * window)
    here, part = allowed[first:end], (end - first) / n_docs
    n_blocks = part * 2 * arrays.dense.shape[1]
    n_terms, n_postings, n_dense_postings, bound_ns = 0, np.int64(0), np.int64(0), 0.0
    for i in range(len(ranks)):
        if ranks[i] >= 0 and integers[i] > 0:
            terms[n_terms], weights[n_terms] = ranks[i], integers[i]
            n_terms += 1
            length = np.int64(part * (arrays.starts[ranks[i] + 1] - arrays.starts[ranks[i]]))
            n_postings += length
            if arrays.dense_rows[ranks[i]] < 0:
                bound_ns += NS_RARE_BOUND * length
            else:
                n_dense_postings += length
                bound_ns += NS_DENSE_BOUND * n_blocks
    terms, weights = terms[:n_terms], weights[:n_terms]
    if n_terms == 0:
        return n, floor
    verify_lists(arrays, terms)
    budget, tight, bounded = np.int64(1) << 40, False, bool(algorithm == MAXSCORE)
    if algorithm == AUTO:
        bounded = bool(bounding_pays(n_dense_postings, k))
        scan_ns = np.float64(NS_POSTING * n_postings * (BOUNDED_COST if bounded else 1.0))
        block_ns = NS_ENTRY * BLOCK * len(arrays.slots) / n_docs
        if len(allowed) > 0:
            share_docs, share_windows = allowed_shares(here, window)
            scan_ns = scan_ns * share_windows
            if share_docs < LOOSE_FILTER:
                scan_ns = np.float64(0)  # without seeds, and with few answers a block, block-max does not pay
        algorithm = BLOCKMAX if scan_ns > MARGIN * (bound_ns + BLOCKS_PER_HIT * k * block_ns) else SCAN
        budget = np.int64(SHARE * scan_ns / block_ns * BLOCK)
    if algorithm == BLOCKMAX:
        bound_blocks(arrays, window, first_window, last_window, terms, weights, bounds)
        docs_per_block = 1.0 * BLOCK
        if len(allowed) > 0:
            docs_per_block = max(1.0, BLOCK * drop_blocks(bounds, here) / (end - first))
        before, n_before, threshold_before = keys[:n].copy(), n, shared_threshold[0]
        n, reached, n_scored = search_blocks(
            arrays, first, end - first, base, terms, weights, bounds, here, keys, n, k, floor, shared_threshold, alpha,
            budget, docs_per_block,
        )  # fmt: skip
        if n_scored >= 0:
            return n, reached
        tight = bool(raise_threshold(shared_threshold, (reached >> 32) - 1) > threshold_before)
        n = n_before
        keys[:n] = before
    return scan_segment(
        arrays, window, first_window, last_window, n_docs, base, terms, weights, accumulator, bounds, allowed,
        keys, n, k, floor, shared_threshold, alpha, tight, bounded,
    )  # fmt: skip
