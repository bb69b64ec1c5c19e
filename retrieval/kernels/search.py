"""One segment, one query: choose the cheaper way, and fall back in the middle when block-max turns out dear."""

from __future__ import annotations

import numpy as np

from ...index.kernels.postings import BLOCK, I64, PostingArrays
from . import Integer, kernel
from .blockmax import Table, bound_blocks, group_maxima, search_blocks
from .scan import Accumulator, Allowed, scan_segment
from .topk import Keys

AUTO, BLOCKMAX, SCAN = 0, 1, 2
NS_POSTING = 0.5
"""Scan: a posting added."""
NS_DENSE_BOUND, NS_RARE_BOUND = 0.025, 1.8
"""Block-max: the bound of a block added from block maxima, and from a posting of a rare term."""
NS_ENTRY = 1.6
"""Block-max: an entry of a document row read."""
BLOCKS_PER_HIT = 3
"""Block-max: blocks scored for each answer when it goes well."""
MARGIN, SHARE = 1.3, 0.4
"""By how much block-max must look better to be tried; the share of the scan's cost that it may use up. The bounds left above
the threshold after the first rounds tell how many blocks are to come. All of these steer the choice, never the answer."""


@kernel
def search_segment(
    arrays: PostingArrays, window: Integer, n_docs: Integer, base: Integer, ranks: I64, integers: I64, allowed: Allowed,
    keys: Keys, n: Integer, k: Integer, floor: Integer, threshold: Integer, alpha: float, way: Integer,
    accumulator: Accumulator, bounds: Accumulator, groups: Accumulator, table: Table,
) -> tuple[Integer, Integer]:  # fmt: skip
    """Push every document of the segment that can be among the k best.

    Parameters
    ----------
    ranks, integers : (n_terms,)
        The query; terms of rank -1 or weight 0 are passed over.
    allowed : (n_docs,) bool, or empty for all
    keys, n, k, floor : see `topk`
    threshold : int
        Scores not above it are known not to matter, beside the floor.
    way : AUTO, BLOCKMAX or SCAN
    accumulator, bounds, groups, table : scratch
        (65,536,), (n_blocks + 8,192,) and (n_blocks / 32,) uint16 or uint32, wide enough for the largest score;
        (power of two,) uint32, all zero.

    Returns
    -------
    (n, floor)
    """
    terms, weights = np.empty(len(ranks), np.int64), np.empty(len(ranks), accumulator.dtype)
    n_blocks = 2 * arrays.dense.shape[1]
    n_terms, n_postings, bound_ns = 0, np.int64(0), 0.0
    for i in range(len(ranks)):
        if ranks[i] >= 0 and integers[i] > 0:
            terms[n_terms], weights[n_terms] = ranks[i], integers[i]
            n_terms += 1
            length = arrays.starts[ranks[i] + 1] - arrays.starts[ranks[i]]
            n_postings += length
            bound_ns += NS_RARE_BOUND * length if arrays.dense_rows[ranks[i]] < 0 else NS_DENSE_BOUND * n_blocks
    terms, weights = terms[:n_terms], weights[:n_terms]
    if n_terms == 0:
        return n, floor
    budget = np.int64(1) << 40
    if way == AUTO:
        scan_ns = NS_POSTING * n_postings
        block_ns = NS_ENTRY * BLOCK * len(arrays.slots) / n_docs
        way = BLOCKMAX if scan_ns > MARGIN * (bound_ns + BLOCKS_PER_HIT * k * block_ns) else SCAN
        budget = np.int64(SHARE * scan_ns / block_ns)
    if way == BLOCKMAX:
        bound_blocks(arrays, window, terms, weights, bounds)
        group_maxima(bounds[:n_blocks], groups)
        for i in range(n_terms):
            table[terms[i]] = weights[i]
        before, n_before = keys[:n].copy(), n
        n, reached, n_scored = search_blocks(
            arrays, n_docs, base, table, bounds, groups, allowed, keys, n, k, floor, threshold, alpha, budget
        )
        for i in range(n_terms):
            table[terms[i]] = 0
        if n_scored >= 0:
            return n, reached
        threshold = max(threshold, (reached >> 32) - 1)
        n = n_before
        keys[:n] = before
    return scan_segment(arrays, window, n_docs, base, terms, weights, accumulator, allowed, keys, n, k, floor, threshold)
