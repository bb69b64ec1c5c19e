"""Reads records of one file through a backend, and survives what disks and kernels do.

Records that are near each other come with one read. A short read is continued, an interrupted one repeated, a failed one tried
once more; what the system then refuses is told extent by extent, and never guessed. The file stays open, so it may be
replaced or removed meanwhile.
"""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..arrays import Int64s
from ..errors import IndexFormatError, StorageError
from ..kernels.reading import PAGE, plan_extents
from ..preludes import ADVICE, PRELUDE_BYTES, FileRecord, parse_prelude, unreadable
from .sessions import NO_READS, Ended, Reads, Session, Sessions

MAX_GAP = 12 << 10
"""Bytes between two records that cost less to read than another read does: about bandwidth by reads a second."""
MAX_EXTENT = 128 << 10
SECTOR = 512
ALIGNED = 4
"""Where records begin, and so where reads through the page cache do."""
AT_ONCE = 32
"""Reads that are waited for before their records are scored."""
_AGAIN = (errno.EINTR, errno.EAGAIN)


class Plan(NamedTuple):
    """Records that are read together, ascending in the file.

    Attributes
    ----------
    offsets, needed, lengths, at : (n_extents,) int64
        Offset in the file, bytes that must come, bytes to read, place in the session's arena.
    first_record : (n_extents + 1,) int64
        Extent e has the records ``first_record[e]:first_record[e + 1]``.
    record_at : (n_records,) int64
        Place of each record in the arena.
    """

    offsets: Int64s
    needed: Int64s
    lengths: Int64s
    at: Int64s
    first_record: Int64s
    record_at: Int64s

    def records(self, extents: Int64s) -> Int64s:
        """Numbers of the records of some extents."""
        first, last = self.first_record[extents], self.first_record[extents + 1]
        return np.repeat(first - np.cumsum(last - first) + (last - first), last - first) + np.arange(int((last - first).sum()))


class Arrival(NamedTuple):
    """Extents that have come, and those that will not, with an errno each; 0: the file ends before them."""

    extents: Int64s
    failed: dict[int, int]


class FileReader:
    """Reads of one file; safe to use from many threads.

    Parameters
    ----------
    path : Path
    record : FileRecord
        What the file must be.
    sessions : Sessions
        Of the backend.
    direct : bool
        Pass the page cache by.
    backend : str

    Attributes
    ----------
    alignment : int
        Of offsets, lengths and addresses.

    Raises
    ------
    IndexFormatError
        There is no such file, or another one.
    StorageError
        The file cannot be opened.
    """

    def __init__(self, path: Path, record: FileRecord, sessions: Sessions, *, direct: bool, backend: str) -> None:
        self.path, self.sessions, self.direct, self.backend = path, sessions, direct, backend
        self.alignment = SECTOR if direct else ALIGNED
        self.descriptor = open_checked(path, record, direct=direct)
        weakref.finalize(self, os.close, self.descriptor).atexit = False
        if not direct:
            os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def plan(self, starts: Int64s, n_bytes: Int64s, session: Session) -> Plan:
        """Plan how records at ascending offsets are read: as many of them as the arena holds, at least one."""
        session.need(int(n_bytes[0]) + 2 * PAGE)
        offsets, needed, lengths, at, first, record_at = np.empty((6, len(starts) + 1), np.int64)
        n, n_records = plan_extents(
            starts, n_bytes, self.alignment, MAX_GAP, MAX_EXTENT, len(session.arena),
            offsets, needed, lengths, at, first, record_at,
        )  # fmt: skip
        return Plan(offsets[:n], needed[:n], lengths[:n], at[:n], first[: n + 1], record_at[:n_records])

    def arrivals(self, session: Session, plan: Plan) -> Generator[Arrival]:
        """Read the extents of a plan into the session's arena, and yield them as they come; close it to end early."""
        run = _Run(self, session, plan)
        try:
            while run.n_open:
                yield run.step()
        finally:
            run.drain()


class _Run:
    """The extents of a plan on their way."""

    def __init__(self, reader: FileReader, session: Session, plan: Plan) -> None:
        self._reader, self._session, self._plan = reader, session, plan
        n = len(plan.offsets)
        self._got = np.zeros(n, np.int64)
        self._flying = np.zeros(n, np.bool_)
        self._waiting = np.arange(n)
        self._tried: set[int] = set()
        self._base = session.new_numbers(n)
        self.n_open = n
        """Extents that have neither come nor failed."""

    def step(self) -> Arrival:
        """Hand over what fits, wait for some, and sort what has ended."""
        room = self._session.depth - self._session.n_flying
        picked, self._waiting = self._waiting[:room], self._waiting[room:]
        ended = self._exchange(picked, min(AT_ONCE, len(picked) + self._session.n_flying))
        return self._sorted(*ended)

    def drain(self) -> None:
        """Wait for everything in flight, after which the arena can be used again."""
        while self._session.n_flying:
            self._exchange(np.empty(0, np.int64), self._session.n_flying)

    def _exchange(self, picked: Int64s, n_wait: int) -> Ended:
        plan, session, got = self._plan, self._session, self._got[picked]
        reads = NO_READS
        if len(picked):
            address = session.arena.ctypes.data
            reads = Reads(
                plan.offsets[picked] + got, plan.lengths[picked] - got, address + plan.at[picked] + got, picked + self._base
            )
        self._flying[picked] = True
        session.n_flying += len(picked)
        try:
            numbers, results = session.exchange(self._reader.descriptor, reads, n_wait)
        except OSError as failure:
            raise StorageError(f"{self._reader.path}: {session.name} fails: {failure.strerror}") from failure
        numbers, first = np.unique(numbers - self._base, return_index=True)
        known = (numbers >= 0) & (numbers < len(self._flying))
        known[known] = self._flying[numbers[known]]  # what has ended before, here or in an earlier plan, is no news
        numbers, results = numbers[known], results[first[known]]
        self._flying[numbers] = False
        session.n_flying -= len(numbers)
        return numbers, results

    def _sorted(self, numbers: Int64s, results: Int64s) -> Arrival:
        plan, failed, again = self._plan, dict[int, int](), list[int]()
        self._got[numbers] += np.maximum(results, 0)
        come = self._got[numbers] >= plan.needed[numbers]
        for number, result in zip(numbers[~come].tolist(), results[~come].tolist(), strict=True):
            if result > 0:  # a short read: the rest of it
                whole = self._got[number] - self._got[number] % self._reader.alignment
                moved = whole > self._got[number] - result or number not in self._tried
                self._got[number] = whole
                if moved:
                    self._tried.add(number)
                    again.append(number)
                else:
                    failed[number] = 0
            elif -result in _AGAIN or (result and number not in self._tried):
                if -result not in _AGAIN:
                    self._tried.add(number)
                again.append(number)
            else:
                failed[number] = -result
        self._waiting = np.concatenate([self._waiting, np.array(again, np.int64)])
        self.n_open -= int(come.sum()) + len(failed)
        return Arrival(numbers[come], failed)


def open_checked(path: Path, record: FileRecord, *, direct: bool) -> int:
    """Open a file that must be a certain one, and return its descriptor; raises as `FileReader`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = parse_prelude(path, os.pread(descriptor, PRELUDE_BYTES, 0)).record(os.fstat(descriptor).st_size)
            if found != record:
                raise IndexFormatError(path, expected=f"the file {record}", found=f"{found}", advice=ADVICE)
            if not direct:
                return os.dup(descriptor)
            return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
        finally:
            os.close(descriptor)
    except OSError as failure:
        raise unreadable(path, failure) from failure
