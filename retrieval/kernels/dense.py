"""Searching dense vectors: scans of lists, over kept rows and over codes, and walks along a graph.

Each keeps the k best keys (score, doc_num) of all segments in one buffer; see `topk`. ``state`` (2,) int64 holds how many keys
there are, and the floor that they exceed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...index.arrays import Floats, Int32s, Int64s, Mask
from ...index.kernels import sum_kernel
from ...index.kernels.checksums import HasChecked, position, verify_span
from ...index.kernels.dense import Rows, key_of, product, score_of, to_float
from ...index.kernels.graphs import Links, descend, number_of, walk
from ...index.kernels.sorting import sort
from . import kernel
from .prefetch import LINE_BYTES, prefetch_far
from .topk import cut, push

NO_FLOOR = np.iinfo(np.int64).min
AHEAD_BYTES = 1 << 13
"""How far ahead of a scan rows are prefetched: the processor alone stops at the end of each page and list."""


@sum_kernel
def inner_products(rows: Floats, query: Floats, out: Floats) -> None:
    """Write the inner product of each row (n, dim) with the query (dim,) to ``out`` (n,)."""
    for i in range(len(rows)):
        total = out[i] * 0
        for j in range(len(query)):
            total += rows[i, j] * query[j]
        out[i] = total


@sum_kernel
def fill_table(codebooks: Floats, query: Floats, table: Floats) -> None:
    """Write the products of a query, (m * width,), with the entries of codebooks (m, width, 256) to ``table`` (m * 256,)."""
    n_parts, width, n_levels = codebooks.shape
    for part in range(n_parts):
        row = table[part * n_levels : (part + 1) * n_levels]
        row[:] = 0
        for j in range(width):
            number = query[part * width + j]
            for level in range(n_levels):
                row[level] += codebooks[part, j, level] * number


@sum_kernel
def coarse_products(centroids: Rows, query: Floats, out: Floats) -> None:
    """Write the products of all centroids (n_lists, coarse_dim) with a query's first numbers to ``out`` (n_lists,)."""
    last = len(centroids) - 1
    for i in range(0, len(centroids), 2):  # two at once read the query once: a third faster
        one, other, beside = np.float32(0), np.float32(0), min(i + 1, last)
        for j in range(centroids.shape[1]):
            one += to_float(centroids[i, j]) * query[j]
            other += to_float(centroids[beside, j]) * query[j]
        out[i], out[beside] = one, other


@sum_kernel
def choose_lists(
    coarse: Rows, centroids: Floats, spreads: Floats, query: Floats, share: Any, products: Floats, keys: Int64s, lists: Int64s,
    biases: Floats,
) -> None:  # fmt: skip
    """Choose the lists where the best documents are likely, best first: by products with centroids, and how far lists spread.

    Parameters
    ----------
    coarse : (n_lists, coarse_dim) uint16 or float32
        The centroids, rounded, to choose by.
    centroids : (n_lists, coarse_dim) float32
    spreads : (n_lists,) float32
    query : (dim,) float32
        Its first numbers are compared with centroids.
    share : float32
        How many spreads along the query the best document of a list is beyond the centroid.
    products : (n_lists,) float32
        Scratch.
    keys : `topk.new_keys` of n_probe
    lists, biases : (n_probe,) int64 and float32
        Written: the lists, and their centroids' products.
    """
    coarse_products(coarse, query, products)
    squares, n_probe = np.float32(0), len(lists)
    n: Any = 0
    floor: Any = np.int64(NO_FLOOR)
    for number in query:
        squares += number * number
    reach, near = share * np.sqrt(squares), query[: centroids.shape[1]]
    for i in range(len(centroids)):
        key = key_of(products[i] + reach * spreads[i], i)
        if key > floor:
            n, floor = push(keys, n, n_probe, key, floor)
    cut(keys, n, n_probe)
    sort(keys[:n_probe])
    for i in range(n_probe):
        lists[i] = number_of(keys[n_probe - 1 - i])
        biases[i] = product(centroids, lists[i], near)


@kernel
def best_numbers(keys: Int64s, n_keys: Any, n: Any, m: Any, out: Int32s) -> Any:
    """Write the documents of the n best keys to ``out``, ascending, each once; a document has m vectors, which keys number.

    Returns
    -------
    n_found : int
    lowest : float32
        The least score of the n keys; minus infinity where there are none.
    """
    n_left = min(n, n_keys)
    if n_left == 0:
        return 0, np.float32(-np.inf)
    lowest = cut(keys, n_keys, n_left)
    for i in range(n_left):
        out[i] = number_of(keys[i]) // m
    sort(out[:n_left])
    n_found = 1
    for i in range(1, n_left):
        if out[i] != out[n_found - 1]:
            out[n_found] = out[i]
            n_found += 1
    return n_found, score_of(lowest)


