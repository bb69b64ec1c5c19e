"""io_uring and libaio by their system calls, without a compiled extension; Linux on x86-64.

On other processors the rings' memory would need fences, which Numba has none of.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import sys
import weakref

import numpy as np

from ..kernels.reading import aio_exchange, ring_exchange
from .sessions import PATIENCE_S, Ended, Reads, Session

DEPTH = 256
IO_URING_SETUP, IO_SETUP, IO_DESTROY = 425, 206, 207
SETUP_COOP_TASKRUN = 1 << 8
"""A read that ends does not interrupt the thread, which saves a third of the CPU time; since Linux 5.19."""
FEATURES = 1 | 1 << 8
"""What a ring must have: one memory map for both of its parts, and waiting with a limit; since Linux 5.11."""
_SUBMISSIONS, _ENTRIES = 0, 0x10000000
"""What an offset of the ring's descriptor maps."""
_N_PARAMETERS = 30
PATIENCE = (PATIENCE_S, 0)
"""As the system's calls take it: seconds and nanoseconds."""
_system = ctypes.CDLL(None, use_errno=True).syscall
_system.argtypes, _system.restype = [ctypes.c_long] * 7, ctypes.c_long


def _called(name: str, number: int, *arguments: int) -> int:
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        raise OSError(errno.ENOSYS, f"{name} is for Linux on x86-64")
    found = int(_system(number, *arguments, *[0] * (6 - len(arguments))))
    if found < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return found


def _ring_set_up() -> tuple[int, list[int]]:
    """Make a ring; returns its descriptor and what the system says about it."""
    parameters = (ctypes.c_uint32 * _N_PARAMETERS)()
    parameters[2] = SETUP_COOP_TASKRUN
    try:
        made = _called("io_uring_setup", IO_URING_SETUP, DEPTH, ctypes.addressof(parameters))
    except OSError as failure:
        if failure.errno != errno.EINVAL:
            raise
        parameters = (ctypes.c_uint32 * _N_PARAMETERS)()  # an older system
        made = _called("io_uring_setup", IO_URING_SETUP, DEPTH, ctypes.addressof(parameters))
    return made, list(parameters)


class RingSession(Session):
    """Reads by io_uring, past the page cache."""

    name, direct, depth = "io_uring", True, DEPTH

    def __init__(self) -> None:
        self._ring_fd, parameters = _ring_set_up()
        try:
            super().__init__()
            n_entries, n_done, features = parameters[0], parameters[1], parameters[5]
            head, tail, mask, _, _, _, array = parameters[10:17]
            done_head, done_tail, done_mask, _, _, done = parameters[20:26]
            if features & FEATURES != FEATURES or n_entries < DEPTH or n_done < DEPTH:
                raise OSError(errno.ENOSYS, "io_uring: an old kernel")
            size = max(array + 4 * n_entries, done + 16 * n_done)
            rings = mmap.mmap(self._ring_fd, size, mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=_SUBMISSIONS)
            entries = mmap.mmap(self._ring_fd, 64 * n_entries, mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=_ENTRIES)
        except BaseException:
            os.close(self._ring_fd)
            raise
        weakref.finalize(self, os.close, self._ring_fd).atexit = False
        self._ring = np.frombuffer(rings, np.uint32)
        self._ring[array // 4 : array // 4 + n_entries] = np.arange(n_entries)
        self._entries = np.frombuffer(entries, np.uint64).reshape(n_entries, 8)
        self._completions = np.frombuffer(rings, np.uint64, 2 * n_done, done).reshape(n_done, 2)
        self._places = np.array([head, tail, mask, done_head, done_tail, done_mask], np.int64) // 4
        self._done, self._results = np.empty(n_done, np.int64), np.empty(n_done, np.int64)
        self._limit = np.array(PATIENCE, np.int64)
        self._waiting = np.array([0, 0, self._limit.ctypes.data], np.uint64)

    def exchange(self, descriptor: int, reads: Reads, n_wait: int) -> Ended:
        """Enter the kernel once, or not at all when enough has ended."""
        n = ring_exchange(
            self._ring_fd, self._ring, self._places, self._entries, self._completions, self._waiting, descriptor, *reads,
            n_wait, self._done, self._results,
        )  # fmt: skip
        if n < 0:
            raise OSError(-n, f"io_uring_enter: {os.strerror(-n)}")
        return self._done[:n].copy(), self._results[:n].copy()


class AioSession(Session):
    """Reads by libaio, past the page cache."""

    name, direct, depth = "libaio", True, DEPTH

    def __init__(self) -> None:
        context = ctypes.c_ulong(0)
        _called("io_setup", IO_SETUP, DEPTH, ctypes.addressof(context))
        self._context = context.value
        weakref.finalize(self, _destroy, self._context, os.getpid()).atexit = False
        super().__init__()
        self._blocks, self._pointers = np.zeros((DEPTH, 8), np.uint64), np.zeros(DEPTH, np.uint64)
        self._events, self._free = np.zeros((DEPTH, 4), np.uint64), np.arange(DEPTH)
        self._state = np.array([DEPTH], np.int64)
        self._done, self._results = np.empty(DEPTH, np.int64), np.empty(DEPTH, np.int64)
        self._limit = np.array(PATIENCE, np.int64)

    def exchange(self, descriptor: int, reads: Reads, n_wait: int) -> Ended:
        """Submit all, and take events."""
        n = aio_exchange(
            self._context, self._blocks, self._pointers, self._events, self._free, self._state, self._limit, descriptor, *reads,
            n_wait, self._done, self._results,
        )  # fmt: skip
        if n < 0:
            raise OSError(-n, f"libaio: {os.strerror(-n)}")
        return self._done[:n].copy(), self._results[:n].copy()


def _destroy(context: int, process: int) -> None:
    """Destroy a context of libaio; in a forked child it is another process's."""
    if os.getpid() == process:
        _system(IO_DESTROY, context, 0, 0, 0, 0, 0)
