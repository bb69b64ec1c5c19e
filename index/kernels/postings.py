"""Build the inverted part: transpose document rows into posting lists cut at windows, and take their maxima.

Documents are cut into windows of ``window`` documents (a multiple of 8, at most 65,536) and blocks of 8. A posting is a slot
(document number inside its window) and an impact. A *run* is the part of a posting list that lies in one window.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import kernel, kernel_or
from .checksums import is_unread, verify_span
from .handles import array_at
from .rows import rank_bytes, read_rank

BLOCK = 8
"""Documents of a block; the best size measured for Block-Max Pruning on learned-sparse vectors."""
KTH = np.array([1, 10, 100, 1000])
"""Ranks whose impact is kept for each term, to seed thresholds."""

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]


class PostingArrays(NamedTuple):
    """What query kernels read of a segment; `index.inverted` draws the picture, and `opened` knows order and types.

    All are read-only but ``states``; the last three are those of `checksums.Checked`, for what is verified as it is read:
    slots, impacts, dense, forward and columns. ``origins`` (5,) are the bytes of the content that these five begin at.
    """

    starts: I64
    slots: U16
    impacts: U8
    run_starts: I64
    run_windows: U16
    run_offsets: U32
    kth: U8
    dense_rows: I32
    dense: U8
    column_of: I32
    columns: U8
    forward_indptr: I64
    forward: U8
    origins: I64
    content: U8
    checksums: U32
    states: U8


U8_AT, U16_AT, I32_AT, U32_AT, I64_AT = (array_at(kind) for kind in ("uint8", "uint16", "int32", "uint32", "int64"))
U8_ROWS_AT, STATES_AT = array_at("uint8", 2), array_at("uint8", writable=True)


def _opened_plain(packed: Any) -> PostingArrays:
    """Do what `opened` does with the arrays themselves."""
    return PostingArrays(*packed)


@kernel_or(_opened_plain)
def opened(packed: Any) -> PostingArrays:
    """Return the arrays of a segment from `inverted.InvertedIndex.packed`."""
    return PostingArrays(
        I64_AT(packed, 0), U16_AT(packed, 1), U8_AT(packed, 2), I64_AT(packed, 3), U16_AT(packed, 4), U32_AT(packed, 5),
        U8_ROWS_AT(packed, 6), I32_AT(packed, 7), U8_ROWS_AT(packed, 8), I32_AT(packed, 9), U8_ROWS_AT(packed, 10),
        I64_AT(packed, 11), U8_AT(packed, 12), I64_AT(packed, 13), U8_AT(packed, 14), U32_AT(packed, 15), STATES_AT(packed, 16),
    )  # fmt: skip


@kernel
def count_postings(indptr: I64, ranks: U32, n_terms: int, window: int) -> tuple[I64, I64]:
    """Return where each term's postings and runs start: two (n_terms + 1,) arrays. ``ranks < n_terms``."""
    starts, run_starts = np.zeros(n_terms + 1, np.int64), np.zeros(n_terms + 1, np.int64)
    last = np.zeros(n_terms, np.int64)  # the window after that of a term's last posting
    for d in range(len(indptr) - 1):
        w = d // window
        for p in range(indptr[d], indptr[d + 1]):
            t = ranks[p]
            starts[t + 1] += 1
            if last[t] != w + 1:
                last[t] = w + 1
                run_starts[t + 1] += 1
    for t in range(n_terms):
        starts[t + 1] += starts[t]
        run_starts[t + 1] += run_starts[t]
    return starts, run_starts


@kernel
def transpose(indptr: I64, ranks: U32, impacts: U8, starts: I64, run_starts: I64, window: int) -> tuple[U16, U8, U16, U32]:
    """Fill posting lists in document order: slots and impacts of postings, windows and offsets of runs.

    A run's offset is the position of its first posting, counted from the start of its term.
    """
    n_terms = len(starts) - 1
    slots, posting_impacts = np.empty(starts[n_terms], np.uint16), np.empty(starts[n_terms], np.uint8)
    run_windows, run_offsets = (
        np.empty(run_starts[n_terms], np.uint16),
        np.empty(run_starts[n_terms], np.uint32),
    )
    cursor, run_cursor = starts[:-1].copy(), run_starts[:-1].copy()
    last = np.zeros(n_terms, np.int64)  # the window after that of a term's last posting
    for d in range(len(indptr) - 1):
        w = d // window
        for p in range(indptr[d], indptr[d + 1]):
            t = ranks[p]
            c = cursor[t]
            if last[t] != w + 1:
                last[t] = w + 1
                run_windows[run_cursor[t]] = w
                run_offsets[run_cursor[t]] = c - starts[t]
                run_cursor[t] += 1
            slots[c] = d - w * window
            posting_impacts[c] = impacts[p]
            cursor[t] = c + 1
    return slots, posting_impacts, run_windows, run_offsets


