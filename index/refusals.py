"""What the system refuses (memory, descriptors, space, threads), and the one door by which it becomes a `StorageError`."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import StorageError

_WORDS = ("can't start new thread", "allocate memory", "out of memory", "failed to map segment", "too many open files")


def is_refusal(failure: BaseException) -> bool:
    """Whether the system refused something: no fault of the caller, and none of lexmax."""
    if isinstance(failure, RuntimeError | ImportError):  # threads, torch's memory, libraries that cannot be mapped
        return any(words in str(failure).lower() for words in _WORDS)
    arrow = type(failure).__module__.startswith("pyarrow")  # not imported here: every start of the command line reads this
    return arrow or isinstance(failure, OSError | MemoryError | EOFError | zlib.error)


def reason_of(failure: BaseException) -> str:
    """Say in one line what was refused, and where."""
    if isinstance(failure, MemoryError):
        return "out of memory"
    if isinstance(failure, OSError) and failure.strerror:
        return f"{failure.filename}: {failure.strerror}" if failure.filename else failure.strerror
    return " ".join(str(failure).split()) or type(failure).__name__


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what the system refuses inside the block into a StorageError; ``path`` is the index at hand."""
    try:
        yield
    except Exception as failure:
        if not is_refusal(failure):
            raise
        reason = reason_of(failure)
        raise StorageError(reason if reason.startswith(str(path)) else f"{path}: {reason}") from failure
