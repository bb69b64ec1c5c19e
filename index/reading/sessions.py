"""Backends that read: each has many reads in flight, and brings them into memory of its own in any order.

A session belongs to one thread at a time. `Session.exchange` hands over new reads and takes back what has ended, as the system
says it: nothing is tried again here, see `reader`.
"""

from __future__ import annotations

import errno
import mmap
import os
import queue
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from ..arrays import Bytes, Int64s
from ..errors import StorageError
from ..kernels.reading import PAGE, read_each

ARENA_BYTES = 16 << 20
"""Memory of a session, unless one record needs more."""
PATIENCE_S = 30
"""Seconds after which a read that has not ended is taken for lost, if no other has ended meanwhile."""
N_THREADS = 32
N_SESSIONS = 4
"""Sessions of a backend that are in use at once: what limits memory, and reads in flight over all queries."""


class Reads(NamedTuple):
    """Reads to be done, (n,) int64 each: file offset, bytes, address in memory, and the caller's number."""

    offsets: Int64s
    lengths: Int64s
    addresses: Int64s
    numbers: Int64s

    def take(self, picks: Int64s | slice) -> Reads:
        """Return some of them."""
        return Reads(*(each[picks] for each in self))


Ended = tuple[Int64s, Int64s]
"""Numbers of reads, and of each the bytes that came, 0 at the end of the file, or minus an errno."""
NONE = np.empty(0, np.int64)
NO_READS = Reads(NONE, NONE, NONE, NONE)


class Session(ABC):
    """One thread's way to have many reads in flight.

    Attributes
    ----------
    name : str
    direct : bool
        Reads pass the page cache by; offsets, lengths and addresses are then multiples of 4,096.
    depth : int
        Reads in flight at most.
    arena : (n_bytes,) uint8
        Where reads go.
    """

    name: str
    direct = False
    depth = 256

    def __init__(self) -> None:
        self.arena: Bytes = _pages(ARENA_BYTES)
        self._n_numbered = 0
        self.n_flying = 0
        """Reads in flight; the reader counts them."""

    def new_numbers(self, n: int) -> int:
        """Return the first of n numbers that no read had, of the last 2^31."""
        if self._n_numbered > (1 << 31) - n:
            self._n_numbered = 0
        self._n_numbered += n
        return self._n_numbered - n

    def need(self, n_bytes: int) -> None:
        """Make the arena at least so large; what was in it is lost."""
        if len(self.arena) < n_bytes:
            self.arena = _pages(n_bytes)

    @abstractmethod
    def exchange(self, descriptor: int, reads: Reads, n_wait: int) -> Ended:
        """Hand over new reads, and wait until ``n_wait`` of those in flight have ended; raises OSError."""


class PoolSession(Session):
    """Reads by pread in threads that all sessions share; runs on any POSIX system."""

    name = "pread"

    def __init__(self) -> None:
        super().__init__()
        self._ended: queue.SimpleQueue[Ended] = queue.SimpleQueue()

    def exchange(self, descriptor: int, reads: Reads, n_wait: int) -> Ended:
        """Give each thread some of the reads."""
        n_threads = min(N_THREADS, len(reads.offsets))
        for first in range(n_threads):
            _threads().submit(self._work, descriptor, reads.take(slice(first, None, n_threads)))
        found, n = [], 0
        while n < n_wait or not self._ended.empty():
            try:
                found.append(self._ended.get(timeout=PATIENCE_S))
            except queue.Empty:
                raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
            n += len(found[-1][0])
        numbers, results = zip(*found, strict=True) if found else ((NONE,), (NONE,))
        return np.concatenate(numbers), np.concatenate(results)

    def _work(self, descriptor: int, reads: Reads) -> None:
        self._ended.put((reads.numbers, _pread(descriptor, reads)))


class WillneedSession(Session):
    """One thread: the system is told of all reads (posix_fadvise), and then asked for one after another."""

    name = "willneed"
    depth = 4096

    def __init__(self) -> None:
        super().__init__()
        self._told: deque[tuple[int, Reads]] = deque()

    def exchange(self, descriptor: int, reads: Reads, n_wait: int) -> Ended:
        """Tell of new reads; do those that were told of before."""
        for offset, length in zip(reads.offsets.tolist(), reads.lengths.tolist(), strict=True):
            os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_WILLNEED)
        self._told.extend((descriptor, reads.take(slice(i, i + 1))) for i in range(len(reads.offsets)))
        ready = [self._told.popleft() for _ in range(min(n_wait, len(self._told)))]
        numbers = np.array([int(each.numbers[0]) for _, each in ready], np.int64)
        results = [_pread(descriptor, each) for descriptor, each in ready]
        return numbers, np.concatenate([NONE, *results])


class Sessions:
    """Sessions of one backend that threads borrow, made when they are needed; a forked child makes its own.

    Parameters
    ----------
    make : callable
        Makes a session; raises OSError where the system refuses.
    """

    def __init__(self, make: Callable[[], Session]) -> None:
        self._make = make
        self.forget()

    def forget(self) -> None:
        """Start anew, without touching what a parent process uses."""
        self._free: list[Session] = []
        self._n_made, self._limit, self._changed = 0, N_SESSIONS, threading.Condition()

    @contextmanager
    def borrow(self) -> Iterator[Session]:
        """Lend a session, waiting for one where all are lent; raises StorageError when there is none and none can be made."""
        session = self.take(wait=True)
        if session is None:
            raise StorageError("no session")
        try:
            yield session
        finally:
            self.give_back(session)

    def take(self, *, wait: bool) -> Session | None:
        """Take a session, which `give_back` must end; None where all are lent, and nobody waits; raises as `borrow`."""
        with self._changed:
            while not self._free:
                if self._n_made < self._limit:
                    try:
                        session = self._make()
                    except OSError as failure:
                        if not self._n_made:
                            raise StorageError(failure.strerror or str(failure)) from failure
                        self._limit = self._n_made  # the system refuses more: those that there are will do
                        continue
                    self._n_made += 1
                    return session
                if not wait:
                    return None
                self._changed.wait()
            return self._free.pop()

    def give_back(self, session: Session) -> None:
        """Take a session back."""
        with self._changed:
            if session.n_flying:
                _lost.append(session)  # the system may yet write into its memory
                self._n_made -= 1
            else:
                self._free.append(session)
            self._changed.notify()


_lost: list[Session] = []
_pool: ThreadPoolExecutor | None = None
_pool_lock = threading.Lock()


def _threads() -> ThreadPoolExecutor:
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(N_THREADS, thread_name_prefix="lexmax-pread")
        return _pool


def _forget_threads() -> None:
    global _pool, _pool_lock
    _pool, _pool_lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget_threads)


def _pread(descriptor: int, reads: Reads) -> Int64s:
    results = np.empty(len(reads.offsets), np.int64)
    offsets, lengths, addresses = (np.ascontiguousarray(each) for each in reads[:3])
    read_each(descriptor, offsets, lengths, addresses, results)
    return results


def _pages(n_bytes: int) -> Bytes:
    """Memory that begins at a page."""
    n_pages = -(-n_bytes // PAGE)
    return np.frombuffer(mmap.mmap(-1, n_pages * PAGE), np.uint8)
