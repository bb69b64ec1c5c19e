"""Records on their way: reads of any files into the memory of one session, in waves, of which several are in flight at once.

A wave is what is planned together: records of one file, joined into extents. Memory is handed out in a circle, so the next
wave is read while the last one is used. A short read is continued, an interrupted one repeated, a failed one tried once more;
what the system then refuses is told extent by extent, and never guessed.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import NamedTuple

import numpy as np

from ..arrays import Bytes, Int64s
from ..errors import StorageError
from ..kernels.reading import FLYING, PAGE, WAITING, plan_extents, settle
from .reader import MAX_EXTENT, MAX_GAP, FileReader
from .sessions import NO_READS, NONE, Ended, Reads, Session

FEWEST_AT_ONCE, MOST_AT_ONCE = 16, 64
"""Reads that are waited for before their records are used: a quarter of those in flight, within these bounds."""
WAVES = 4
"""A wave takes at most this part of a session's memory, unless one record needs more."""
MAX_EXTENTS = 1 << 16
"""Of a wave."""
_AGAIN = (errno.EINTR, errno.EAGAIN)


class Wave:
    """Records of one file that are read together.

    Attributes
    ----------
    reader : FileReader
    offsets, needed, lengths, at : (n_extents,) int64
        Offset in the file, bytes that must come, bytes to read, place in the session's memory.
    first_record : (n_extents + 1,) int64
        Extent e has the records ``first_record[e]:first_record[e + 1]``.
    record_at : (n_records,) int64
        Place of each record in the session's memory.
    n_open : int
        Extents that have neither come nor failed.
    """

    def __init__(self, reader: FileReader, starts: Int64s, n_bytes: Int64s, room: int, place: int) -> None:
        offsets, needed, lengths, at, first, record_at = np.empty((6, len(starts) + 1), np.int64)
        n, n_records = plan_extents(
            starts, n_bytes, reader.alignment, MAX_GAP, MAX_EXTENT, room, offsets, needed, lengths, at, first, record_at
        )  # fmt: skip
        self.reader, self.offsets, self.needed, self.lengths = reader, offsets[:n], needed[:n], lengths[:n]
        self.at, self.first_record, self.record_at = at[:n] + place, first[: n + 1], record_at[:n_records] + place
        self.place, self.end = place, place + int(at[n - 1] + lengths[n - 1])
        self.got, self.states = np.zeros(n, np.int64), np.full(n, WAITING, np.uint8)
        self.tried: set[int] = set()
        self.again: list[int] = []
        self.base, self.n_handed, self.n_open = 0, 0, n

    @property
    def n_bytes(self) -> int:
        """Bytes that are read."""
        return int(self.lengths.sum())

    def records(self, extents: Int64s) -> Int64s:
        """Numbers of the records of some extents."""
        first, last = self.first_record[extents], self.first_record[extents + 1]
        n = last - first
        return np.repeat(last - np.cumsum(n), n) + np.arange(int(n.sum()))


class Arrival(NamedTuple):
    """Extents of a wave that have come, and those that will not, with an errno each; 0: the file ends before them."""

    wave: Wave
    extents: Int64s
    failed: dict[int, int]


