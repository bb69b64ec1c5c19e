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
from ...index.kernels.dense import Rows, key_of, product, score_of
from ...index.kernels.graphs import Links, descend, number_of, walk
from . import kernel
from .topk import push

NO_FLOOR = np.iinfo(np.int64).min


@sum_kernel
def inner_products(rows: Floats, query: Floats, out: Floats) -> None:
    """Write the inner product of each row (n, dim) with the query (dim,) to ``out`` (n,)."""
    for i in range(len(rows)):
        total = out[i] * 0
        for j in range(len(query)):
            total += rows[i, j] * query[j]
        out[i] = total


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
    for each in lists:
        begin, end = starts[each], starts[each + 1]
        if begin < end:
            verify_span(checked, first + begin * row_bytes, first + end * row_bytes)
        for row in range(begin, end):
            document = np.int64(documents[row]) if len(documents) else row
            if len(allowed) and not allowed[document]:
                continue
            score = product(rows, row, query)
            if score >= lowest:
                keep(score, base + document, keys, k, state)
                lowest = least(state)


@sum_kernel
def scan_codes(
    checked: HasChecked, codes: npt.NDArray[np.uint8], table: Floats, biases: Floats, starts: Int64s, lists: Int64s,
    documents: Int32s, allowed: Mask, base: Any, keys: Int64s, k: Any, state: Int64s,
) -> None:  # fmt: skip
    """Add up a query's table over the codes of some lists; parameters are those of `scan_rows`.

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
