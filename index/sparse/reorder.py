"""Order documents so that similar ones are neighbours: blocks then share terms, and bounds over blocks are tight.

Recursive graph bisection; `index.kernels.bisection` tells the method and the papers. All threads work together on the first
splits; when there are a few partitions for each thread, every partition becomes the task of one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import ceil, log2
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..arrays import Int32s, Int64s
from ..kernels import bisection as kernels
from ..kernels.bisection import Rows, Sides, Terms
from ..kernels.postings import BLOCK

Ranks = npt.NDArray[np.unsignedinteger[Any]]
TASKS_PER_THREAD = 4
SMALL_TASK_DOCS = 4096
"""Partitions of at most this many documents are not worth sharing among threads."""


class Partition(NamedTuple):
    """Positions ``lo <= i < hi``, their number of terms, and which of the two buffers holds their rows."""

    lo: int
    hi: int
    n_terms: int
    buffer: int

    @property
    def n_docs(self) -> int:
        """Number of documents."""
        return self.hi - self.lo


def bisection_order(
    indptr: Int64s, ranks: Ranks, n_terms: int, *, n_threads: int | None = None, min_partition: int = BLOCK,
    max_iterations: int = 32, progress: Callable[[float], None] | None = None,
) -> Int32s:  # fmt: skip
    """Order documents by recursive graph bisection.

    The result depends on the arguments alone, never on the number of threads. Needs twice the memory of ``ranks`` as uint32,
    58 bytes a document, and 20 bytes a term for each thread.

    Parameters
    ----------
    indptr : (n + 1,) int64
        Document ``d`` has the terms ``ranks[indptr[d]:indptr[d + 1]]``, each once.
    ranks : (nnz,) uint16 or uint32
        Terms, all less than ``n_terms``.
    n_terms : int
        Number of terms.
    n_threads : int or None
        Threads to use; None: one for each CPU.
    min_partition : int
        Partitions of so many documents are not split; at least 8, a block.
    max_iterations : int
        Most rounds of exchanges in a split. More are slower and better: 64 instead of 32 take 1.4 times as long, for less
        than 1 % fewer (term, block) pairs.
    progress : callable or None
        Called in this thread with the share done, 0 to 1.

    Returns
    -------
    order : (n,) int32
        ``order[new]`` is the document to put at position ``new``.

    Raises
    ------
    TypeError
        An array of another dtype.
    ValueError
        Offsets or ranks that do not fit, or a number out of range.
    """
    _check(indptr, ranks, n_terms)
    for name, value, least in (("min_partition", min_partition, BLOCK), ("max_iterations", max_iterations, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")
    n_threads = (os.cpu_count() or 1) if n_threads is None else n_threads
    if n_threads < 1:
        raise ValueError(f"n_threads must be at least 1, not {n_threads}")
    n_docs = len(indptr) - 1
    if n_docs <= min_partition:
        return np.arange(n_docs, dtype=np.int32)
    with ThreadPoolExecutor(n_threads) as pool:
        job = _Bisection(n_docs, len(ranks), pool, n_threads, min_partition, max_iterations)
        return job.run(job.load(_read_only(indptr), _read_only(ranks), n_terms), progress or (lambda share: None))


def order_cost(indptr: Int64s, ranks: Ranks, n_terms: int, order: Int32s) -> tuple[float, int]:
    """Return what reordering makes small: bits of the log-gaps, and (term, block) pairs.

    Parameters
    ----------
    indptr, ranks, n_terms
        As `bisection_order` takes them.
    order : (n,) int32
        A permutation of the documents.

    Returns
    -------
    bits : float
        Sum of log2 of the gaps in all posting lists, the first gap counted from position -1.
    n_pairs : int
        Number of (term, block of 8 documents) pairs with a posting.

    Raises
    ------
    TypeError, ValueError
        As `bisection_order`, or an order that is no permutation.
    """
    _check(indptr, ranks, n_terms)
    if not np.array_equal(np.sort(order), np.arange(len(indptr) - 1)):
        raise ValueError(f"order must be a permutation of {len(indptr) - 1} documents")
    return kernels.order_cost(_read_only(indptr), _read_only(ranks), _read_only(order), n_terms)


class _Bisection:
    """One run: two buffers of rows, between which splits go to and fro, and the threads."""

    def __init__(
        self, n_docs: int, n_postings: int, pool: ThreadPoolExecutor, n_threads: int, min_partition: int, max_iterations: int
    ) -> None:
        self._buffers = (_empty_rows(n_docs, n_postings), _empty_rows(n_docs, n_postings))
        self._sides = Sides(np.empty(n_docs, np.int64), np.empty(n_docs, np.bool_), np.empty(n_docs, np.bool_))
        self._steps = np.empty(0, np.int32)
        self._pool, self._n_threads = pool, n_threads
        self._min_partition, self._max_iterations = min_partition, max_iterations

    def load(self, indptr: Int64s, ranks: Ranks, n_terms: int) -> Partition:
        """Copy the rows, with their terms numbered from the most frequent on, which keeps those in the cache."""
        n_docs = len(indptr) - 1
        counts = self._count(lambda lo, hi, own: kernels.count_terms(ranks[indptr[lo] : indptr[hi]], own), 0, n_docs, n_terms)
        by_count = np.argsort(-counts, kind="stable")
        numbers_by_count = np.empty(n_terms, np.uint32)
        n_kept = kernels.number_terms(counts[by_count], n_docs, numbers_by_count)
        numbers = np.empty(n_terms, np.uint32)
        numbers[by_count] = numbers_by_count
        self._share(lambda lo, hi: kernels.renumber_rows(indptr, ranks, numbers, self._buffers[0], lo, hi), 0, n_docs)
        self._steps = kernels.log_gap_steps(int(counts.max(initial=0)) + 1)
        return Partition(0, n_docs, n_kept, 0)

    def run(self, whole: Partition, progress: Callable[[float], None]) -> Int32s:
        """Split the large partitions one after another, then the small ones side by side."""
        task_docs = max(whole.n_docs // (TASKS_PER_THREAD * self._n_threads), SMALL_TASK_DOCS, self._min_partition)
        total, done = whole.n_docs * self._levels(whole), 0
        large, tasks = [whole], []
        while large:
            partition = large.pop()
            if partition.n_docs <= task_docs:
                tasks.append(partition)
                continue
            large += self._split_together(partition)
            done += partition.n_docs
            progress(min(done / total, 1.0))
        order = np.empty(whole.n_docs, np.int32)
        for partition, ordered in zip(tasks, self._pool.map(self._bisect, tasks), strict=True):
            order[partition.lo : partition.hi] = ordered
            done += partition.n_docs * self._levels(partition)
            progress(min(done / total, 1.0))
        progress(1.0)
        return order

    def _levels(self, partition: Partition) -> int:
        return ceil(log2(max(partition.n_docs / self._min_partition, 1)))

    def _bisect(self, partition: Partition) -> Int32s:
        lo, hi, n_terms, buffer = partition
        rows, spare = self._buffers[buffer], self._buffers[1 - buffer]
        kernels.bisect(rows, spare, self._sides, lo, hi, n_terms, self._steps, self._min_partition, self._max_iterations)
        return rows.order[lo:hi]

    def _split_together(self, partition: Partition) -> tuple[Partition, Partition]:
        """Do what the kernel `split` does, with all threads."""
        lo, hi, n_terms, buffer = partition
        source, target, sides = self._buffers[buffer], self._buffers[1 - buffer], self._sides
        middle = lo + kernels.half(hi - lo)
        sides.right[lo:middle], sides.right[middle:hi] = False, True
        terms = Terms(*(np.empty(n_terms, np.int32) for _ in range(4)))
        terms.counts[:] = self._count(partial(kernels.count_rows, source), lo, hi, n_terms)
        terms.right[:] = self._count(partial(kernels.count_rows, source), middle, hi, n_terms)
        for i in range(1, self._max_iterations + 1):
            kernels.term_pulls(terms, self._steps, middle - lo, hi - middle, (i / self._max_iterations) ** 2)
            self._share(partial(kernels.document_pulls, source, sides, terms, i), lo, hi)
            n_moved = kernels.exchange(sides, lo, hi, middle - lo)
            terms.right[:] += self._count(partial(kernels.count_moves, source, sides), lo, hi, n_terms)
            if i > kernels.LOT_ROUNDS and n_moved <= kernels.SETTLED * (hi - lo):
                break
        left, numbers = terms.counts - terms.right, np.empty((2, n_terms), np.uint32)
        n_left_terms = kernels.number_terms(left, middle - lo, numbers[0])
        n_right_terms = kernels.number_terms(terms.right, hi - middle, numbers[1])
        start = int(source.starts[lo])
        right_start = start + int(left[numbers[0] != kernels.DROPPED].sum(dtype=np.int64))
        write = partial(kernels.write_half, source, target, sides, lo, hi)
        list(self._pool.map(write, (False, True), (lo, middle), (start, right_start), numbers))
        return Partition(lo, middle, n_left_terms, 1 - buffer), Partition(middle, hi, n_right_terms, 1 - buffer)

    def _share(self, work: Callable[[int, int], object], lo: int, hi: int) -> None:
        """Give every thread an equal part of the positions ``lo <= i < hi``."""
        cuts = [lo + (hi - lo) * i // self._n_threads for i in range(self._n_threads + 1)]
        for _ in self._pool.map(work, cuts[:-1], cuts[1:]):
            pass

    def _count(self, work: Callable[[int, int, Int32s], object], lo: int, hi: int, n_terms: int) -> Int32s:
        """Sum of what ``work`` counts in every thread."""
        counts: list[Int32s] = []

        def count(lo: int, hi: int) -> None:
            own = np.zeros(n_terms, np.int32)
            work(lo, hi, own)
            counts.append(own)

        self._share(count, lo, hi)
        total: Int32s = np.sum(counts, axis=0, dtype=np.int32)
        return total


def _empty_rows(n_docs: int, n_postings: int) -> Rows:
    return Rows(
        np.empty(n_docs, np.int32), np.empty(n_docs, np.int64), np.empty(n_docs, np.int64), np.empty(n_postings, np.uint32)
    )  # fmt: skip


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """View as memory maps are, for which kernels are compiled; contiguous."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def _check(indptr: Int64s, ranks: Ranks, n_terms: int) -> None:
    if indptr.dtype != np.int64 or indptr.ndim != 1:
        raise TypeError(f"indptr must be a 1-d int64 array, not {indptr.ndim}-d {indptr.dtype}")
    if ranks.dtype not in (np.uint16, np.uint32) or ranks.ndim != 1:
        raise TypeError(f"ranks must be a 1-d uint16 or uint32 array, not {ranks.ndim}-d {ranks.dtype}")
    if len(indptr) == 0 or indptr[0] != 0 or indptr[-1] != len(ranks) or np.any(indptr[1:] < indptr[:-1]):
        raise ValueError(f"indptr must rise from 0 to the number of ranks, {len(ranks)}")
    if len(ranks) and ranks.max() >= n_terms:
        raise ValueError(f"ranks must be less than n_terms, {n_terms}; the largest is {ranks.max()}")