@kernel
def rank(doc_nums: Int32s, scores: Floats, keys: Int64s, best: Int32s, best_scores: Floats) -> None:
    """Write the best documents and their scores: score descending, then doc_num ascending; ``keys`` (n,) is scratch."""
    n, k = len(doc_nums), len(best)
    for i in range(n):
        keys[i] = key_of(scores[i], doc_nums[i])
    if k < n:
        cut(keys, n, k)
    sort(keys[:k])
    for i in range(k):
        best[i], best_scores[i] = number_of(keys[k - 1 - i]), score_of(keys[k - 1 - i])


@kernel
def least(state: Int64s) -> Any:
    """Return the score below which nothing is kept any more."""
    return np.float32(-np.inf) if state[1] == NO_FLOOR else score_of(state[1])


@kernel
def keep(score: Any, doc_num: Any, keys: Int64s, k: Any, state: Int64s) -> None:
    """Keep a document, if it is among the k best so far."""
    key = key_of(score, doc_num)
    if key > state[1]:
        state[0], state[1] = push(keys, state[0], k, key, state[1])


@kernel
def prefetch_row(rows: Rows, first: Any, line: Any) -> None:
    """Prefetch as many numbers as a row has, from number ``first`` of all rows; ``line`` numbers are a cache line."""
    for place in range(first, first + rows.shape[1], line):
        prefetch_far(rows, place)


@sum_kernel
def scan_rows(
    checked: HasChecked, rows: Rows, query: Floats, starts: Int64s, lists: Int64s, documents: Int32s, allowed: Mask, base: Any,
    keys: Int64s, k: Any, state: Int64s,
) -> None:  # fmt: skip
    """Multiply the rows of some lists with a query.

    Parameters
    ----------
    starts : (n_lists + 1,) int64
        List l has the rows ``starts[l]:starts[l + 1]``.
    lists : (n,) int64
    documents : (n_docs,) int32
        Document of each row; (0,): the row's number.
    allowed : (n_docs,) bool
        By document; (0,): all.
    base : int
        doc_num of the first document.
    """
    first, row_bytes, lowest = position(checked, rows), rows.shape[1] * rows.itemsize, least(state)
    width, ahead, line = rows.shape[1], AHEAD_BYTES // rows.itemsize, LINE_BYTES // rows.itemsize
    for i in range(len(lists)):
        begin, end = starts[lists[i]], starts[lists[i] + 1]
        following = starts[lists[i + 1]] if i + 1 < len(lists) else end
        if begin < end:
            verify_span(checked, first + begin * row_bytes, first + end * row_bytes)
        for row in range(begin, end):
            document = np.int64(documents[row]) if len(documents) else row
            if len(allowed) and not allowed[document]:
                continue
            if rows.itemsize < 4:  # wider rows come no faster than memory gives them
                soon = row * width + ahead  # where the list ends, the next one follows
                if soon >= end * width:
                    soon += (following - end) * width
                prefetch_row(rows, soon, line)
            score = product(rows, row, query)
            if score >= lowest:
                keep(score, base + document, keys, k, state)
                lowest = least(state)


@kernel
def scan_codes(
    checked: HasChecked, codes: npt.NDArray[np.uint8], table: Floats, biases: Floats, starts: Int64s, lists: Int64s,
    documents: Int32s, allowed: Mask, base: Any, keys: Int64s, k: Any, state: Int64s,
) -> None:  # fmt: skip
    """Add up a query's table over the codes of some lists; parameters are those of `scan_rows`.

    Sums in order: LLVM would gather the table's entries into vectors, which takes a third longer.

    Parameters
    ----------
    table : (m * 256,) float32
    biases : (n,) float32
        Of each of ``lists``: the product of its centroid with the query.
    """
    first, row_bytes, lowest = position(checked, codes), codes.shape[1], least(state)
    for i in range(len(lists)):
        begin, end = starts[lists[i]], starts[lists[i] + 1]
        if begin < end:
            verify_span(checked, first + begin * row_bytes, first + end * row_bytes)
        for row in range(begin, end):
            document = np.int64(documents[row]) if len(documents) else row
            if len(allowed) and not allowed[document]:
                continue
            score = biases[i]
            for part in range(codes.shape[1]):
                score += table[np.intp(part * 256) + np.intp(codes[row, part])]
            if score >= lowest:
                keep(score, base + document, keys, k, state)
                lowest = least(state)


@kernel
def search_graph(
    checked: HasChecked, rows: Rows, query: Floats, links: Links, entry: Any, allowed: Mask, base: Any,
    visited: npt.NDArray[np.uint32], stamp: Any, frontier: Int64s, found: Int64s, wanted: Any, keys: Int64s, k: Any,
    state: Int64s,
) -> bool:  # fmt: skip
    """Walk along a graph, see `graphs.walk`; keep no document, and return False, when fewer than ``wanted`` are found."""
    extra, extras = np.float32(0), np.empty(0, np.float32)
    at = descend(checked, rows, query, extra, extras, links, np.int64(links.levels[entry]), 0, entry)
    n_found = walk(checked, rows, query, extra, extras, links, 0, at, allowed, visited, stamp, frontier, found)
    if n_found < wanted:
        return False
    for i in range(n_found):
        keep(score_of(found[i]), base + number_of(found[i]), keys, k, state)
    return True
