"""Navigable small world graphs over rows of dense vectors: walking along links, and building.

Documents and their scores are packed as keys (`dense.key_of`); a min-heap of keys holds the best found so far, worst first, and
one of inverted keys those that are still to be visited, best first.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..arrays import Floats, Int32s, Int64s, Mask
from . import kernel
from .checksums import HasChecked, position
from .dense import Rows, key_of, product, read_row, score_of, verify_row
from .sorting import sort


class Links(NamedTuple):
    """A graph, see `dense.graph`; ``starts`` (n + 1,) int64 is where a document's links on upper levels begin."""

    levels: npt.NDArray[np.uint8]
    starts: Int64s
    lowest: Int32s
    upper: Int32s


@kernel
def push_key(heap: Int64s, n: Any, key: Any) -> None:
    """Add a key to a min-heap of n keys that has room."""
    i = n
    while i > 0:
        parent = (i - 1) >> 1
        if heap[parent] <= key:
            break
        heap[i] = heap[parent]
        i = parent
    heap[i] = key


@kernel
def replace_key(heap: Int64s, n: Any, key: Any) -> None:
    """Put a key in the place of the smallest of a min-heap of n keys."""
    i = 0
    while True:
        child = 2 * i + 1
        if child >= n:
            break
        if child + 1 < n and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[i] = heap[child]
        i = child
    heap[i] = key


@kernel
def number_of(key: Any) -> Any:
    """Return the document of a key."""
    return np.int64(0xFFFFFFFF) - (key & np.int64(0xFFFFFFFF))


@kernel
def similarity(checked: HasChecked, rows: Rows, row: Any, query: Floats, extra: Any, extras: Floats) -> Any:
    """Return the product of a row with a query; where there are more coordinates, of these too."""
    row_bytes = rows.shape[1] * rows.itemsize
    verify_row(checked, position(checked, rows), row_bytes, row)
    found = product(rows, row, query)
    return found + extra * extras[row] if len(extras) else found


@kernel
def neighbours(links: Links, document: Any, level: Any) -> Any:
    """Return the links of a document on a level, ended by -1."""
    if level == 0:
        return links.lowest[document]
    return links.upper[links.starts[document] + level - 1]


@kernel
def walk(
    checked: HasChecked, rows: Rows, query: Floats, extra: Any, extras: Floats, links: Links, level: Any, entry: Any,
    allowed: Mask, visited: npt.NDArray[np.uint32], stamp: Any, frontier: Int64s, found: Int64s,
) -> Any:  # fmt: skip
    """Search a level greedily from an entry.

    Parameters
    ----------
    allowed : (n,) bool or (0,)
        Documents that may be found; others are passed through.
    visited : (n,) uint32, stamp
        Documents of this walk are stamped.
    frontier : (n,) int64
        Scratch.
    found : (ef,) int64
        Keys of the best, a min-heap.

    Returns
    -------
    n_found
    """
    n_found, n_frontier, ef = 0, 1, len(found)
    score = similarity(checked, rows, entry, query, extra, extras)
    visited[entry] = stamp
    frontier[0] = ~key_of(score, entry)
    if len(allowed) == 0 or allowed[entry]:
        found[0] = key_of(score, entry)
        n_found = 1
    while n_frontier > 0:
        nearest = ~frontier[0]
        if n_found == ef and nearest < found[0]:
            break
        n_frontier -= 1
        replace_key(frontier, n_frontier, frontier[n_frontier])
        for document in neighbours(links, number_of(nearest), level):
            if document < 0:
                break
            if visited[document] == stamp:
                continue
            visited[document] = stamp
            key = key_of(similarity(checked, rows, document, query, extra, extras), document)
            if n_found == ef and key < found[0]:
                continue
            push_key(frontier, n_frontier, ~key)
            n_frontier += 1
            if len(allowed) == 0 or allowed[document]:
                if n_found < ef:
                    push_key(found, n_found, key)
                    n_found += 1
                else:
                    replace_key(found, ef, key)
    return n_found


