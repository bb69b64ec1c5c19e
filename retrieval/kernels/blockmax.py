"""Block-Max Pruning (Mallia, Suel, Tonellotto, SIGIR 2024): bound blocks of 8 documents, score the best ones first.

Steps: `bounds.bound_blocks` adds weight x block maximum over the query's terms; `collect_blocks` lists the blocks that may
hold an answer, best bound first; `search_blocks` scores their documents from their rows. Exact with ``alpha`` = 1: a block is
skipped only when its bound, which no score in it exceeds, is not above the threshold, and documents that tie with the k-th
best are ordered by doc_num. With ``alpha`` < 1 bounds are taken at ``alpha`` of their value: faster, approximate.
"""

from __future__ import annotations

import numpy as np

from ...index.kernels.postings import BLOCK, I32, I64, PostingArrays, verify_rows
from . import Integer, kernel
from .prefetch import prefetch
from .rows import prefetch_rows, score_document
from .scores import Accumulator, Allowed, Ranks, largest
from .simd import LANES, lowest, passing
from .topk import Keys, key_of, push, raise_threshold

N_BUCKETS = 256
AHEAD = 2
"""Blocks whose rows are prefetched; their offsets are twice as far ahead."""
VERIFIED = 16
"""Blocks whose rows are verified together."""
ROUNDS = np.array([0.85, 0.7, 0.0])
"""Blocks are collected in rounds by bound, so that most are never sorted: above 85 % of the best bound, 70 %, the rest."""


@kernel
def collect_blocks(bounds: Accumulator, low: Integer, high: Integer, shift: Integer, n_blocks: Integer) -> I32:
    """Blocks with ``low < bound <= high``, by falling ``bound >> shift``; ``bound >> shift`` is below N_BUCKETS."""
    starts = np.zeros(N_BUCKETS + 1, np.int64)
    for first in range(0, n_blocks, LANES):
        bits = passing(bounds, first, low)
        while bits != 0:
            bound = bounds[first + lowest(bits)]
            bits &= bits - 1
            if bound <= high:
                starts[N_BUCKETS - (bound >> shift)] += 1
    for bucket in range(N_BUCKETS):
        starts[bucket + 1] += starts[bucket]
    blocks = np.empty(starts[N_BUCKETS], np.int32)
    for first in range(0, n_blocks, LANES):
        bits = passing(bounds, first, low)
        while bits != 0:
            block = first + lowest(bits)
            bits &= bits - 1
            if bounds[block] <= high:
                bucket = N_BUCKETS - 1 - (bounds[block] >> shift)
                blocks[starts[bucket]] = block
                starts[bucket] += 1
    return blocks


@kernel
def search_blocks(
    arrays: PostingArrays, first: Integer, n_docs: Integer, base: Integer, ranks: Ranks, weights: Accumulator,
    bounds: Accumulator, allowed: Allowed, keys: Keys, n: Integer, k: Integer, floor: Integer, shared_threshold: I64,
    alpha: float, budget: Integer, docs_per_block: float,
) -> tuple[Integer, Integer, Integer]:  # fmt: skip
    """Score blocks best first until no bound passes the threshold.

    Parameters
    ----------
    first, n_docs : int
        The documents are ``n_docs`` of the segment, from its document ``first`` on.
    base : int
        doc_num of the segment's first document.
    ranks, weights : (n_terms,)
        The query; weights in the bounds' dtype.
    bounds : as `bound_blocks` made them
    allowed : (n_docs,) bool, or empty for all
    keys, n, k, floor : see `topk`
    shared_threshold : (1,)
        As `scan.scan_segment` has it.
    budget : int
        Documents to score at most.
    docs_per_block : float
        Documents of a block that are allowed, on average.

    Returns
    -------
    (n, floor, n_scored), with n_scored = -1 when the budget did not suffice: the answer is then incomplete.
    """
    n_blocks = (n_docs + BLOCK - 1) // BLOCK
    bounds[n_blocks : n_blocks + LANES] = 0  # damaged postings may have written there
    best = largest(bounds[:n_blocks])
    shift = 0
    while best >> shift >= N_BUCKETS:
        shift += 1
    high, n_scored = best, 0
    for share in ROUNDS:
        threshold: Integer = raise_threshold(shared_threshold, (floor >> 32) - 1)
        low = min(max(np.int64(threshold / alpha), np.int64(share * best)), best)
        blocks = collect_blocks(bounds, low, high, shift, n_blocks)
        if share < ROUNDS[0] and n_scored + docs_per_block * len(blocks) > budget:
            return n, floor, -1
        for j in range(len(blocks)):
            b = blocks[j]
            if j % VERIFIED == 0:
                verify_rows(arrays, first, blocks[j : j + VERIFIED], BLOCK)
            if j + 2 * AHEAD < len(blocks):
                prefetch(arrays.forward_indptr, first + np.int64(blocks[j + 2 * AHEAD]) * BLOCK)
            if j + AHEAD < len(blocks):
                ahead = np.int64(blocks[j + AHEAD]) * BLOCK
                prefetch_rows(arrays, first + ahead, first + min(ahead + BLOCK, n_docs))
            if alpha * np.float64(bounds[b]) <= threshold:
                continue
            if n_scored > budget:
                return n, floor, -1
            for d in range(b * BLOCK, min((b + 1) * BLOCK, n_docs)):
                if len(allowed) > 0 and not allowed[d]:
                    continue
                n_scored += 1
                score = score_document(arrays, first + d, ranks, weights)
                if score > threshold:
                    key = key_of(score, base + first + d)
                    if key > floor:
                        n, floor = push(keys, n, k, key, floor)
                        threshold = max(threshold, (floor >> 32) - 1)
        if low <= np.int64(threshold / alpha):
            break
        high = low
    return n, floor, n_scored
