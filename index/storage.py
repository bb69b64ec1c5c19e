"""What makes files durable and keeps writers apart: synced folders, atomic replacement, the lock."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .errors import IndexLockedError, StorageError
from .refusals import reason_of


def sync_folder(folder: Path) -> None:
    """Make renames and new names inside ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content`` so that a reader sees the old or the new file whole, even after a crash.

    Raises
    ------
    OSError
        The old file stays.
    StorageError
        ``committed``: the new file is in place, but its name may not survive a power cut.
    """
    temporary = path.with_name(path.name + ".tmp")
    folder = os.open(path.parent, os.O_RDONLY)  # before the renaming, after which nothing but syncing may fail
    try:
        try:
            with temporary.open("wb") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        try:
            os.fsync(folder)
        except Exception as failure:
            unsure = f"may not survive a power cut: its folder could not be synced ({reason_of(failure)})"
            raise StorageError(f"{path} is published, but {unsure}", committed=True) from failure
    finally:
        os.close(folder)


_held: set[BinaryIO] = set()
"""Lock files of this process."""


def _forget_locks() -> None:
    for file in _held:
        file.close()  # the lock is the parent's: a child that lives on must not keep it
    _held.clear()


os.register_at_fork(after_in_child=_forget_locks)


@contextmanager
def write_lock(path: Path) -> Iterator[None]:
    """Hold the single-writer lock; the system drops it when the process ends, however it ends. Forked children hold nothing.

    Raises
    ------
    IndexLockedError
        Another process or another Collection of this process holds it.
    """
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise IndexLockedError(f"{path.parent}: another writer holds the lock; wait for it to end") from None
        if not path.exists() or not os.path.samestat(path.stat(), os.fstat(file.fileno())):
            raise IndexLockedError(f"{path.parent}: another writer has just removed the lock; try again")
        _held.add(file)
        try:
            yield
        finally:
            _held.discard(file)
            if not file.closed:  # as it is in a forked child
                fcntl.flock(file, fcntl.LOCK_UN)  # closing alone would not do where a forked child has the descriptor yet