@kernel
def kth_impacts(starts: I64, impacts: U8, ranks: I64) -> U8:
    """(n_terms, len(ranks)) the ranks[j]-th largest impact of each term, 0 where it has fewer postings."""
    n_terms = len(starts) - 1
    result = np.zeros((n_terms, len(ranks)), np.uint8)
    histogram = np.zeros(256, np.int64)
    for t in range(n_terms):
        histogram[:] = 0
        for p in range(starts[t], starts[t + 1]):
            histogram[impacts[p]] += 1
        count, j = 0, 0
        for impact in range(255, 0, -1):
            count += histogram[impact]
            while j < len(ranks) and count >= ranks[j]:
                result[t, j] = impact
                j += 1
    return result


@kernel
def run_span(starts: I64, run_starts: I64, run_offsets: U32, t: Any, r: Any) -> tuple[Any, Any]:
    """First posting of run ``r`` of term ``t``, and the one after its last."""
    last = r + 1 == run_starts[t + 1]
    return starts[t] + run_offsets[r], starts[t + 1] if last else starts[t] + run_offsets[r + 1]


@kernel
def step_of(top: int | np.int64) -> int | np.int64:
    """Unit of a term's 4-bit block maxima: its largest impact is at most 15 steps."""
    return (top + 14) // 15


@kernel
def look_up(terms: I32, kth: U8, wanted: I32, ranks: I64, reaches: I64) -> None:
    """Fill ``ranks`` with each wanted term's rank, -1 without postings, and raise ``reaches`` to its reach.

    The *reach* of a term, 15 steps, is the largest value that its impacts or 4-bit block maxima can have; it depends on the
    largest impact alone, so it is the same however the documents are cut into segments. ``terms`` ascends, and so does
    ``wanted``: each search starts where the last one ended.
    """
    low = 0
    for i in range(len(wanted)):
        high = len(terms)
        while low < high:
            middle = (low + high) >> 1
            if terms[middle] < wanted[i]:
                low = middle + 1
            else:
                high = middle
        ranks[i] = -1
        if low < len(terms) and terms[low] == wanted[i]:
            ranks[i] = low
            reaches[i] = max(reaches[i], 15 * step_of(np.int64(kth[low, 0])))


