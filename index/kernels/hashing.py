"""64-bit hashes of strings, and their search in a sorted array of hashes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from . import kernel, kernel_or
from .sorting import lower_bound


def _hash_in_python(characters: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Do what `hash_strings` does with integers of any size, cut to 64 bits."""
    data, edges, hashes, last = characters.tobytes(), offsets.tolist(), [], (1 << 64) - 1
    for first, end in pairwise(edges):
        h = 0xCBF29CE484222325
        for byte in data[first:end]:
            h = ((h ^ byte) * 0x100000001B3) & last
        h = ((h ^ (h >> 32)) * 0x9E3779B97F4A7C15) & last
        hashes.append(h ^ (h >> 29))
    return np.array(hashes, np.uint64)


@kernel_or(_hash_in_python)
def hash_strings(characters: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """FNV-1a with a final mix. String ``i`` is ``characters[offsets[i]:offsets[i + 1]]``; offsets lie inside."""
    hashes = np.empty(len(offsets) - 1, np.uint64)
    for i in range(len(hashes)):
        h = np.uint64(0xCBF29CE484222325)
        for p in range(offsets[i], offsets[i + 1]):
            h = (h ^ np.uint64(characters[p])) * np.uint64(0x100000001B3)
        h ^= h >> np.uint64(32)
        h *= np.uint64(0x9E3779B97F4A7C15)
        hashes[i] = h ^ (h >> np.uint64(29))
    return hashes


@kernel
def find_strings(
    characters: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], hashes: npt.NDArray[np.uint64],
    order: npt.NDArray[np.int32], wanted: npt.NDArray[np.uint8], wanted_offsets: npt.NDArray[np.int64],
) -> npt.NDArray[np.int32]:  # fmt: skip
    """Position of each wanted string, or -1.

    ``hashes`` ascends and ``order[i]`` is the position of the string with ``hashes[i]``; equal hashes are told apart by
    comparing the strings. Of equal strings the first in ``order`` is found.
    """
    found, wanted_hashes = np.empty(len(wanted_offsets) - 1, np.int32), hash_strings(wanted, wanted_offsets)
    for i in range(len(found)):
        string = wanted[wanted_offsets[i] : wanted_offsets[i + 1]]
        found[i] = find_string(characters, offsets, hashes, order, string, wanted_hashes[i])
    return found


@kernel
def find_string(
    characters: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], hashes: npt.NDArray[np.uint64],
    order: npt.NDArray[np.int32], wanted: npt.NDArray[np.uint8], wanted_hash: np.uint64,
) -> np.int32:  # fmt: skip
    """Position of one string, or -1."""
    p = lower_bound(hashes, wanted_hash)
    while p < len(hashes) and hashes[p] == wanted_hash:
        start = offsets[order[p]]
        if offsets[order[p] + 1] - start == len(wanted):
            same = 0
            while same < len(wanted) and characters[start + same] == wanted[same]:
                same += 1
            if same == len(wanted):
                return np.int32(order[p])
        p += 1
    return np.int32(-1)
