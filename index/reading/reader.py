"""A file that is open for a backend: proven to be the right one, and kept open, so it may be replaced or removed meanwhile."""

from __future__ import annotations

import os
import weakref
from pathlib import Path

from ..errors import IndexFormatError
from ..preludes import ADVICE, PRELUDE_BYTES, FileRecord, parse_prelude, unreadable
from .sessions import Sessions

MAX_GAP = 16 << 10
"""Bytes between two records that cost less to read than another read does: about bandwidth by reads a second."""
MAX_EXTENT = 128 << 10
SECTOR = 512
ALIGNED = 4
"""Where records begin, and so where reads through the page cache do."""


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
