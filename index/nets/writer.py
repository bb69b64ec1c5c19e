"""How a field whose queries are networks is written: as a dense field, with nearest documents beside each part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..arrays import Int32s
from ..dense.writer import DenseWriter
from ..fields import Part
from ..manifest import FieldRecord, PartRecord
from ..storage import sync_folder
from ..writing import BufferLimits, NextName
from .config import NetFieldConfig
from .field import NetPart, dense_record, segments_of
from .neighbours import FEWEST_DOCS, write_neighbours


class NetWriter(DenseWriter):
    """The writer of one field whose queries are networks."""

    def __init__(self, index: Path, name: str, record: FieldRecord, limits: BufferLimits) -> None:
        self.net_config = NetFieldConfig(**record.options)
        super().__init__(index, name, dense_record(record, self.net_config), limits)

    def flush(self, folder: str, earlier: Sequence[tuple[int, PartRecord]], *, more_to_come: bool) -> PartRecord:
        """Write what is buffered as a part and make it durable."""
        return self._linked(super().flush(folder, earlier, more_to_come=more_to_come))

    def open(self, record: PartRecord) -> Part:
        """Open a part that `flush` or `merge` wrote."""
        return self._opened(record)

    def prepare(self, segments: Sequence[Any], *, compaction: bool = True) -> bool:
        """Get ready for a compaction; whether every part must be written again."""
        return super().prepare(segments_of(segments), compaction=compaction)

    def merge(self, folder: str, segments: Sequence[Any], order: Int32s | None) -> PartRecord:
        """Write the live documents of segments as one part, find their nearest documents, and make both durable.

        Raises
        ------
        IndexFormatError
            A source is damaged: nothing is written over it.
        """
        return self._linked(super().merge(folder, segments_of(segments), order))

    def share(self, folder: Path, record: FieldRecord) -> None:
        """Take nothing: parts share nothing."""

    def state(self, next_name: NextName) -> dict[str, Any]:
        """Return an empty state: nothing is shared by parts."""
        return {}

    def _opened(self, record: PartRecord) -> NetPart:
        return NetPart(super().open(record), self._index / record.folder, self.net_config)

    def _linked(self, record: PartRecord) -> PartRecord:
        """Write nearest documents beside a part's vectors."""
        part = self._opened(record)
        if self.net_config.n_neighbours and part.n_docs >= max(FEWEST_DOCS, self.net_config.n_neighbours + 1):
            write_neighbours(self._index / record.folder, part.n_docs, part.vectors, self.net_config.n_neighbours)
            sync_folder(self._index / record.folder)
        return record
