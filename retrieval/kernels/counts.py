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
    most = len(characters) // 2 + 1  # of the arrays only what is written takes memory
    ids, lengths, listed = np.empty(most, np.int32), np.zeros(len(ends), np.int64), np.empty(len(characters) + 1, np.uint8)
    starts, slots, hashes = np.empty(most + 1, np.int64), np.full(FIRST_SLOTS, -1, np.int32), np.empty(FIRST_SLOTS, np.uint64)
    text, at, n, n_distinct, starts[0] = 0, 0, 0, 0, 0
    while True:
        text, at, n, n_distinct = number_some(
            characters, ends, ids, lengths, listed, starts, slots, hashes, text, at, n, n_distinct
        )  # fmt: skip
        if text == len(ends):
            return ids[:n].copy(), lengths, listed[: starts[n_distinct]].copy()
        slots, hashes = spread(slots, hashes)


@kernel
def number_some(
    characters: Bytes, ends: Int64s, ids: Int32s, lengths: Int64s, listed: Bytes, starts: Int64s, slots: Int32s,
    hashes: npt.NDArray[np.uint64], text: int, at: int, n: int, n_distinct: int,
) -> tuple[int, int, int, int]:  # fmt: skip
    """Number words until the hash table is half full or all are numbered, from a text, a byte and a count of words on.

    A loop of its own: in one that also exchanged the table, each word took three times as long.
    """
    while text < len(ends):
        while at < ends[text]:
            if characters[at] == SPACE:
                at += 1
                continue
            if 2 * n_distinct > len(slots):
                return text, at, n, n_distinct
            first, mixed = at, np.uint64(0)
            while at < ends[text] and characters[at] != SPACE:
                mixed = (mixed ^ np.uint64(characters[at])) * np.uint64(MULTIPLIER)
                at += 1
            mixed ^= mixed >> np.uint64(32)
            slot = np.int64(mixed & np.uint64(len(slots) - 1))
            while slots[slot] >= 0:
                number = slots[slot]
                if hashes[slot] == mixed and is_word(characters, first, at, listed, starts[number], starts[number + 1]):
                    break
                slot = (slot + 1) & (len(slots) - 1)
            if slots[slot] < 0:
                slots[slot], hashes[slot], begin = n_distinct, mixed, starts[n_distinct]
                for i in range(at - first):
                    listed[begin + i] = characters[first + i]
                listed[begin + at - first] = SPACE
                n_distinct += 1
                starts[n_distinct] = begin + at - first + 1
            ids[n] = slots[slot]
            n += 1
            lengths[text] += 1
        text += 1
    return text, at, n, n_distinct


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
def spread(slots: Int32s, hashes: npt.NDArray[np.uint64]) -> tuple[Int32s, npt.NDArray[np.uint64]]:
    """Return a hash table of four times as many slots, a power of two, with the same numbers and their hashes."""
    new_slots, new_hashes = np.full(4 * len(slots), -1, np.int32), np.empty(4 * len(slots), np.uint64)
    for old in range(len(slots)):
        if slots[old] >= 0:
            slot = np.int64(hashes[old] & np.uint64(len(new_slots) - 1))
            while new_slots[slot] >= 0:
                slot = (slot + 1) & (len(new_slots) - 1)
            new_slots[slot], new_hashes[slot] = slots[old], hashes[old]
    return new_slots, new_hashes


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