class Flight:
    """Waves in one session, which belongs to it until `close`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._waves: deque[Wave] = deque()
        self._ended: list[Ended] = []  # counted as in flight until it is sorted
        self._broken = False

    @property
    def arena(self) -> Bytes:
        """Memory that records come into; a wave's part of it may be used again once the next wave is added."""
        return self._session.arena

    @property
    def n_open(self) -> int:
        """Extents that have neither come nor failed."""
        return sum(wave.n_open for wave in self._waves)

    def add(self, reader: FileReader, starts: Int64s, n_bytes: Int64s) -> Wave | None:
        """Plan a wave of the first of some records at ascending offsets; None: no room until earlier waves have come."""
        while self._waves and not self._waves[0].n_open:
            self._waves.popleft()
        wanted = int(n_bytes[0]) + 2 * PAGE
        place, room = self._room()
        if room < wanted and self._waves:
            return None
        self._session.need(wanted)
        if not self._waves:
            place, room = 0, len(self.arena)
        room = min(room, max(wanted, len(self.arena) // WAVES))
        wave = Wave(reader, starts[:MAX_EXTENTS], n_bytes[:MAX_EXTENTS], room, place)
        wave.base = self._session.new_numbers(len(wave.offsets))
        self._waves.append(wave)
        return wave

    def _room(self) -> tuple[int, int]:
        """Place and bytes of the largest stretch of memory that no wave has."""
        size = len(self.arena)
        if not self._waves:
            return 0, size
        first, last = self._waves[0].place, -(-self._waves[-1].end // PAGE) * PAGE
        if last <= first:
            return last, first - last
        return (last, size - last) if size - last >= first else (0, first)

    def send(self) -> None:
        """Hand over as many reads as may be in flight, and wait for none."""
        self._hand_over(0)

    def step(self) -> list[Arrival]:
        """Hand over what may be in flight, wait for some, and sort what has ended."""
        if self.n_open:
            self._hand_over(max(FEWEST_AT_ONCE, min(MOST_AT_ONCE, self._session.n_flying // 4)))
        return self._sort()

    def _sort(self) -> list[Arrival]:
        ended, self._ended = self._ended, []
        numbers, results = (np.concatenate([NONE, *each]) for each in zip(*ended, strict=True)) if ended else (NONE, NONE)
        found = [_sorted(wave, self._session, numbers, results) for wave in self._waves if wave.n_open]
        return [each for each in found if each is not None]

    def close(self) -> None:
        """Wait for everything in flight, after which the session's memory can be used again.

        Where the backend itself has failed nothing is waited for: the session has reads in flight, and is not lent again.
        """
        while self._session.n_flying and not self._broken:
            self._exchange(None, NO_READS, self._session.n_flying)
            self._sort()
        self._waves.clear()

    def _hand_over(self, n_wait: int) -> None:
        room = self._session.depth - self._session.n_flying
        handed: list[tuple[Wave, Int64s]] = []
        for wave in self._waves:
            if room <= 0:
                break
            again, wave.again = wave.again[:room], wave.again[room:]
            last = min(len(wave.offsets), wave.n_handed + room - len(again))
            picked = np.concatenate([np.array(again, np.int64), np.arange(wave.n_handed, last)])
            wave.n_handed = last
            if len(picked):
                handed.append((wave, picked))
                room -= len(picked)
        for i, (wave, picked) in enumerate(handed):
            self._exchange(wave, _reads(wave, self._session, picked), n_wait if i == len(handed) - 1 else 0)
        if n_wait and not handed:
            self._exchange(None, NO_READS, n_wait)

    def _exchange(self, wave: Wave | None, reads: Reads, n_wait: int) -> None:
        session = self._session
        session.n_flying += len(reads.offsets)
        try:
            descriptor = -1 if wave is None else wave.reader.descriptor
            n_wait = 0 if self._ended else min(n_wait, session.n_flying)
            numbers, results = session.exchange(descriptor, reads, n_wait)
        except OSError as failure:
            self._broken = True
            where = f"{wave.reader.path}: " if wave is not None else ""
            raise StorageError(f"{where}{session.name} fails: {failure.strerror}") from failure
        if len(numbers):
            self._ended.append((numbers, results))


def _reads(wave: Wave, session: Session, picked: Int64s) -> Reads:
    """Reads of what is left of some extents."""
    wave.states[picked] = FLYING
    got, address = wave.got[picked], session.arena.ctypes.data
    return Reads(
        wave.offsets[picked] + got, wave.lengths[picked] - got, address + wave.at[picked] + got, picked + wave.base
    )  # fmt: skip


def _sorted(wave: Wave, session: Session, numbers: Int64s, results: Int64s) -> Arrival | None:
    """Sort what has ended of a wave; what had ended before, or is of another wave, is no news."""
    extents, odd, odd_results = (np.empty(len(numbers), np.int64) for _ in range(3))
    n_come, n_odd = settle(numbers, results, wave.base, wave.needed, wave.got, wave.states, extents, odd, odd_results)
    session.n_flying -= n_come + n_odd
    failed: dict[int, int] = {}
    for number, result in zip(odd[:n_odd].tolist(), odd_results[:n_odd].tolist(), strict=True):
        code = _refusal(wave, number, result)
        if code is None:
            wave.again.append(number)
            wave.states[number] = WAITING
        else:
            failed[number] = code
    wave.n_open -= n_come + len(failed)
    return Arrival(wave, extents[:n_come], failed) if n_come or failed else None


def _refusal(wave: Wave, number: int, result: int) -> int | None:
    """The errno of an extent that will not come, 0 at the end of the file; None: it is asked for again."""
    if result > 0:  # a short read: the rest of it
        whole = int(wave.got[number] - wave.got[number] % wave.reader.alignment)
        moved = whole > wave.got[number] - result or number not in wave.tried
        wave.got[number] = whole
        if not moved:
            return 0
        wave.tried.add(number)
        return None
    if -result in _AGAIN:
        return None
    if result and number not in wave.tried:
        wave.tried.add(number)
        return None
    return -result
