"""Files that exports write: under another name until they are whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ...index.errors import StorageError


@contextmanager
def exported(target: Path, mode: str, encoding: str | None = None) -> Iterator[IO[Any]]:
    """Open a file to write, which gets the name ``target`` when the block ends, and goes when an error ends it.

    Raises
    ------
    StorageError
        The disk refuses.
    """
    unfinished = target.with_name(target.name + ".tmp")
    try:
        with unfinished.open(mode, encoding=encoding) as out:
            yield out
        unfinished.replace(target)
    except OSError as failure:
        raise StorageError(f"{target}: cannot be written: {failure.strerror}") from failure
    finally:
        unfinished.unlink(missing_ok=True)
