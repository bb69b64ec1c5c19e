"""Texts as counts of their terms."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...index.kernels.terms import sort_pairs
from . import kernel

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
SPACE = 32
MULTIPLIER = 0x9E3779B97F4A7C15
FIRST_SLOTS = 1 << 12


@kernel
def number_words(characters: Bytes, ends: Int64s) -> tuple[Int32s, Int64s, Bytes]:
    """Number the words of texts that lie end to end with a space between: runs of bytes other than spaces.

    Parameters
    ----------
    characters : (n,) uint8
    ends : (n_texts,) int64
        Where each text ends; a space stands there, or nothing more.

    Returns
    -------
    ids : (n_words,) int32
        For each word its number among the distinct ones, in the order in which they come first.
    lengths : (n_texts,) int64
        Words of each text.
    listed : uint8
        The distinct words, a space after each.
    """
    n_words, before = 0, True
    for i in range(len(characters)):
        blank = characters[i] == SPACE
        n_words += before and not blank
        before = blank
    ids, lengths, listed = np.empty(n_words, np.int32), np.zeros(len(ends), np.int64), np.empty(len(characters) + 1, np.uint8)
    starts, hashes, slots = np.zeros(n_words + 1, np.int64), np.empty(n_words, np.uint64), np.full(FIRST_SLOTS, -1, np.int32)
    n, n_distinct, at = 0, 0, 0
    for text in range(len(ends)):
        while at < ends[text]:
            if characters[at] == SPACE:
                at += 1
                continue
            first, mixed = at, np.uint64(0)
            while at < ends[text] and characters[at] != SPACE:
                mixed = (mixed ^ np.uint64(characters[at])) * np.uint64(MULTIPLIER)
                at += 1
            mixed ^= mixed >> np.uint64(32)
            slot = np.int64(mixed & np.uint64(len(slots) - 1))
            while slots[slot] >= 0:
                number = slots[slot]
                if hashes[number] == mixed and is_word(characters, first, at, listed, starts[number], starts[number + 1]):
                    break
                slot = (slot + 1) & (len(slots) - 1)
            if slots[slot] < 0:
                slots[slot], hashes[n_distinct], begin = n_distinct, mixed, starts[n_distinct]
                for i in range(at - first):
                    listed[begin + i] = characters[first + i]
                listed[begin + at - first] = SPACE
                n_distinct += 1
                starts[n_distinct] = begin + at - first + 1
            ids[n] = slots[slot]
            n += 1
            lengths[text] += 1
            if 2 * n_distinct > len(slots):
                slots = spread(hashes, n_distinct, 4 * len(slots))
    return ids, lengths, listed[: starts[n_distinct]].copy()


@kernel
def is_word(characters: Bytes, first: int, end: int, listed: Bytes, start: int, following: int) -> bool:
    """Whether the bytes ``first`` to ``end`` - 1 are the listed word that begins at ``start``, the next at ``following``."""
    n = following - start - 1
    if n != end - first:
        return False
    i = 0
    while i < n and listed[start + i] == characters[first + i]:
        i += 1
    return i == n


@kernel
def spread(hashes: npt.NDArray[np.uint64], n: int, n_slots: int) -> Int32s:
    """Slots of a hash table with the numbers below ``n``, -1 where it is free; ``n_slots`` is a power of two."""
    slots = np.full(n_slots, -1, np.int32)
    for number in range(n):
        slot = np.int64(hashes[number] & np.uint64(n_slots - 1))
        while slots[slot] >= 0:
            slot = (slot + 1) & (n_slots - 1)
        slots[slot] = number
    return slots


@kernel
def count_terms(ids: Int32s, lengths: Int64s, n_terms: int) -> tuple[Int64s, Int32s, Floats]:
    """Count the terms of texts that lie end to end, text ``i`` of ``lengths[i]`` ids; negative ids are passed over.

    Returns
    -------
    indptr (n + 1,), terms ascending in a row, counts
        CSR rows.
    """
    counts, indptr = np.zeros(n_terms, np.int32), np.zeros(len(lengths) + 1, np.int64)
    terms, weights = np.empty(len(ids), np.int32), np.empty(len(ids), np.float32)
    n, at = 0, 0
    for row in range(len(lengths)):
        first = n
        for p in range(at, at + lengths[row]):
            if ids[p] >= 0:
                if counts[ids[p]] == 0:
                    terms[n] = ids[p]
                    n += 1
                counts[ids[p]] += 1
        at += lengths[row]
        for i in range(first, n):
            weights[i] = counts[terms[i]]
            counts[terms[i]] = 0
        sort_pairs(terms[first:n], weights[first:n])
        indptr[row + 1] = n
    return indptr, terms[:n].copy(), weights[:n].copy()
