"""Sorting, selecting and searching in kernels, instead of NumPy's functions as Numba compiles them.

Numba makes ``sort``, ``argsort``, ``partition`` and ``searchsorted`` of inner functions whose names do not tell their variants
apart. Kernels that were compiled in different processes and are loaded from the cache into one can then be linked to each
other's variant: a sort that leaves its array as it was has been seen. The functions here have names of their own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import kernel

RUN = 16
"""Runs of this length are sorted by insertion, then merged."""
Values = npt.NDArray[Any]


@kernel
def lower_bound(values: Values, wanted: Any) -> Any:
    """Return the first position of the ascending ``values`` whose value is not below ``wanted``."""
    low, high = np.int64(0), np.int64(len(values))
    while low < high:
        middle = (low + high) >> 1
        if values[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def sort_run(values: Values, first: Any, end: Any) -> None:
    """Sort ``values[first:end]`` in place, by insertion."""
    for i in range(first + 1, end):
        value, at = values[i], i
        while at > first and value < values[at - 1]:
            values[at] = values[at - 1]
            at -= 1
        values[at] = value


@kernel
def merge_runs(source: Values, target: Values, first: Any, middle: Any, end: Any) -> None:
    """Merge the sorted ``source[first:middle]`` and ``source[middle:end]`` into the same place of ``target``."""
    left, right = first, middle
    for i in range(first, end):
        if right >= end or (left < middle and not source[right] < source[left]):
            target[i] = source[left]
            left += 1
        else:
            target[i] = source[right]
            right += 1


@kernel
def sort(values: Values) -> None:
    """Sort in place, ascending."""
    n = len(values)
    for first in range(0, n, RUN):
        sort_run(values, first, min(first + RUN, n))
    if n <= RUN:
        return
    source, target, width = values, np.empty_like(values), RUN
    while width < n:
        for first in range(0, n, 2 * width):
            merge_runs(source, target, first, min(first + width, n), min(first + 2 * width, n))
        source, target = target, source
        width *= 2
    if source is not values:
        for i in range(n):  # Numba's assignment of a slice would compile code that says which shapes differ
            values[i] = source[i]


@kernel
def order_run(values: Values, order: Values, first: Any, end: Any) -> None:
    """Sort ``order[first:end]`` by the values that it points to, in place and stably, by insertion."""
    for i in range(first + 1, end):
        number, at = order[i], i
        while at > first and values[number] < values[order[at - 1]]:
            order[at] = order[at - 1]
            at -= 1
        order[at] = number


@kernel
def merge_orders(values: Values, source: Values, target: Values, first: Any, middle: Any, end: Any) -> None:
    """Merge two sorted stretches of ``source``, which points to values, into the same place of ``target``; stably."""
    left, right = first, middle
    for i in range(first, end):
        if right >= end or (left < middle and not values[source[right]] < values[source[left]]):
            target[i] = source[left]
            left += 1
        else:
            target[i] = source[right]
            right += 1


@kernel
def order_of(values: Values) -> Any:
    """Return positions (n,) int64 that sort the values ascending; equal ones keep their order."""
    n = len(values)
    source = np.empty(n, np.int64)
    for i in range(n):
        source[i] = i
    for first in range(0, n, RUN):
        order_run(values, source, first, min(first + RUN, n))
    target, width = np.empty_like(source), RUN
    while width < n:
        for first in range(0, n, 2 * width):
            merge_orders(values, source, target, first, min(first + width, n), min(first + 2 * width, n))
        source, target = target, source
        width *= 2
    return source


@kernel
def kth_smallest(values: Values, k: Any) -> Any:
    """Return the value that stands at position ``k`` when the values are sorted; they stay as they are."""
    rest = values.copy()
    low, high = np.int64(0), np.int64(len(rest))
    while high - low > RUN:
        a, b, c = rest[low], rest[(low + high) >> 1], rest[high - 1]
        pivot = max(min(a, b), min(max(a, b), c))
        below, at, above = low, low, high  # rest[low:below] < pivot == rest[below:at], pivot < rest[above:high]
        while at < above:
            value = rest[at]
            if value < pivot:
                rest[at], rest[below] = rest[below], value
                below += 1
                at += 1
            elif pivot < value:
                above -= 1
                rest[at], rest[above] = rest[above], value
            else:
                at += 1
        if k < below:
            high = below
        elif k < above:
            return pivot
        else:
            low = above
    sort_run(rest, low, high)
    return rest[k]