@kernel
def block_maxima(
    terms: I64, starts: I64, slots: U16, impacts: U8, run_starts: I64, run_windows: U16, run_offsets: U32, kth: U8,
    window: int, n_blocks: int,
) -> U8:  # fmt: skip
    """(len(terms), n_blocks / 2) largest impact of each listed term in each block of 8 documents, in steps, rounded up.

    In each window the first half of the blocks is in the low nibbles, the second half in the high ones, so that both
    unpack with vector instructions.
    """
    maxima = np.zeros((len(terms), n_blocks // 2), np.uint8)
    half = window // BLOCK // 2
    for i in range(len(terms)):
        t = terms[i]
        step = step_of(np.int64(kth[t, 0]))
        for r in range(run_starts[t], run_starts[t + 1]):
            first, end = run_span(starts, run_starts, run_offsets, t, r)
            base = run_windows[r] * half
            for p in range(first, end):
                block = slots[p] // BLOCK
                code = (np.int64(impacts[p]) + step - 1) // step
                if block < half:
                    byte = maxima[i, base + block]
                    maxima[i, base + block] = (byte & 0xF0) | max(np.int64(byte & 0x0F), code)
                else:
                    byte = maxima[i, base + block - half]
                    maxima[i, base + block - half] = (byte & 0x0F) | (max(np.int64(byte >> 4), code) << 4)
    return maxima


@kernel
def fill_columns(terms: I64, starts: I64, slots: U16, impacts: U8, run_starts: I64, run_windows: U16, run_offsets: U32,
                 window: int, width: int) -> U8:  # fmt: skip
    """(len(terms), width) impact of each listed term in each document, 0 where it has none: what postings say, spread out."""
    columns = np.zeros((len(terms), width), np.uint8)
    for i in range(len(terms)):
        t = terms[i]
        for r in range(run_starts[t], run_starts[t + 1]):
            first, end = run_span(starts, run_starts, run_offsets, t, r)
            base = np.int64(run_windows[r]) * window
            for p in range(first, end):
                columns[i, base + slots[p]] = impacts[p]
    return columns


@kernel
def verify_postings(arrays: PostingArrays, ranks: I64) -> None:
    """Verify the postings of some terms before they are read."""
    starts, states, slots_at, impacts_at = arrays.starts, arrays.states, arrays.origins[0], arrays.origins[1]
    for i in range(len(ranks)):
        first, end = starts[ranks[i]], starts[ranks[i] + 1]
        if is_unread(states, slots_at + 2 * first, slots_at + 2 * end):
            verify_span(arrays, slots_at + 2 * first, slots_at + 2 * end)
        if is_unread(states, impacts_at + first, impacts_at + end):
            verify_span(arrays, impacts_at + first, impacts_at + end)


@kernel
def verify_maxima(arrays: PostingArrays, ranks: I64) -> None:
    """Verify the block maxima of some terms, of those that have any."""
    dense_rows, width, states, at = arrays.dense_rows, arrays.dense.shape[1], arrays.states, arrays.origins[2]
    for i in range(len(ranks)):
        row = np.int64(dense_rows[ranks[i]])
        if row >= 0 and is_unread(states, at + width * row, at + width * (row + 1)):
            verify_span(arrays, at + width * row, at + width * (row + 1))


@kernel
def verify_columns(arrays: PostingArrays, ranks: I64) -> None:
    """Verify the columns of some terms, which all have one."""
    column_of, width, states, at = arrays.column_of, arrays.columns.shape[1], arrays.states, arrays.origins[4]
    for i in range(len(ranks)):
        first = at + width * np.int64(column_of[ranks[i]])
        if is_unread(states, first, first + width):
            verify_span(arrays, first, first + width)


@kernel
def unpack_documents(packed: Any, documents: I32) -> tuple[I64, U32, U8]:
    """Rows of some documents, verified: offsets (n + 1,), ranks and impacts (n_entries,)."""
    arrays = opened(packed)
    verify_rows(arrays, 0, documents, 1)
    indptr = np.zeros(len(documents) + 1, np.int64)
    for i in range(len(documents)):
        d = np.int64(documents[i])
        indptr[i + 1] = indptr[i] + arrays.forward_indptr[d + 1] - arrays.forward_indptr[d]
    width, rows = rank_bytes(len(arrays.starts) - 1), arrays.forward
    ranks, impacts = np.empty(indptr[-1], np.uint32), np.empty(indptr[-1], np.uint8)
    for i in range(len(documents)):
        n, start = indptr[i + 1] - indptr[i], (width + 1) * arrays.forward_indptr[np.int64(documents[i])]
        for j in range(n):
            ranks[indptr[i] + j] = read_rank(rows, start + width * j, width)
            impacts[indptr[i] + j] = rows[start + width * n + j]
    return indptr, ranks, impacts


@kernel
def verify_rows(arrays: PostingArrays, base: Any, groups: npt.NDArray[Any], size: Any) -> None:
    """Verify the rows of groups of documents: ``size`` documents from ``base + size * group`` on.

    A loop of its own, since what it calls in rare cases takes all arrays: in a loop that scores that made each document slower.
    """
    indptr, states = arrays.forward_indptr, arrays.states
    width, at, n_docs = rank_bytes(len(arrays.starts) - 1) + 1, arrays.origins[3], len(arrays.forward_indptr) - 1
    for i in range(len(groups)):
        d = base + size * np.int64(groups[i])
        first, end = at + width * indptr[d], at + width * indptr[min(d + size, n_docs)]
        if is_unread(states, first, end):
            verify_span(arrays, first, end)
