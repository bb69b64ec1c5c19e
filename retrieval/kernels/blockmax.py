"""Block-Max Pruning (Mallia, Suel, Tonellotto, SIGIR 2024): bound blocks of 8 documents, score the best ones first.

Steps: `bound_blocks` adds weight x block maximum over the query's terms; `collect_blocks` lists the blocks that may hold an
answer, best bound first; `score_block` scores a block's documents from their rows. Exact with ``alpha`` = 1: a block is
skipped only when its bound, which no score in it exceeds, is not above the threshold, and documents that tie with the k-th
best are told apart by doc_num. With ``alpha`` < 1 bounds are taken at ``alpha`` of their value: faster, approximate.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...index.kernels.postings import BLOCK, I32, PostingArrays, step_of
from . import Integer, kernel
from .prefetch import LINE_BYTES, prefetch
from .scan import Accumulator, Allowed, Ranks, largest
from .topk import Keys, key_of, push

Table = npt.NDArray[np.uint32]
GROUP = 32
"""Blocks whose bounds are skipped together."""
N_BUCKETS = 256
AHEAD = 2
"""Blocks whose rows are prefetched; their offsets are twice as far ahead."""
ROUNDS = np.array([0.85, 0.7, 0.0])
"""Blocks are collected in rounds by bound, so that most are never sorted: above 85 % of the best bound, 70 %, the rest."""


@kernel
def add_nibbles(bounds: Accumulator, row: npt.NDArray[np.uint8], unit: Any) -> None:
    """Add ``unit x nibble``: low nibbles to the first half of the bounds, high ones to the second.

    ``unit`` has the bounds' type, and every intermediate is cut back to it: else the loops run on 64-bit lanes.
    """
    kind = bounds.dtype.type
    half = len(row)
    low, high = bounds[:half], bounds[half:]
    for i in range(half):
        low[i] = kind(low[i] + kind(unit * kind(row[i] & np.uint8(15))))
    for i in range(half):
        high[i] = kind(high[i] + kind(unit * kind(row[i] >> np.uint8(4))))


@kernel
def add_nibbles_2(bounds: Accumulator, row: npt.NDArray[np.uint8], unit: Any, row2: npt.NDArray[np.uint8], unit2: Any) -> None:
    """Do the same for two rows at once, which halves the traffic to the bounds."""
    kind = bounds.dtype.type
    half = len(row)
    low, high = bounds[:half], bounds[half:]
    for i in range(half):
        both = kind(kind(unit * kind(row[i] & np.uint8(15))) + kind(unit2 * kind(row2[i] & np.uint8(15))))
        low[i] = kind(low[i] + both)
    for i in range(half):
        both = kind(kind(unit * kind(row[i] >> np.uint8(4))) + kind(unit2 * kind(row2[i] >> np.uint8(4))))
        high[i] = kind(high[i] + both)


@kernel
def add_postings(arrays: PostingArrays, window: Integer, t: Integer, weight: Integer, bounds: Accumulator) -> None:
    """Add a rare term's bounds from its postings: of those in one block, which stand together, the largest impact counts.

    Without branches on the data: each posting adds by how much it exceeds the block's largest so far.
    """
    kind = bounds.dtype.type
    w = kind(weight)
    for r in range(arrays.run_starts[t], arrays.run_starts[t + 1]):
        first = arrays.starts[t] + arrays.run_offsets[r]
        last = r + 1 == arrays.run_starts[t + 1]
        end = arrays.starts[t + 1] if last else arrays.starts[t] + arrays.run_offsets[r + 1]
        base = np.int64(arrays.run_windows[r]) * (window // BLOCK)
        slots, impacts, part = arrays.slots[first:end], arrays.impacts[first:end], bounds[base:]
        block, top = np.uint16(0xFFFF), np.uint8(0)
        for p in range(len(slots)):
            here = np.uint16(slots[p] // np.uint16(BLOCK))
            top = top if here == block else np.uint8(0)
            gain = np.uint8(impacts[p] - top) if impacts[p] > top else np.uint8(0)
            part[here] = kind(part[here] + kind(w * kind(gain)))
            top, block = np.uint8(top + gain), here


@kernel
def bound_blocks(arrays: PostingArrays, window: Integer, ranks: Ranks, weights: Accumulator, bounds: Accumulator) -> None:
    """Fill ``bounds`` (>= n_blocks + 8192 entries) so that no document of block b scores above ``bounds[b]``."""
    bounds[:] = 0
    rows, units = np.empty(len(ranks), np.int64), np.empty(len(ranks), bounds.dtype)
    n_dense = 0
    for i in range(len(ranks)):
        t = ranks[i]
        if arrays.dense_rows[t] < 0:
            add_postings(arrays, window, t, weights[i], bounds)
        else:
            rows[n_dense], units[n_dense] = arrays.dense_rows[t], weights[i] * step_of(np.int64(arrays.kth[t, 0]))
            n_dense += 1
    half = window // BLOCK // 2
    for j in range(0, n_dense, 2):  # two rows from end to end: memory is read in long streams
        row, row2 = arrays.dense[rows[j]], arrays.dense[rows[min(j + 1, n_dense - 1)]]
        for base in range(0, len(row), half):
            end = base + half
            part = bounds[2 * base : 2 * end]
            if j + 1 < n_dense:
                add_nibbles_2(part, row[base:end], units[j], row2[base:end], units[j + 1])
            else:
                add_nibbles(part, row[base:end], units[j])


@kernel
def drop_blocks(bounds: Accumulator, allowed: Allowed) -> Integer:
    """Set the bounds of blocks without an allowed document to 0; returns the number of allowed documents."""
    eights = allowed[: len(allowed) // BLOCK * BLOCK].view(np.uint64)  # a document is a byte, 0 or 1
    n_allowed = np.uint64(0)
    for b in range(len(eights)):
        n_allowed += (eights[b] * np.uint64(0x0101010101010101)) >> np.uint64(56)
        bounds[b] = bounds[b] if eights[b] != 0 else bounds.dtype.type(0)
    rest = 0
    for d in range(len(eights) * BLOCK, len(allowed)):
        rest += allowed[d]
    if len(eights) * BLOCK < len(allowed) and rest == 0:
        bounds[len(eights)] = 0
    return np.int64(n_allowed) + rest


@kernel
def collect_blocks(
    bounds: Accumulator, groups: Accumulator, low: Integer, high: Integer, shift: Integer, n_blocks: Integer
) -> I32:
    """Blocks with ``low < bound <= high``, by falling ``bound >> shift``; ``bound >> shift`` is below N_BUCKETS."""
    starts = np.zeros(N_BUCKETS + 1, np.int64)
    for g in range(len(groups)):
        if groups[g] <= low:
            continue
        for b in range(g * GROUP, min((g + 1) * GROUP, n_blocks)):
            if low < bounds[b] <= high:
                starts[N_BUCKETS - (bounds[b] >> shift)] += 1
    for bucket in range(N_BUCKETS):
        starts[bucket + 1] += starts[bucket]
    blocks = np.empty(starts[N_BUCKETS], np.int32)
    for g in range(len(groups)):
        if groups[g] <= low:
            continue
        for b in range(g * GROUP, min((g + 1) * GROUP, n_blocks)):
            if low < bounds[b] <= high:
                bucket = N_BUCKETS - 1 - (bounds[b] >> shift)
                blocks[starts[bucket]] = b
                starts[bucket] += 1
    return blocks


@kernel
def score_document(arrays: PostingArrays, d: Integer, table: Table) -> Integer:
    """Score one document from its row; ``table`` has the query's weight by rank and a power of two of entries."""
    score = np.int64(0)
    last = len(table) - 1
    for p in range(arrays.forward_indptr[d], arrays.forward_indptr[d + 1]):
        weight = table[arrays.forward_ranks[p] & last]
        if weight != 0:
            score += np.int64(weight) * np.int64(arrays.forward_impacts[p])
    return score


