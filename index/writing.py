"""What the writers of all representations share: the contract, buffers, names, errors of merged parts.

A field writer buffers vectors beside the documents that the collection buffers, writes parts, merges them, and returns what the
manifest keeps of the field. The collection owns what all fields share: documents, deletes, order, names, the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .arrays import Int32s
from .fields import Part
from .manifest import FieldRecord, PartRecord
from .preludes import read_record
from .representations import Vectors

NextName = Callable[[str], str]
"""Kind of file -> a name that was never used."""


@dataclass(frozen=True, kw_only=True)
class BufferLimits:
    """How much a writer holds in memory before it writes a segment.

    Attributes
    ----------
    n_postings, n_tokens, n_numbers : int
        Of each field: postings, token vectors, and numbers of dense vectors.
    n_text_bytes : int
        Characters of titles and texts.
    growth : float
        How many times the documents of the first commit the index is going to have: centroids and lists are made for so many.
    """

    n_postings: int = 1 << 27
    n_tokens: int = 1 << 22
    n_numbers: int = 1 << 28
    n_text_bytes: int = 1 << 28
    growth: float = 1.0


class FieldWriter(Protocol):
    """The writer of one field; see `sparse.writer` for what the methods do."""

    name: str

    @property
    def fullness(self) -> float:
        """Share of the buffer's limit that is used."""
        ...

    @property
    def leads_order(self) -> bool:
        """Whether documents are reordered by this field by default."""
        ...

    def size(self, record: PartRecord) -> float:
        """Share of the largest part that a merge may write."""
        ...

    def check(self, vectors: Vectors) -> None:
        """Raise RepresentationError for vectors that the field does not hold."""
        ...

    def extend(self, vectors: Vectors) -> None:
        """Buffer vectors that passed `check`."""
        ...

    def clear(self) -> None:
        """Forget what is buffered."""
        ...

    def flush(self, folder: str, earlier: Sequence[tuple[int, PartRecord]], *, more_to_come: bool) -> PartRecord:
        """Write what is buffered as a part."""
        ...

    def open(self, record: PartRecord) -> Part:
        """Open a part that no manifest names yet."""
        ...

    def prepare(self, segments: Sequence[Any], *, compaction: bool = True) -> bool:
        """Get ready for a compaction; whether every part must be written again."""
        ...

    def outgrown(self, records: Sequence[PartRecord]) -> bool:
        """Whether the field, whose parts are given, should be compacted at the next commit."""
        ...

    def order(self, segments: Sequence[Any]) -> Int32s:
        """Order the live documents of segments; ``order[new] = old``."""
        ...

    def merge(self, folder: str, segments: Sequence[Any], order: Int32s | None) -> PartRecord:
        """Write the live documents of segments as one part."""
        ...

    def finish(self, n_segments: int) -> None:
        """End a compaction."""
        ...

    def share(self, folder: Path, record: FieldRecord) -> None:
        """Take what another index has trained for the same field, for good: scale, codec, quantiser, cells."""
        ...

    def state(self, next_name: NextName) -> dict[str, Any]:
        """Write what all segments share; return the field's state for the manifest."""
        ...


def shared_name(folder: Path, record: FieldRecord) -> str:
    """Name the trained state of a field, so that indexes that share it are recognised: the identities of its files."""
    files = [record.state[kind] for kind in ("codec", "cells") if record.state.get(kind)]
    return str(record.state.get("shared") or "-".join(read_record(folder / name).id for name in files))


def mean_errors(records: Sequence[PartRecord]) -> dict[str, float]:
    """Mean over postings or tokens of each error that parts record; the maximum for ``max_absolute``."""
    sizes = np.array([max(1, record.n_postings + record.n_tokens) for record in records], float)
    names = dict.fromkeys(name for record in records for name in record.error)
    table = {name: [record.error.get(name, 0.0) for record in records] for name in names}
    means = {name: float(np.average(values, weights=sizes)) for name, values in table.items()}
    return {**means, "max_absolute": max(table["max_absolute"])} if "max_absolute" in table else means
