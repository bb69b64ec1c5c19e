"""What the documents of a block can score at most: weight x block maximum, added over terms.

A frequent term has its block maxima in 4 bits (`index.inverted` draws them); of a rare one the postings are read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...index.kernels.postings import BLOCK, PostingArrays, run_span, step_of
from . import Integer, kernel
from .scores import Accumulator, Allowed, Ranks


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
def add_postings(
    arrays: PostingArrays, window: Integer, first: Integer, last: Integer, t: Integer, weight: Integer, bounds: Accumulator
) -> None:
    """Add a rare term's bounds from its postings: of those in one block, which stand together, the largest impact counts.

    Without branches on the data: each posting adds by how much it exceeds the block's largest so far. Windows and bounds are
    as `add_windows` takes them.
    """
    kind = bounds.dtype.type
    w = kind(weight)
    for r in range(arrays.run_starts[t], arrays.run_starts[t + 1]):
        if not first <= arrays.run_windows[r] < last:
            continue
        begin, end = run_span(arrays.starts, arrays.run_starts, arrays.run_offsets, t, r)
        base = (np.int64(arrays.run_windows[r]) - first) * (window // BLOCK)
        slots, impacts, part = arrays.slots[begin:end], arrays.impacts[begin:end], bounds[base:]
        block, top = np.uint16(0xFFFF), np.uint8(0)
        for p in range(len(slots)):
            here = np.uint16(slots[p] // np.uint16(BLOCK))
            top = top if here == block else np.uint8(0)
            gain = np.uint8(impacts[p] - top) if impacts[p] > top else np.uint8(0)
            part[here] = kind(part[here] + kind(w * kind(gain)))
            top, block = np.uint8(top + gain), here


@kernel
def add_windows(
    arrays: PostingArrays, window: Integer, first: Integer, last: Integer, ranks: Ranks, weights: Accumulator,
    bounds: Accumulator,
) -> None:  # fmt: skip
    """Add the bounds of terms with block maxima in the windows ``first`` to ``last``, whose blocks ``bounds`` begins with.

    Two rows from end to end, then the next two: memory is read in long streams.
    """
    kind = bounds.dtype.type
    half = window // BLOCK // 2
    for i in range(0, len(ranks), 2):
        row = arrays.dense[arrays.dense_rows[ranks[i]]]
        unit = kind(weights[i] * kind(step_of(np.int64(arrays.kth[ranks[i], 0]))))
        j = min(i + 1, len(ranks) - 1)
        row2 = arrays.dense[arrays.dense_rows[ranks[j]]]
        unit2 = kind(weights[j] * kind(step_of(np.int64(arrays.kth[ranks[j], 0]))))
        for w in range(first, last):
            part, here = bounds[2 * half * (w - first) : 2 * half * (w - first + 1)], row[w * half : (w + 1) * half]
            if j > i:
                add_nibbles_2(part, here, unit, row2[w * half : (w + 1) * half], unit2)
            else:
                add_nibbles(part, here, unit)


@kernel
def bound_blocks(
    arrays: PostingArrays, window: Integer, first: Integer, last: Integer, ranks: Ranks, weights: Accumulator,
    bounds: Accumulator,
) -> None:  # fmt: skip
    """Fill ``bounds`` so that no document of block b, from window ``first`` on, scores above ``bounds[b]``.

    There are 8192 entries more than blocks in the windows ``first`` to ``last``: a damaged posting cannot write elsewhere.
    """
    bounds[:] = 0
    for i in range(len(ranks)):
        if arrays.dense_rows[ranks[i]] < 0:
            add_postings(arrays, window, first, last, ranks[i], weights[i], bounds)
    frequent = arrays.dense_rows[ranks] >= 0
    add_windows(arrays, window, first, last, ranks[frequent], weights[frequent], bounds)


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
