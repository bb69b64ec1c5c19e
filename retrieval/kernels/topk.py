"""The k best (score, doc_num) pairs under a fixed order: score descending, then doc_num ascending.

A pair is one int64 key, ``score << 32 | (2**32 - 1 - doc_num)``, so the order of keys is the order of answers. Up to
``HEAP_K`` the keys are a binary min-heap; for larger k a buffer of 2k keys and some that is cut to k when it is full.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from . import Integer, kernel

HEAP_K = 64
SPARE = 64
"""Keys that the buffer holds beyond 2k, so that as many can be added unseen."""
Keys = npt.NDArray[np.int64]


@kernel
def buffer_size(k: Integer) -> Integer:
    """Keys that are held for k answers."""
    return k if k <= HEAP_K else 2 * k + SPARE


def new_keys(k: int) -> Keys:
    """Return a key buffer for k answers."""
    return np.zeros(buffer_size(k), np.int64)


@kernel
def key_of(score: Integer, doc_num: Integer) -> Integer:
    """Pack a score in 0..2**31-1 and a doc_num."""
    return (np.int64(score) << 32) | (np.int64(0xFFFFFFFF) - np.int64(doc_num))


@kernel
def push(keys: Keys, n: Integer, k: Integer, key: Integer, floor: Integer) -> tuple[Integer, Integer]:
    """Add a key greater than ``floor``; returns the number of keys and the new floor.

    The floor is the k-th best key so far or less: keys not above it cannot be among the k best.
    """
    if k > HEAP_K:
        keys[n] = key
        n += 1
        if n == len(keys):
            floor = max(floor, cut(keys, n, k))
            n = k
        return n, floor
    if n < k:
        i = n
        n += 1
        while i > 0:
            parent = (i - 1) >> 1
            if keys[parent] <= key:
                break
            keys[i] = keys[parent]
            i = parent
        keys[i] = key
    else:
        i = 0
        while True:
            child = 2 * i + 1
            if child >= k:
                break
            if child + 1 < k and keys[child + 1] < keys[child]:
                child += 1
            if keys[child] >= key:
                break
            keys[i] = keys[child]
            i = child
        keys[i] = key
    if n == k:
        floor = max(floor, keys[0])
    return n, floor


@kernel
def raise_threshold(shared_threshold: Keys, threshold: Integer) -> Integer:
    """Raise ``shared_threshold[0]``, which all threads of a query share, to at least ``threshold``, and return it.

    When two threads write at once the lower value may stay: it is a valid threshold too.
    """
    if threshold > shared_threshold[0]:
        shared_threshold[0] = threshold
    raised: Integer = shared_threshold[0]
    return raised


@kernel
def cut(keys: Keys, n: Integer, k: Integer) -> Integer:
    """Bring the k largest of ``keys[:n]`` to the front (quickselect) and return the smallest of them; k <= n."""
    low, high = 0, n - 1
    while low < high:
        pivot = keys[(low + high) >> 1]
        i, j = low, high
        while i <= j:
            while keys[i] > pivot:
                i += 1
            while keys[j] < pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                i += 1
                j -= 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            break
    smallest: Integer = keys[k - 1]
    return smallest
