"""Where the records of token stores are while an index is searched: in memory, mapped, or on disk until they are read.

"auto" maps stores where they fit into half of the memory that is free, and reads them with the first backend that works where
they do not. A budget is used up store by store; what does not fit is read.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..fields import Field
from ..reading.backends import BACKENDS
from .field import TokenField

logger = logging.getLogger(__name__)
PLACES = ("auto", "memory", "mmap", *BACKENDS)
FREE_SHARE = 0.5
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True, kw_only=True)
class TokenStorage:
    """Where records of token vectors are while an index is searched; answers are the same everywhere, to the bit.

    Attributes
    ----------
    place : str
        "auto"; "memory": copied when the index is opened; "mmap": as the system keeps pages; or the backend that reads records
        from disk for each query: "io_uring", "libaio", "pread" or "willneed".
    memory_budget : int or None
        Bytes of records that may be kept in memory; what does not fit stays on disk. None: no copies, unless ``place`` says so.
    """

    place: str = "auto"
    memory_budget: int | None = None

    def __post_init__(self) -> None:
        if self.place not in PLACES:
            raise ValueError(f"the token storage is {self.place!r}: it must be one of {', '.join(PLACES)}")
        if self.memory_budget is not None and self.memory_budget < 0:
            raise ValueError(f"memory_budget is {self.memory_budget}: it must be at least 0 bytes")
        if self.memory_budget is not None and self.place in ("memory", "mmap"):
            raise ValueError(f"a memory budget goes with reading from disk, not with {self.place}")


def place_tokens(fields: Iterable[Field[Any]], storage: TokenStorage) -> None:
    """Place the records of all token fields, and tell the log.

    Raises
    ------
    StorageError
        A backend that was asked for does not work here, or there is not enough memory.
    """
    token_fields = [field for field in fields if isinstance(field, TokenField)]
    n_bytes = sum(segment.part.store.records.nbytes for field in token_fields for segment in field.segments)
    place, budget = storage.place, storage.memory_budget
    if place == "auto" and budget is None and n_bytes <= FREE_SHARE * free_memory():
        place = "mmap"
    for field in token_fields:
        for segment in field.segments:
            store = segment.part.store
            if budget is not None and store.records.nbytes <= budget:
                budget -= store.records.nbytes
                store.put("memory")
            else:
                store.put(None if place == "auto" else place)
            if place != "mmap":
                segment.part.file.release()  # what was verified at open, and need not stay
        if field.segments:
            logger.info("field %s: records of %s", field.name, told(field))


def told(field: TokenField) -> str:
    """Say where a field's records are."""
    return ", ".join(f"{n_bytes:,} bytes by {place}" for place, n_bytes in field.places().items())


def free_memory() -> float:
    """Bytes that are free, or that the process's group may have; infinite where the system does not say."""
    found = [float("inf")]
    with suppress(OSError, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    for path in _LIMITS:
        with suppress(OSError, ValueError):  # "max" is no number
            found.append(float(Path(path).read_text()))
    return min(found)