@kernel
def prefetch_block(arrays: PostingArrays, b: Integer, n_docs: Integer) -> None:
    """Prefetch the rows of a block's documents."""
    first = arrays.forward_indptr[b * BLOCK]
    end = arrays.forward_indptr[min((b + 1) * BLOCK, n_docs)]
    for p in range(first, end, LINE_BYTES // arrays.forward_ranks.itemsize):
        prefetch(arrays.forward_ranks, p)
    for p in range(first, end, LINE_BYTES):
        prefetch(arrays.forward_impacts, p)


@kernel
def search_blocks(
    arrays: PostingArrays, n_docs: Integer, base: Integer, table: Table, bounds: Accumulator,
    groups: Accumulator, allowed: Allowed, keys: Keys, n: Integer, k: Integer, floor: Integer, threshold: Integer, alpha: float,
    budget: Integer, docs_per_block: float,
) -> tuple[Integer, Integer, Integer]:  # fmt: skip
    """Score blocks best first until no bound passes the threshold.

    Parameters
    ----------
    table : (power of two,) uint32
        Query weight by rank.
    bounds, groups : as `bound_blocks` made them, and their maxima over groups of 32
    allowed : (n_docs,) bool, or empty for all
    keys, n, k, floor : see `topk`
    threshold : int
        Scores not above it are known not to matter.
    budget : int
        Documents to score at most.
    docs_per_block : float
        Documents of a block that are allowed, on average.

    Returns
    -------
    (n, floor, n_scored), with n_scored = -1 when the budget did not suffice: the answer is then incomplete.
    """
    n_blocks = (n_docs + BLOCK - 1) // BLOCK
    best = largest(groups)
    shift = 0
    while best >> shift >= N_BUCKETS:
        shift += 1
    high, n_scored = best, 0
    for share in ROUNDS:
        threshold = max(threshold, (floor >> 32) - 1)
        low = max(np.int64(threshold / alpha), np.int64(share * best))
        blocks = collect_blocks(bounds, groups, low, high, shift, n_blocks)
        if share < ROUNDS[0] and n_scored + docs_per_block * len(blocks) > budget:
            return n, floor, -1
        for j in range(len(blocks)):
            b = blocks[j]
            if j + 2 * AHEAD < len(blocks):
                prefetch(arrays.forward_indptr, blocks[j + 2 * AHEAD] * BLOCK)
            if j + AHEAD < len(blocks):
                prefetch_block(arrays, blocks[j + AHEAD], n_docs)
            if alpha * np.float64(bounds[b]) <= threshold:
                continue
            if n_scored > budget:
                return n, floor, -1
            for d in range(b * BLOCK, min((b + 1) * BLOCK, n_docs)):
                if len(allowed) > 0 and not allowed[d]:
                    continue
                n_scored += 1
                score = score_document(arrays, d, table)
                if score > threshold:
                    key = key_of(score, base + d)
                    if key > floor:
                        n, floor = push(keys, n, k, key, floor)
                        threshold = max(threshold, (floor >> 32) - 1)
        if low <= np.int64(threshold / alpha):
            break
        high = low
    return n, floor, n_scored


@kernel
def group_maxima(bounds: Accumulator, groups: Accumulator) -> None:
    """Fill ``groups[g]`` with the largest of ``bounds[32 g : 32 g + 32]``."""
    for g in range(len(groups)):
        groups[g] = largest(bounds[g * GROUP : (g + 1) * GROUP])
