"""Documents: what a user adds and gets back, kept in Arrow.

A segment's documents are an Arrow IPC file (batches of title, text and a metadata struct) inside an array file, so that it
is memory-mapped and checksummed like everything else; the doc_ids are a string table beside it.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa

from . import metadata
from .errors import IndexFormatError
from .storage import ArrayFile, ArrayFileWriter
from .strings import StringTable

KIND = "documents"
BATCH_ROWS = 4096
TYPES_KEY = b"lexmax.metadata"
"""Key of the schema's metadata that holds the type of each metadata field, as the segment was written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One document.

    Attributes
    ----------
    doc_id : str
        The user's identifier, unique among live documents, never empty.
    title, text : str
        Either may be empty.
    metadata : mapping
        Scalars (bool, int, float, str), lists of strings, or nested objects (kept, but not filterable).
    """

    doc_id: str
    text: str
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def content(self) -> str:
        """What encoders see: the title and the text joined by a space."""
        return f"{self.title} {self.text}" if self.title and self.text else self.title or self.text


class DocumentBuffer:
    """Documents that wait to be written; full batches are kept in Arrow, which is a third of the size of Python strings."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.fields = dict(fields)
        self.doc_ids: list[str] = []
        self.n_bytes = 0
        self._batches: list[pa.RecordBatch] = []
        self._rows: list[Document] = []

    def __len__(self) -> int:
        return len(self.doc_ids)

    def extend(self, documents: Sequence[Document], fields: dict[str, str]) -> None:
        """Add documents; ``fields`` are the metadata types after them."""
        self.fields = fields
        for document in documents:
            self.doc_ids.append(document.doc_id)
            self.n_bytes += len(document.title) + len(document.text)
            self._rows.append(document)
            if len(self._rows) == BATCH_ROWS:
                self._pack()

    def _pack(self) -> None:
        rows = self._rows
        columns = [
            pa.array([row.title for row in rows], pa.string()),
            pa.array([row.text for row in rows], pa.large_string()),
            metadata.to_struct(self.fields, [row.metadata for row in rows]),
        ]
        self._batches.append(pa.RecordBatch.from_arrays(columns, names=["title", "text", "metadata"]))
        self._rows = []

    def write(self, folder: Path) -> None:
        """Write ``doc_ids.lex`` and ``documents.lex`` into ``folder``."""
        if self._rows:
            self._pack()
        StringTable.of(self.doc_ids).write(folder / "doc_ids.lex")
        write_batches(folder, conform(self._batches, self.fields), self.fields)


def conform(batches: Iterable[pa.RecordBatch], fields: Mapping[str, str]) -> Iterator[pa.RecordBatch]:
    """Bring every batch's metadata to the types in ``fields``, so that all have one schema."""
    schema = _schema(fields)
    for batch in batches:
        columns = [batch.column(0), batch.column(1), _conform(batch.column(2), schema.field("metadata").type, fields)]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def write_batches(folder: Path, batches: Iterable[pa.RecordBatch], fields: Mapping[str, str]) -> None:
    """Write ``documents.lex`` from batches of the schema that `conform` gives."""
    with (
        ArrayFileWriter(folder / "documents.lex", KIND) as out,
        out.stream("arrow") as sink,
        pa.ipc.new_file(pa.PythonFile(sink, mode="w"), _schema(fields)) as writer,
    ):
        for batch in batches:
            writer.write_batch(batch)


def _schema(fields: Mapping[str, str]) -> pa.Schema:
    kind = pa.struct([(name, metadata.ARROW_TYPES[field_type]) for name, field_type in fields.items()])
    columns = [("title", pa.string()), ("text", pa.large_string()), ("metadata", kind)]
    return pa.schema(columns, metadata={TYPES_KEY: json.dumps(dict(fields))})


def _conform(column: pa.StructArray, kind: pa.StructType, fields: Mapping[str, str]) -> pa.StructArray:
    if kind.num_fields == 0:
        return pa.StructArray.from_buffers(kind, len(column), [None])
    children = []
    for child in kind:
        at = column.type.get_field_index(child.name)
        known = None if at < 0 else metadata.cast(column.field(at), fields[child.name])
        children.append(pa.nulls(len(column), child.type) if known is None else known)
    return pa.StructArray.from_arrays(children, fields=list(kind))


class DocumentStore:
    """The documents of one segment, read on demand. Positions are local: 0 is the segment's first document.

    Raises
    ------
    IndexFormatError
        Damaged files, or as many doc_ids as there are not documents.
    """

    def __init__(self, folder: Path, *, verify: bool | None = None) -> None:
        self.doc_ids = StringTable.open(folder / "doc_ids.lex", verify=verify)
        self.file = ArrayFile(folder / "documents.lex", KIND, verify=verify)
        try:
            reader = pa.ipc.open_file(pa.py_buffer(self.file["arrow"]))
            self.batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
            self.fields: dict[str, str] = json.loads(reader.schema.metadata[TYPES_KEY])
        except (pa.ArrowInvalid, KeyError, TypeError, ValueError) as failure:
            raise IndexFormatError(self.file.path, expected="an Arrow IPC file", found=failure) from failure
        self._columns = [(batch.column(0), batch.column(1), batch.column(2)) for batch in self.batches]
        self._ends = list(accumulate(batch.num_rows for batch in self.batches))
        if (self._ends[-1] if self._ends else 0) != len(self.doc_ids):
            raise IndexFormatError(self.file.path, expected=f"{len(self.doc_ids)} documents", found=self._ends[-1:])

    def __len__(self) -> int:
        return len(self.doc_ids)

    @property
    def n_bytes(self) -> int:
        """Size of both files in bytes."""
        return self.file.n_bytes + self.doc_ids.n_bytes

    def get_many(self, positions: Sequence[int]) -> list[Document]:
        """Documents at ``positions``, in that order."""
        return [self.get(int(position)) for position in positions]

    def get(self, position: int) -> Document:
        """The document at a position."""
        number = bisect_right(self._ends, position)
        titles, texts, rows = self._columns[number]
        row = position - (self._ends[number] - len(titles))
        return Document(
            doc_id=self.doc_ids[position],
            title=titles[row].as_py(),
            text=texts[row].as_py(),
            metadata=metadata.from_row(self.fields, rows[row].as_py()) if self.fields else {},
        )

    def column(self, name: str) -> pa.ChunkedArray:
        """Return ``doc_id``, ``title`` or ``text`` of all documents."""
        if name == "doc_id":
            return pa.chunked_array([self.doc_ids.to_arrow()])
        return pa.chunked_array([batch.column(name) for batch in self.batches], _schema({}).field(name).type)

    def metadata_column(self, name: str, kind: str) -> pa.ChunkedArray:
        """Return a metadata field as a column of the index's type; all null where the segment has not seen it."""
        wanted, chunks = metadata.ARROW_TYPES[kind], []
        for batch in self.batches:
            struct = batch.column(2)
            at = struct.type.get_field_index(name)
            chunks.append(pa.nulls(batch.num_rows, wanted) if at < 0 else metadata.cast(struct.field(at), kind))
        return pa.chunked_array(chunks, wanted)
