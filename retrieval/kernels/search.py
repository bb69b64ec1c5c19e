"""One query over some windows of a segment: by the scan, or by block-max, which gives up when it turns out expensive.

`scan_windows` is called first: it chooses, and answers where the scan is chosen. `search_windows` is block-max, which takes
longer to compile and to load: it is called when the first says that it is needed, and when it gives up, the scan answers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...index.kernels.postings import BLOCK, I32, I64, look_up, opened, verify_maxima, verify_postings
from ...index.kernels.sorting import sort
from . import Integer, kernel
from .accumulation import NS_CELL, NS_POSTING
from .blockmax import search_blocks
from .bounds import bound_blocks, drop_blocks
from .query import Floats, seed, weigh, write
from .scan import scan_segment
from .scores import Accumulator, Allowed, known_terms
from .topk import Keys, buffer_size, cut, raise_threshold

AUTO, BLOCKMAX, SCAN = 0, 1, 2
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
def scan_cost(packed: Any, n_docs: Integer, terms: I64) -> float:
    """Nanoseconds that a scan of the whole segment takes, about: its postings and columns; terms of rank -1 take none."""
    arrays, cost = opened(packed), 0.0
    for i in range(len(terms)):
        t = terms[i]
        if t >= 0:
            cost += NS_CELL * n_docs if arrays.column_of[t] >= 0 else NS_POSTING * (arrays.starts[t + 1] - arrays.starts[t])
    return cost


@kernel
def choose(
    packed: Any, window: Integer, first_window: Integer, last_window: Integer, n_docs: Integer, terms: I64,
    counts: I64, k: Integer,
) -> tuple[Integer, Integer]:  # fmt: skip
    """Choose SCAN or BLOCKMAX; how many documents block-max may score before the scan takes over."""
    arrays = opened(packed)
    first, end = np.int64(first_window) * window, min(np.int64(n_docs), np.int64(last_window) * window)
    part = (end - first) / n_docs
    n_blocks = part * 2 * arrays.dense.shape[1]
    bound_ns = 0.0
    for i in range(len(terms)):
        if arrays.dense_rows[terms[i]] < 0:
            bound_ns += NS_RARE_BOUND * part * (arrays.starts[terms[i] + 1] - arrays.starts[terms[i]])
        else:
            bound_ns += NS_DENSE_BOUND * n_blocks
    scan_ns: float | np.float64 = part * scan_cost(packed, n_docs, terms)
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
    return algorithm, np.int64(SHARE * scan_ns / block_ns * BLOCK)


@kernel
def scan_windows(
    packed: Any, window: Integer, first_window: Integer, last_window: Integer, n_docs: Integer, base: Integer,
    ranks: I64, integers: I64, allowed: Allowed, counts: I64, keys: Keys, n: Integer, k: Integer, floor: Integer,
    shared_threshold: I64, needed: Integer, algorithm: Integer, narrow: Accumulator, wide: Accumulator,
) -> tuple[Integer, Integer, bool]:  # fmt: skip
    """Push every document of some windows of a segment that can be among the k best, if the scan is asked for or chosen.

    Parameters
    ----------
    packed : InvertedIndex.packed
        The segment's `PostingArrays`.
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
    needed : int
        How many documents of the segment must exceed a score for it to be a threshold: k and the deleted ones; 0: unknown.
    algorithm : AUTO, BLOCKMAX or SCAN
    narrow, wide : scratch
        (65,536,) uint16 and uint32.

    Returns
    -------
    (n, floor, done), done: False where nothing was done, since block-max is asked for or looks cheaper
    """
    arrays = opened(packed)
    terms, weights = known_terms(ranks, integers)
    if len(terms) == 0:
        return n, floor, True
    if needed > 0:
        raise_threshold(shared_threshold, seed(arrays.kth, terms, weights, needed))
    if algorithm == AUTO:
        algorithm, _ = choose(packed, window, first_window, last_window, n_docs, terms, counts, k)
    if algorithm == BLOCKMAX:
        return n, floor, False
    n, floor = scan_segment(
        arrays, window, first_window, last_window, n_docs, base, terms, weights, narrow, wide, allowed, counts,
        keys, n, k, floor, shared_threshold,
    )  # fmt: skip
    return n, floor, True


@kernel
def scan_all(
    packed: Any, window: Integer, n_docs: Integer, base: Integer, ranks: I64, integers: I64, allowed: Allowed, counts: I64,
    k: Integer, needed: Integer, algorithm: Integer, narrow: Accumulator, wide: Accumulator,
) -> tuple[Keys, bool]:  # fmt: skip
    """Do it for all windows and with nothing found before: keys of the k best among others, in no order, and ``done``."""
    keys, n_windows, zero = np.empty(buffer_size(k), np.int64), (n_docs + window - 1) // window, np.int64(0)
    n, _, done = scan_windows(
        packed, window, 0, n_windows, n_docs, base, ranks, integers, allowed, counts, keys, zero, k, zero,
        np.zeros(1, np.int64), needed, algorithm, narrow, wide,
    )  # fmt: skip
    return keys[:n], done


@kernel
def search_alone(
    packed: Any, terms: I32, window: Integer, n_docs: Integer, base: Integer, wanted: I32, weights: Floats,
    allowed: Allowed, counts: I64, k: Integer, needed: Integer, algorithm: Integer, narrow: Accumulator, wide: Accumulator,
) -> tuple[Keys, float | np.float64, bool]:  # fmt: skip
    """Look up, weigh and answer a query of a field with one segment, in one call: calls are half of what a small search costs.

    Parameters
    ----------
    terms : (T,) int32
        The segment's term numbers.
    wanted, weights : (n_terms,)
        The query: ascending term numbers and their weights.
    packed, window, n_docs, base, allowed, counts, k, needed, algorithm, narrow, wide
        As `scan_windows` has them.

    Returns
    -------
    (keys, scale, done)
        Keys of the k best among others, in no order; integer weight / weight; False where the scan is not chosen.
    """
    arrays = opened(packed)
    ranks, reaches, integers = np.empty(len(wanted), np.int64), np.zeros(len(wanted), np.int64), np.empty(len(wanted), np.int64)
    look_up(terms, arrays.kth, wanted, ranks, reaches)
    scale, _ = weigh(weights, reaches, integers)
    keys, done = scan_all(
        packed, window, n_docs, base, ranks, integers, allowed, counts, k, needed, algorithm, narrow, wide
    )  # fmt: skip
    return keys, scale, done


@kernel
def search_several(
    packed: Any, terms: I32, window: Integer, n_docs: Integer, base: Integer, indptr: I64, wanted: I32, weights: Floats,
    allowed: Allowed, counts: I64, k: Integer, needed: Integer, algorithm: Integer, narrow: Accumulator, wide: Accumulator,
    first: Integer, scale: float, sizes: I64, doc_nums: I32, scores: Floats,
) -> None:  # fmt: skip
    """Do the same for queries ``first`` to ``first + len(sizes)`` of a batch, without coming back to Python between them.

    Parameters
    ----------
    indptr, wanted, weights
        CSR of the batch.
    scale : float
        The field's: impact / weight.
    sizes : (n,), doc_nums, scores : (n, k)
        What was found; sizes of -1 where the scan is not chosen.
    """
    for i in range(len(sizes)):
        begin, end = indptr[first + i], indptr[first + i + 1]
        keys, query_scale, done = search_alone(
            packed, terms, window, n_docs, base, wanted[begin:end], weights[begin:end], allowed, counts, k, needed, algorithm,
            narrow, wide,
        )  # fmt: skip
        sizes[i] = -1
        if done:
            if len(keys) > k:
                cut(keys, len(keys), k)
                keys = keys[:k]
            sort(keys)
            sizes[i] = len(keys)
            write(keys, query_scale * scale, doc_nums[i], scores[i])


@kernel
def search_weighed(
    packed: Any, terms: I32, window: Integer, n_docs: Integer, wanted: I32, integers: I64, k: Integer, narrow: Accumulator,
    wide: Accumulator,
) -> Keys:  # fmt: skip
    """Scan all of an index for a query whose weights are integers already; parameters as `search_alone` has them.

    Returns
    -------
    Keys of the k best among others, in no order; for doc_num their positions.
    """
    ranks = np.empty(len(wanted), np.int64)
    look_up(terms, opened(packed).kth, wanted, ranks, np.zeros(len(wanted), np.int64))
    keys, _ = scan_all(
        packed, window, n_docs, np.int64(0), ranks, integers, np.empty(0, np.bool_), np.empty(0, np.int64), k, k, SCAN,
        narrow, wide,
    )  # fmt: skip
    return keys


@kernel
def search_windows(
    packed: Any, window: Integer, first_window: Integer, last_window: Integer, n_docs: Integer, base: Integer,
    ranks: I64, integers: I64, allowed: Allowed, counts: I64, keys: Keys, n: Integer, k: Integer, floor: Integer,
    shared_threshold: I64, alpha: float, algorithm: Integer, bounds: Accumulator,
) -> tuple[Integer, Integer, bool]:  # fmt: skip
    """Do the same by block-max.

    Parameters
    ----------
    packed, window, first_window, last_window, n_docs, base, ranks, integers, allowed, counts, keys, n, k, floor
        As `scan_windows` has them, and so ``shared_threshold``.
    alpha : float
        1: exact; see `blockmax`.
    algorithm : AUTO or BLOCKMAX
        AUTO: give up where it turns out slower than the scan would be.
    bounds : scratch
        (blocks of the windows + 8,192,) uint16 or uint32, wide enough for the largest score.

    Returns
    -------
    (n, floor, done), done: False where it gave up; keys are then as they were, and the threshold is raised
    """
    arrays = opened(packed)
    terms, integers = known_terms(ranks, integers)
    weights = integers.astype(bounds.dtype)
    budget: Integer = np.int64(1) << 40
    if algorithm == AUTO:
        _, budget = choose(packed, window, first_window, last_window, n_docs, terms, counts, k)
    first, end = np.int64(first_window) * window, min(np.int64(n_docs), np.int64(last_window) * window)
    here = allowed[first:end]
    verify_postings(arrays, terms)
    verify_maxima(arrays, terms)
    bound_blocks(arrays, window, first_window, last_window, terms, weights, bounds)
    docs_per_block = 1.0 * BLOCK
    if len(allowed) > 0:
        docs_per_block = max(1.0, BLOCK * drop_blocks(bounds, here) / (end - first))
    before, n_before = np.empty(n, np.int64), n
    for i in range(n):
        before[i] = keys[i]
    n, reached, n_scored = search_blocks(
        arrays, first, end - first, base, terms, weights, bounds, here, keys, n, k, floor, shared_threshold, alpha,
        budget, docs_per_block,
    )  # fmt: skip
    if n_scored >= 0:
        return n, reached, True
    raise_threshold(shared_threshold, (reached >> 32) - 1)
    for i in range(n_before):
        keys[i] = before[i]
    return n_before, floor, False
