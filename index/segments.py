"""Immutable segments: the documents and doc_ids of a run of documents, and which of them are deleted.

The vectors of a segment are the parts of its fields, in folders of their own; see `fields`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from .array_files import ArrayFile, ArrayFileWriter
from .arrays import Int32s, Mask
from .documents import BATCH_ROWS, DocumentStore, conform, write_batches
from .errors import IndexFormatError
from .manifest import SegmentRecord
from .storage import sync_folder
from .strings import StringTable

DELETES_KIND = "deletes"
MAX_BATCH_BYTES = 1 << 30
"""Strings of one batch have 32-bit offsets."""


class Segment:
    """An open segment; ``base`` is the doc_num of its first document, ``live`` says which are not deleted (None: all)."""

    def __init__(self, record: SegmentRecord, base: int, documents: DocumentStore, live: Mask | None) -> None:
        self.record, self.base, self.documents, self.live = record, base, documents, live

    @classmethod
    def open(
        cls,
        index: Path,
        record: SegmentRecord,
        base: int,
        *,
        documents: DocumentStore | None = None,
    ) -> Segment:
        """Open a segment; ``documents`` are its documents where they are open already.

        Raises
        ------
        IndexFormatError
            Damaged files, or another number of documents than the manifest has.
        """
        documents = documents or DocumentStore(index / record.name)
        if len(documents) != record.n_docs:
            raise IndexFormatError(index / record.name, expected=f"{record.n_docs} documents", found=len(documents))
        return cls(record, base, documents, read_live(index, record))

    @property
    def n_docs(self) -> int:
        """Documents, deleted ones included."""
        return self.record.n_docs

    @property
    def n_live(self) -> int:
        """Documents that are not deleted."""
        return self.record.n_docs if self.live is None else int(self.live.sum())

    def find(self, doc_ids: Sequence[str]) -> Int32s:
        """Local position of each live doc_id, -1 where it is absent or deleted."""
        found = self.documents.doc_ids.find(doc_ids)
        if self.live is not None and len(self.live):
            found = np.where((found >= 0) & self.live[found], found, -1).astype(np.int32)
        return found


def read_live(index: Path, record: SegmentRecord) -> Mask | None:
    """Read which documents of a segment are not deleted: (n_docs,) bool, read-only, None for all."""
    if record.deletes is None:
        return None
    file = ArrayFile(index / record.deletes, DELETES_KIND)
    deleted = file.array("deleted", "uint8", (-(-record.n_docs // 8),))
    live: Mask = np.unpackbits(deleted, count=record.n_docs) == 0
    n_deleted = record.n_docs - int(live.sum())
    file.require(n_deleted == record.n_deleted, f"{record.n_deleted} deleted documents", n_deleted)
    live.setflags(write=False)  # what is counted of read-only masks is kept
    return live


def write_deletes(path: Path, live: Mask) -> None:
    """Write the bitmap of deleted documents."""
    with ArrayFileWriter(path, DELETES_KIND) as out:
        out.add("deleted", np.packbits(~live))


def merge_documents(folder: Path, segments: Sequence[Segment], types: dict[str, str], order: Int32s | None = None) -> int:
    """Write the live documents of segments, in order, into a new folder and make it durable.

    Parameters
    ----------
    types : dict
        Metadata field -> type in the whole index.
    order : (n_live,) int32 or None
        ``order[new] = old`` among the live documents; None keeps the order.

    Returns
    -------
    int
        How many documents there are.

    Raises
    ------
    IndexFormatError
        A source is damaged: nothing is written over it.
    """
    for segment in segments:
        segment.documents.file.verify()
    batches = conform(_live_batches(segments), types)
    doc_ids = [doc_id for segment in segments for doc_id in _live_ids(segment)]
    if order is not None:
        doc_ids = [doc_ids[i] for i in order.tolist()]
        batches = _reordered(pa.Table.from_batches(batches), order)
    folder.mkdir()
    write_batches(folder, batches, types)
    StringTable.of(doc_ids).write(folder / "doc_ids.lex")
    sync_folder(folder)
    return len(doc_ids)


def _reordered(table: pa.Table, order: Int32s) -> Iterator[pa.RecordBatch]:
    """Rows of a table in another order. All strings of a column are put together, so their offsets must be wide meanwhile."""
    wide = table.cast(pa.schema([field.with_type(_wide(field.type)) for field in table.schema])).combine_chunks()
    for first in range(0, len(order), BATCH_ROWS):
        for rows in _taken(wide, order[first : first + BATCH_ROWS]):
            yield from rows.cast(table.schema).to_batches()


def _taken(table: pa.Table, rows: Int32s) -> Iterator[pa.Table]:
    taken = table.take(pa.array(rows))
    if len(rows) > 1 and taken.nbytes > MAX_BATCH_BYTES:
        middle = len(rows) // 2
        yield from _taken(table, rows[:middle])
        yield from _taken(table, rows[middle:])
    else:
        yield taken


def _wide(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_wide(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.large_list(_wide(kind.value_type))
    return pa.large_string() if pa.types.is_string(kind) else kind


def _live_batches(segments: Sequence[Segment]) -> Iterator[pa.RecordBatch]:
    for segment in segments:
        first = 0
        for batch in segment.documents.batches():
            live = None if segment.live is None else segment.live[first : first + batch.num_rows]
            yield batch if live is None or live.all() else batch.filter(pa.array(live))
            first += batch.num_rows


def _live_ids(segment: Segment) -> list[str]:
    column = segment.documents.doc_ids.to_arrow()
    kept: list[str] = (column if segment.live is None else column.filter(pa.array(segment.live))).to_pylist()
    return kept
