"""Helper threads of a searcher or network: started when first needed, and kept with their scratch from query to query."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Workers:
    """Threads of one searcher or network: at most ``n_helpers``, in addition to the caller's; None: one per core."""

    def __init__(self, n_helpers: int | None = None) -> None:
        self._n_helpers = n_helpers
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def map(self, work: Callable[[int], T], n: int, n_threads: int) -> list[T]:
        """Return ``work(0)`` to ``work(n - 1)``, taken one after another by ``n_threads`` threads."""
        if n == 1:
            return [work(0)]
        found: dict[int, T] = {}

        def take(numbers: Iterator[int]) -> None:
            for number in numbers:
                found[number] = work(number)

        self.share(take, n, n_threads)
        return [found[number] for number in range(n)]

    def share(self, work: Callable[[Iterator[int]], T], n: int, n_threads: int) -> list[T]:
        """Call ``work`` in ``n_threads`` threads, including the caller's, with one iterator over 0 to n - 1 for all.

        Returns
        -------
        list of T
            Results of the calls; fewer than ``n_threads`` when other threads were busy until all was done. An error in any of
            them is raised here, when the others have ended.
        """
        numbers = iter(range(n))
        n_helpers = min(n_threads, n) - 1
        if n_helpers < 1:
            return [work(numbers)]
        pool = self._started()
        helpers = [pool.submit(work, numbers) for _ in range(n_helpers)]
        try:
            results = [work(numbers)]
        finally:
            running = [helper for helper in helpers if not helper.cancel()]
            errors = [error for helper in running if (error := helper.exception())]
        if errors:
            raise errors[0]
        return results + [helper.result() for helper in running]

    def _started(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._n_helpers or os.cpu_count(), thread_name_prefix="lexmax-searcher")
            return self._pool
