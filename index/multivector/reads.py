"""Records of documents that are read from disk: asked for, before they are needed or when they are, and taken as they come."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ..arrays import Bytes, Int32s, Int64s
from ..reading.flight import Flight, Wave
from ..reading.reader import FileReader
from ..reading.sessions import Session, Sessions
from .store import Places, TokenStore

UNWANTED = -1


class Come(NamedTuple):
    """Records that have come, or will not.

    Attributes
    ----------
    store : TokenStore
    wave : Wave
        What they were read with: ``wave.record_at`` says where in the memory of reads each record is.
    places : Places
        Of the wave's records.
    targets : (n_records,) int64
        Number of each record among the documents that are wanted, or `UNWANTED`.
    extents : (n,) int64
        Extents of the wave that have come.
    failed : dict of int to int
        Extents that will not, and why: an errno, or 0 where the file ends before them.
    """

    store: TokenStore
    wave: Wave
    places: Places
    targets: Int64s
    extents: Int64s
    failed: dict[int, int]


@dataclass(eq=False)
class _Asked:
    """Records of one store, ascending in its file, that no wave has yet."""

    store: TokenStore
    reader: FileReader
    places: Places
    targets: Int64s
    guessed: bool


class RecordReads:
    """The reads of one query; of one thread at a time.

    Records of several stores come in any order, with one depth for all. `ask` and `begin` start reads before it is known which
    documents are wanted; `want` tells it, and asks for those that are missing; `arrivals` brings them. Call `close` whatever
    happens.

    Parameters
    ----------
    sessions : Sessions
    session : Session
        Taken from them; `close` gives it back.

    Attributes
    ----------
    n_guessed, n_hits : int
        Documents that were read because they were likely to be wanted, and those of them that were.
    n_records, n_reads, n_bytes : int
        What was read.
    """

    def __init__(self, sessions: Sessions, session: Session) -> None:
        self._sessions, self._session = sessions, session
        self._flight = Flight(session)
        self._waiting: deque[_Asked] = deque()
        self._waves: dict[Wave, _Asked] = {}
        self._known: dict[TokenStore, list[tuple[Int32s, Int64s]]] = {}
        self._closed = False
        self.n_guessed = self.n_hits = self.n_records = self.n_reads = self.n_bytes = 0

    @property
    def arena(self) -> Bytes:
        """Where records are."""
        return self._flight.arena

    def ask(self, store: TokenStore, positions: Int32s, *, guessed: bool) -> None:
        """Ask for documents of a store that may be wanted; positions ascending, each once."""
        for documents, _ in self._known.get(store, ()):
            positions = np.setdiff1d(positions, documents, assume_unique=True)
        asked = self._planned(store, positions, np.full(len(positions), UNWANTED, np.int64), guessed=guessed)
        if asked is not None:
            self._known.setdefault(store, []).append((asked.places.documents, asked.targets))

    def want(self, store: TokenStore, positions: Int32s, first: int) -> None:
        """Tell which documents of a store are wanted, number ``first`` and on; positions ascending, each once."""
        missing = np.ones(len(positions), np.bool_)
        for documents, targets in self._known.pop(store, ()):
            order = np.argsort(documents)
            known = order[np.minimum(np.searchsorted(documents, positions, sorter=order), len(order) - 1)]
            found = np.flatnonzero(documents[known] == positions)
            targets[known[found]] = first + found
            missing[found] = False
        self._planned(store, positions[missing], first + np.flatnonzero(missing), guessed=False)

    def _planned(self, store: TokenStore, positions: Int32s, targets: Int64s, *, guessed: bool) -> _Asked | None:
        if store.reader is None:
            raise ValueError(f"{store.file.path} is not read from disk")
        places = store.places(positions)
        order = np.argsort(places.firsts, kind="stable")
        order = order[places.n_tokens[order] > 0]
        if not len(order):
            return None
        asked = _Asked(store, store.reader, places.take(order), targets[order], guessed)
        self._waiting.append(asked)
        return asked

    def begin(self) -> None:
        """Start reads, and wait for none."""
        self._fill()
        self._flight.send()

    def drop_unwanted(self) -> None:
        """Ask no more for what was asked for and is not wanted; counts hits."""
        for asked in self._waves.values():
            if asked.guessed:
                self.n_guessed += len(asked.targets)
                self.n_hits += int(np.count_nonzero(asked.targets != UNWANTED))
        for asked in self._waiting:
            wanted = np.flatnonzero(asked.targets != UNWANTED)
            asked.places, asked.targets = asked.places.take(wanted), asked.targets[wanted]

    def arrivals(self) -> Iterator[Come]:
        """What is wanted, as it comes."""
        self._fill()
        while self._waves:
            for wave, extents, failed in self._flight.step():
                asked = self._waves[wave]
                yield Come(asked.store, wave, asked.places, asked.targets, extents, failed)
            self._waves = {wave: asked for wave, asked in self._waves.items() if wave.n_open}
            self._fill()

    def _fill(self) -> None:
        """Make waves of what was asked for, while there is room."""
        while self._waiting:
            asked = self._waiting[0]
            if len(asked.targets):
                at = asked.places.firsts * asked.store.token_bytes + asked.store.origin
                wave = self._flight.add(asked.reader, at, asked.places.n_tokens * asked.store.token_bytes)
                if wave is None:
                    return
                n = len(wave.record_at)
                self._waves[wave] = replace(asked, places=asked.places.take(slice(n)), targets=asked.targets[:n])
                asked.places, asked.targets = asked.places.take(slice(n, None)), asked.targets[n:]
                self.n_records, self.n_reads = self.n_records + n, self.n_reads + len(wave.offsets)
                self.n_bytes += wave.n_bytes
            if not len(asked.targets):
                self._waiting.popleft()

    def close(self) -> None:
        """Wait for reads in flight, and give the session back."""
        if not self._closed:
            self._closed = True
            try:
                self._flight.close()
            finally:
                self._sessions.give_back(self._session)
