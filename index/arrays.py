"""Names of the array types that the whole package uses, and offsets of rows end to end."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]


def is_indptr(offsets: Int64s, n_entries: int) -> bool:
    """Whether offsets rise from 0 to the number of entries."""
    return len(offsets) > 0 and offsets[0] == 0 and offsets[-1] == n_entries and bool(np.all(offsets[1:] >= offsets[:-1]))


def is_permutation(numbers: Int32s) -> bool:
    """Whether the numbers are 0 to n - 1, each once."""
    seen = np.zeros(len(numbers), np.bool_)
    if not len(numbers) or not 0 <= int(numbers.min()) <= int(numbers.max()) < len(numbers):
        return not len(numbers)
    seen[numbers] = True
    return bool(seen.all())


def offsets_of(widths: npt.NDArray[Any]) -> Int64s:
    """Offsets of rows that are so wide, end to end."""
    offsets = np.zeros(len(widths) + 1, np.int64)
    np.cumsum(widths, out=offsets[1:])
    return offsets


def joined_offsets(parts: Sequence[Int64s]) -> Int64s:
    """Offsets of the rows of all parts end to end; each part's offsets start at 0."""
    return offsets_of(np.concatenate([np.empty(0, np.int64), *(np.diff(part) for part in parts)]))


def picks_of(offsets: Int64s, rows: npt.NDArray[Any]) -> tuple[Int64s, Int64s]:
    """Offsets of the chosen rows put end to end, and the positions of their entries."""
    widths = np.diff(offsets)[rows]
    ends = offsets_of(widths)
    return ends, np.repeat(offsets[:-1][rows] - ends[:-1], widths) + np.arange(ends[-1])
