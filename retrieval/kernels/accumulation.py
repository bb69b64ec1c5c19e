"""Scores of a window of documents, term by term: postings are scattered, columns are added.

A posting costs several times as much as a document of a column, so of a frequent term, in more than an eighth of the documents,
the column is added; most postings of a query are those of such terms.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...index.kernels import kernel_or
from ...index.kernels.postings import I64, U8, PostingArrays, run_span
from . import Integer, kernel
from .prefetch import LINE_BYTES, prefetch
from .scores import Accumulator, Ranks, largest

NS_POSTING, NS_CELL = 0.7, 0.045
"""What adding a posting costs, and a document of a column. They steer, and never change an answer."""
PREFETCHED = 256
"""Postings of a run that are prefetched when a window begins; the processor sees the rest coming."""
NOTHING, ADDED, OVERFLOW = 0, 1, 2
"""What `add_window` did: no term stands in the window; all were added; a sum could have passed what the type holds."""


def _accumulate_arrays(accumulator: Any, slots: Any, impacts: Any, weight: Any) -> None:
    """Do what `accumulate` does: no slot comes twice in a run."""
    accumulator[slots] += impacts.astype(accumulator.dtype) * weight


@kernel_or(_accumulate_arrays)
def accumulate(accumulator: Accumulator, slots: npt.NDArray[np.uint16], impacts: npt.NDArray[np.uint8], weight: Any) -> None:
    """Add ``weight x impact`` at each posting's slot; the caller made sure that no sum passes the accumulator's type."""
    for i in range(len(slots)):
        slot = slots[i]
        accumulator[slot] += weight * accumulator.dtype.type(impacts[i])


def _add_column_array(accumulator: Any, column: Any, weight: Any) -> None:
    """Do what `add_column` does."""
    accumulator += column.astype(accumulator.dtype) * weight


@kernel_or(_add_column_array)
def add_column(accumulator: Accumulator, column: U8, weight: Any) -> None:
    """Add ``weight x impact`` of every document. All values are cut back to the accumulator's type: else lanes have 64 bits."""
    kind = accumulator.dtype.type
    for i in range(len(accumulator)):
        accumulator[i] = kind(accumulator[i] + kind(weight * kind(column[i])))


def _add_two_column_arrays(accumulator: Any, column: Any, weight: Any, column2: Any, weight2: Any) -> None:
    """Do what `add_two_columns` does."""
    _add_column_array(accumulator, column, weight)
    _add_column_array(accumulator, column2, weight2)


@kernel_or(_add_two_column_arrays)
def add_two_columns(accumulator: Accumulator, column: U8, weight: Any, column2: U8, weight2: Any) -> None:
    """Do it for two columns at once, which halves the traffic to the accumulator."""
    kind = accumulator.dtype.type
    for i in range(len(accumulator)):
        both = kind(kind(weight * kind(column[i])) + kind(weight2 * kind(column2[i])))
        accumulator[i] = kind(accumulator[i] + both)


@kernel
def columns_last(arrays: PostingArrays, ranks: Ranks, weights: I64) -> tuple[Ranks, I64, Integer]:
    """Terms with columns after the others, and how many those are."""
    sorted_ranks, sorted_weights = np.empty_like(ranks), np.empty_like(weights)
    n, end = 0, len(ranks)
    for i in range(len(ranks)):
        if arrays.column_of[ranks[i]] < 0:
            sorted_ranks[n], sorted_weights[n] = ranks[i], weights[i]
            n += 1
        else:
            end -= 1
            sorted_ranks[end], sorted_weights[end] = ranks[i], weights[i]
    return sorted_ranks, sorted_weights, n


@kernel
def room_for(reach: Integer, room: Integer, accumulator: Accumulator, size: Integer) -> Integer:
    """What scores may still grow by when a term of so much reach is added; negative where they may overflow.

    ``room`` is what was known before. Bounds of terms add up to far more than any score, so where they fill the type the
    largest score so far is looked up.
    """
    if reach > room:
        room = (np.int64(1) << (8 * accumulator.itemsize)) - 1 - largest(accumulator[:size])
    return room - reach


@kernel
def add_window(
    arrays: PostingArrays, ranks: Ranks, weights: I64, n_listed: Integer, cursors: I64, w: Integer, first: Integer,
    accumulator: Accumulator, size: Integer,
) -> Integer:  # fmt: skip
    """Score the documents of window ``w``: ``size`` of them, from the segment's document ``first`` on.

    ``ranks``, ``weights``: the query, terms without columns first; ``cursors`` has the next run of each of those.

    Returns
    -------
    NOTHING, ADDED or OVERFLOW; scores are in ``accumulator[:size]`` when it is ADDED.
    """
    kind = accumulator.dtype.type
    begun = n_listed < len(ranks)
    room: Integer = (np.int64(1) << (8 * accumulator.itemsize)) - 1
    begins, ends = np.empty(n_listed, np.int64), np.empty(n_listed, np.int64)
    for i in range(n_listed):
        t, r = ranks[i], cursors[i]
        while r < arrays.run_starts[t + 1] and arrays.run_windows[r] < w:
            r += 1
        cursors[i] = r
        begins[i] = ends[i] = 0
        if r < arrays.run_starts[t + 1] and arrays.run_windows[r] == w:
            begins[i], ends[i] = run_span(arrays.starts, arrays.run_starts, arrays.run_offsets, t, r)
            begun = True
            for p in range(begins[i], min(ends[i], begins[i] + PREFETCHED), LINE_BYTES // 2):
                prefetch(arrays.slots, p)
            for p in range(begins[i], min(ends[i], begins[i] + PREFETCHED), LINE_BYTES):
                prefetch(arrays.impacts, p)
    if not begun:
        return NOTHING
    accumulator[:size] = 0
    for i in range(n_listed):
        if begins[i] == ends[i]:
            continue
        room = room_for(weights[i] * np.int64(arrays.kth[ranks[i], 0]), room, accumulator, size)
        if room < 0:
            return OVERFLOW
        accumulate(accumulator, arrays.slots[begins[i] : ends[i]], arrays.impacts[begins[i] : ends[i]], kind(weights[i]))
    last = first + size
    for i in range(n_listed, len(ranks), 2):
        j = min(i + 1, len(ranks) - 1)
        column, column2 = arrays.columns[arrays.column_of[ranks[i]]], arrays.columns[arrays.column_of[ranks[j]]]
        reach = weights[i] * np.int64(arrays.kth[ranks[i], 0])
        if j > i:
            reach += weights[j] * np.int64(arrays.kth[ranks[j], 0])
        room = room_for(reach, room, accumulator, size)
        if room < 0:
            return OVERFLOW
        if j > i:
            add_two_columns(accumulator[:size], column[first:last], kind(weights[i]), column2[first:last], kind(weights[j]))
        else:
            add_column(accumulator[:size], column[first:last], kind(weights[i]))
    return ADDED
