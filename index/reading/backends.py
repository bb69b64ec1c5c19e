"""The table of backends, and the choice among them by a real read."""

from __future__ import annotations

import errno
import logging
import os
from contextlib import closing
from pathlib import Path

import numpy as np

from ..errors import StorageError
from ..kernels.reading import PAGE
from ..preludes import FileRecord
from .flight import Flight
from .reader import FileReader
from .rings import AioSession, RingSession
from .sessions import PoolSession, Session, Sessions, WillneedSession

logger = logging.getLogger(__name__)
BACKENDS: dict[str, type[Session]] = {each.name: each for each in (RingSession, AioSession, PoolSession, WillneedSession)}
"""Name -> session, best first."""
PROBED_BYTES = 64 << 10
_sessions = {name: Sessions(session) for name, session in BACKENDS.items()}


def _forget() -> None:
    for sessions in _sessions.values():
        sessions.forget()


os.register_at_fork(after_in_child=_forget)


def open_reader(path: Path, record: FileRecord, backend: str | None = None) -> FileReader:
    """Open a file with a backend that is proven to read it: its beginning and end come as the system itself reads them.

    Parameters
    ----------
    path : Path
    record : FileRecord
        What the file must be.
    backend : str or None
        One of `BACKENDS`; None: the first that works.

    Raises
    ------
    IndexFormatError
        Another file.
    StorageError
        The backend does not work here, or none does.
    """
    reasons = []
    for name in BACKENDS if backend is None else (backend,):
        try:
            reader = FileReader(path, record, _sessions[name], direct=BACKENDS[name].direct, backend=name)
            if not _proven(reader, record.n_bytes):  # a disk with sectors of a page
                reader.alignment = PAGE
                if not _proven(reader, record.n_bytes):
                    raise StorageError(os.strerror(errno.EINVAL))
            return reader
        except StorageError as failure:
            reasons.append(f"{name}: {failure}")
            logger.info("%s cannot be read by %s", path, reasons[-1])
    advice = f"; the others are {', '.join(each for each in BACKENDS if each != backend)}" if backend else ""
    raise StorageError(f"{path} cannot be read by {'; '.join(reasons)}{advice}")


def _proven(reader: FileReader, n_bytes: int) -> bool:
    """Read both ends of the file; False when the alignment is not right.

    Raises
    ------
    StorageError
        They do not come, or others than the system has.
    """
    n = min(PROBED_BYTES, n_bytes)
    with reader.sessions.borrow() as session, closing(Flight(session)) as flight:
        found: list[bytes] = []
        for offset in (0, n_bytes - n):
            wave = flight.add(reader, np.array([offset], np.int64), np.array([n], np.int64))
            if wave is None:
                raise StorageError("a session has no room for two reads")
            while wave.n_open:
                for arrival in flight.step():
                    if errno.EINVAL in arrival.failed.values():
                        return False
                    if arrival.failed:
                        raise StorageError(f"a first read fails: {os.strerror(next(iter(arrival.failed.values())))}")
            found.append(session.arena[wave.record_at[0] : wave.record_at[0] + n].tobytes())
    descriptor = os.open(reader.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        wanted = [os.pread(descriptor, n, offset) for offset in (0, n_bytes - n)]
    finally:
        os.close(descriptor)
    if found != wanted:
        raise StorageError("a first read brings other bytes than the file has")
    return True