@kernel
def descend(
    checked: HasChecked, rows: Rows, query: Floats, extra: Any, extras: Floats, links: Links, top: Any, bottom: Any, entry: Any
) -> Any:
    """Go to the nearest neighbour, level by level from ``top`` to above ``bottom``; returns where that ends."""
    best = key_of(similarity(checked, rows, entry, query, extra, extras), entry)
    for level in range(top, bottom, -1):
        at = np.int64(-1)
        while at != number_of(best):
            at = number_of(best)
            for document in neighbours(links, at, level):
                if document < 0:
                    break
                best = max(best, key_of(similarity(checked, rows, document, query, extra, extras), document))
    return number_of(best)


@kernel
def choose(
    checked: HasChecked, rows: Rows, extras: Floats, keys: Int64s, n_keys: Any, out: Int32s, n_out: Any, vector: Floats
) -> None:
    """Write the best of ascending keys to ``out``, at most ``n_out``, -1 behind them.

    A document that is nearer to one that was chosen than to the one that links are for is left out (algorithm 4 of the paper).
    """
    n_chosen = 0
    for i in range(n_keys - 1, -1, -1):
        if n_chosen == n_out:
            break
        document, score = number_of(keys[i]), score_of(keys[i])
        read_row(rows, document, vector)
        extra = extras[document]
        apart = True
        for j in range(n_chosen):
            if similarity(checked, rows, out[j], vector, extra, extras) > score:
                apart = False
                break
        if apart:
            out[n_chosen] = document
            n_chosen += 1
    out[n_chosen:] = -1


@kernel
def link_back(
    checked: HasChecked, rows: Rows, extras: Floats, near: Int32s, document: Any, new: Any, own: Floats, other: Floats
) -> None:
    """Add ``new`` to a document's links ``near``, or choose anew where they are full."""
    n = len(near)
    for i in range(n):
        if near[i] < 0:
            near[i] = new
            return
    keys = np.empty(n + 1, np.int64)
    read_row(rows, document, own)
    for i in range(n + 1):
        each = near[i] if i < n else new
        keys[i] = key_of(similarity(checked, rows, each, own, extras[document], extras), each)
    sort(keys)
    choose(checked, rows, extras, keys, n + 1, near, n, other)


@kernel
def build_graph(
    checked: HasChecked, rows: Rows, dim: Any, extras: Floats, order: Int64s, levels: npt.NDArray[np.uint8], starts: Int64s,
    lowest: Int32s, upper: Int32s, ef: Any,
) -> Any:  # fmt: skip
    """Insert documents in an order; returns the entry. Parameters are those of `dense.graph.write_graph` and `Links`."""
    links = Links(levels, starts, lowest, upper)
    n_links, everything = upper.shape[1], np.empty(0, np.bool_)
    visited, frontier, found = np.zeros(len(rows), np.uint32), np.empty(len(rows) + 1, np.int64), np.empty(ef, np.int64)
    query, own, other = np.empty(dim, np.float32), np.empty(dim, np.float32), np.empty(dim, np.float32)
    entry, top, stamp = order[0], np.int64(levels[order[0]]), np.uint32(0)
    for document in order[1:]:
        read_row(rows, document, query)
        extra, level = extras[document], np.int64(levels[document])
        at = descend(checked, rows, query, extra, extras, links, top, level, entry)
        for each in range(min(level, top), -1, -1):
            stamp += np.uint32(1)
            n_found = walk(
                checked, rows, query, extra, extras, links, each, at, everything, visited, stamp, frontier, found
            )  # fmt: skip
            sort(found[:n_found])
            at = number_of(found[n_found - 1])
            near = neighbours(links, document, each)
            choose(checked, rows, extras, found, n_found, near, n_links, other)
            for i in range(len(near)):
                if near[i] < 0:
                    break
                link_back(checked, rows, extras, neighbours(links, near[i], each), near[i], document, own, other)
        if level > top:
            entry, top = document, level
    return entry
