"""A group of processes that may have so much memory and no more, the page cache of what they read included (Linux, as root)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...index.errors import StorageError

_GROUPS = Path("/sys/fs/cgroup")


@contextmanager
def memory_cap(n_bytes: int | None) -> Iterator[Path | None]:
    """Make a memory group for the processes that `join` it, and remove it at the end; None for no cap.

    Raises
    ------
    StorageError
        The system has no such groups, or does not let this user make one.
    """
    if n_bytes is None:
        yield None
        return
    first = (_GROUPS / "memory").exists()
    group = (_GROUPS / "memory" if first else _GROUPS) / f"lexmax-bench-{os.getpid()}"
    limit = group / ("memory.limit_in_bytes" if first else "memory.max")
    try:
        group.mkdir()
        if not limit.exists():
            raise OSError(f"{group.parent} does not limit memory")
        limit.write_text(str(n_bytes))
    except OSError as failure:
        with suppress(OSError):
            group.rmdir()
        raise StorageError(f"no memory group can be made: {failure}; leave the memory cap out, or run as root") from failure
    try:
        yield group
    finally:
        with suppress(OSError):  # a process that is still ending
            group.rmdir()


def join(group: Path | None) -> None:
    """Put this process into a group."""
    if group is not None:
        (group / "cgroup.procs").write_text(str(os.getpid()))
