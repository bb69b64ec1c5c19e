"""Kernels that read files without the GIL: pread, and the rings of io_uring and libaio, by the system calls themselves.

All of them take reads as arrays of file offset, length, address and number, and give for each that has ended its number and
what the system said: bytes, 0 at the end of the file, or minus an errno. Nothing is tried again here, see
`index.reading.reader`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import Foreign, kernel

Bytes = npt.NDArray[np.uint8]
Int64s = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]

IO_URING_ENTER, IO_SUBMIT, IO_GETEVENTS = 426, 209, 208
"""System calls on x86-64."""
OP_READ, GETEVENTS, EXT_ARG, WAITING_BYTES = 22, 1, 8, 24
NUMBER_BITS = 32
EINTR, EAGAIN, EBUSY, ETIME, ETIMEDOUT = 4, 11, 16, 62, 110
PAGE = 4096
WAITING, FLYING, COME, FAILED = 0, 1, 2, 3
"""States of an extent."""

carray: Any = Foreign(lambda numba: numba.carray)
_pread: Any = Foreign(lambda numba: _c_function(numba, "pread", "intp", "int32", "intp", "uintp", "int64"))
_syscall: Any = Foreign(lambda numba: _c_function(numba, "syscall", "intp", *["intp"] * 7))
_errno_location: Any = Foreign(lambda numba: numba.types.ExternalFunction(
    "__errno_location", numba.types.CPointer(numba.types.int32)()
))  # fmt: skip


def _c_function(numba: Any, name: str, result: str, *arguments: str) -> Any:
    types = [getattr(numba.types, each) for each in (result, *arguments)]
    return numba.types.ExternalFunction(name, types[0](*types[1:]))


@kernel
def read_each(fd: int, offsets: Int64s, lengths: Int64s, addresses: Int64s, results: Int64s) -> None:
    """Read one after another; ``results`` are written."""
    for i in range(len(offsets)):
        found = _pread(fd, addresses[i], np.uint64(lengths[i]), offsets[i])
        results[i] = found if found >= 0 else -np.int64(carray(_errno_location(), 1)[0])


@kernel
def ring_exchange(
    ring_fd: int, ring: U32, places: Int64s, entries: U64, completions: U64, waiting: U64, fd: int, offsets: Int64s,
    lengths: Int64s, addresses: Int64s, numbers: Int64s, n_wait: int, done: Int64s, results: Int64s,
) -> Any:  # fmt: skip
    """Hand new reads to io_uring, wait for ``n_wait`` of all, and take what has ended; returns how many, or minus an errno.

    The caller keeps no more reads in flight than the ring has entries.

    Parameters
    ----------
    ring : (n,) uint32
        The mapped rings; ``places`` are its items: head, tail, mask of submissions and of completions.
    entries, completions : (n_entries, 8), (n, 2) uint64
        Submission entries, each the one of its own number, and completions.
    waiting : (3,) uint64
        The system's ``io_uring_getevents_arg``, which points to the longest time to wait.
    done, results : (n,) int64
        Written: numbers of reads that have ended, and what they gave.
    """
    head, tail, mask = places[0], places[1], ring[places[2]]
    done_head, done_tail, done_mask = places[3], places[4], ring[places[5]]
    at = ring[tail]
    for i in range(len(offsets)):
        entry = entries[at & mask]
        entry[:] = 0
        entry[0] = np.uint64(OP_READ) | (np.uint64(fd) << np.uint64(32))
        entry[1], entry[2] = np.uint64(offsets[i]), np.uint64(addresses[i])
        entry[3], entry[4] = np.uint64(lengths[i]), np.uint64(numbers[i])
        at = np.uint32(at + np.uint32(1))
    ring[tail] = at
    while True:
        unsent = np.uint32(ring[tail] - ring[head])
        ready = np.uint32(ring[done_tail] - ring[done_head])
        missing = max(np.int64(n_wait) - np.int64(ready), np.int64(0))
        if unsent == 0 and missing == 0:
            break
        flags = GETEVENTS | EXT_ARG if missing else 0
        if _syscall(IO_URING_ENTER, ring_fd, np.int64(unsent), missing, flags, waiting.ctypes.data, WAITING_BYTES) < 0:
            code = carray(_errno_location(), 1)[0]
            if code == EINTR:
                continue
            if code == ETIME:
                if ring[done_tail] == ring[done_head]:
                    return -ETIMEDOUT
                break
            if ready and code in (EAGAIN, EBUSY):
                break
            return -np.int64(code)
    n, first, last = 0, ring[done_head], ring[done_tail]
    while first != last:
        entry = completions[first & done_mask]
        done[n], results[n] = np.int64(entry[0]), np.int64(np.int32(np.uint32(entry[1] & np.uint64(0xFFFFFFFF))))
        first = np.uint32(first + np.uint32(1))
        n += 1
    ring[done_head] = first
    return n


@kernel
def aio_exchange(
    context: int, blocks: U64, pointers: U64, events: U64, free: Int64s, state: Int64s, limit: Int64s, fd: int,
    offsets: Int64s, lengths: Int64s, addresses: Int64s, numbers: Int64s, n_wait: int, done: Int64s, results: Int64s,
) -> Any:  # fmt: skip
    """Do the same with libaio's system calls; of the control blocks ``blocks (n, 8)``, ``free[:state[0]]`` are not in use.

    ``limit (2,)`` is the longest time to wait for a read, seconds and nanoseconds.
    """
    for i in range(len(offsets)):
        state[0] -= 1
        slot = free[state[0]]
        block = blocks[slot]
        block[:] = 0
        block[0] = (np.uint64(slot) << np.uint64(NUMBER_BITS)) | np.uint64(numbers[i])
        block[2] = np.uint64(fd) << np.uint64(32)
        block[3], block[4], block[5] = np.uint64(addresses[i]), np.uint64(lengths[i]), np.uint64(offsets[i])
        pointers[i] = np.uint64(blocks.ctypes.data) + np.uint64(64 * slot)
    handed, ready = 0, 0
    while True:
        if handed < len(offsets):
            taken = _syscall(IO_SUBMIT, context, len(offsets) - handed, pointers.ctypes.data + 8 * handed, 0, 0, 0)
            if taken < 0:
                code = carray(_errno_location(), 1)[0]
                if code != EINTR and code != EAGAIN:
                    return -np.int64(code)
            else:
                handed += taken
        if handed == len(offsets) and ready >= n_wait:
            return ready
        missing = max(np.int64(n_wait - ready), np.int64(1)) if handed == len(offsets) else np.int64(1)
        found = _syscall(IO_GETEVENTS, context, missing, len(events), events.ctypes.data, limit.ctypes.data, 0)
        if found < 0:
            code = carray(_errno_location(), 1)[0]
            if code != EINTR:
                return -np.int64(code)
        elif found == 0:
            return ready if ready and handed == len(offsets) else -ETIMEDOUT
        for i in range(found):
            tag = events[i, 0]
            done[ready] = np.int64(tag & np.uint64(0xFFFFFFFF))
            results[ready] = np.int64(events[i, 2])
            free[state[0]] = np.int64(tag >> np.uint64(NUMBER_BITS))
            state[0] += 1
            ready += 1


@kernel
def plan_extents(
    starts: Int64s, n_bytes: Int64s, alignment: int, max_gap: int, max_bytes: int, room: int, offsets: Int64s, needed: Int64s,
    lengths: Int64s, at: Int64s, first_record: Int64s, record_at: Int64s,
) -> tuple[int, int]:  # fmt: skip
    """Join records that are near each other into extents, until they fill ``room`` bytes.

    Parameters
    ----------
    starts, n_bytes : (n,) int64
        Where records are in the file, ascending.
    alignment : int
        Of the beginning, the length and the place in memory of an extent.
    max_gap, max_bytes : int
        What may lie unused between two records, and the length of an extent of several.
    offsets, needed, lengths, at : (n,) int64
        Written, of each extent: offset in the file, bytes that must come, bytes to read, place in memory.
    first_record : (n + 1,) int64
        Written: extent e has the records ``first_record[e]:first_record[e + 1]``.
    record_at : (n,) int64
        Written: place of each record in memory.

    Returns
    -------
    n_extents, n_records
    """
    n, used = 0, 0
    for i in range(len(starts)):
        end = starts[i] + n_bytes[i]
        joined = False
        if n > 0:
            reached = offsets[n - 1] + needed[n - 1]
            longer = (end - offsets[n - 1] + alignment - 1) // alignment * alignment
            fits = at[n - 1] + longer <= room and longer <= max_bytes
            joined = (starts[i] - reached <= max_gap and fits) or end <= offsets[n - 1] + lengths[n - 1]
        if joined:
            if end - offsets[n - 1] > needed[n - 1]:
                needed[n - 1] = end - offsets[n - 1]
                lengths[n - 1] = max(lengths[n - 1], (needed[n - 1] + alignment - 1) // alignment * alignment)
                used = at[n - 1] + lengths[n - 1]
        else:
            offset = starts[i] // alignment * alignment
            length = (end - offset + alignment - 1) // alignment * alignment
            if used + length > room:
                first_record[n] = i
                return n, i
            offsets[n], needed[n], lengths[n], at[n], first_record[n] = offset, end - offset, length, used, i
            used += length
            n += 1
        record_at[i] = at[n - 1] + starts[i] - offsets[n - 1]
    first_record[n] = len(starts)
    return n, len(starts)


@kernel
def settle(
    numbers: Int64s, results: Int64s, base: int, needed: Int64s, got: Int64s, states: Bytes, come: Int64s, odd: Int64s,
    odd_results: Int64s,
) -> tuple[int, int]:  # fmt: skip
    """Sort reads that have ended into extents that have come and others; those that are not in flight are passed over.

    Parameters
    ----------
    numbers, results : (n,) int64
        Of reads; extent e has the number ``base + e``.
    needed, got, states : (n_extents,)
        Bytes that must come, that have come, and states; the last two are written.
    come, odd, odd_results : (n,) int64
        Written: extents that have come, and those that have not, with what the system said.

    Returns
    -------
    n_come, n_odd
    """
    n_come, n_odd = 0, 0
    for i in range(len(numbers)):
        extent = numbers[i] - base
        if extent < 0 or extent >= len(states) or states[extent] != FLYING:
            continue
        got[extent] += max(results[i], 0)
        if got[extent] >= needed[extent]:
            states[extent] = COME
            come[n_come] = extent
            n_come += 1
        else:
            states[extent] = FAILED
            odd[n_odd], odd_results[n_odd] = extent, results[i]
            n_odd += 1
    return n_come, n_odd
