"""Documents: what a user adds and gets back, kept in Arrow.

A segment's documents are Arrow IPC messages, record batches of title, text and a metadata struct, inside an array file, so that
they are memory-mapped and checksummed like everything else; the doc_ids are a string table beside it. Arrays of
``documents.lex``::

    arrow (total,) u8 messages end to end | batches (B, 2) i64 rows of each, and where it ends
    types u8 JSON: metadata field -> type, as the segment was written
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from . import metadata
from .array_files import ArrayFile, ArrayFileWriter
from .arrays import is_indptr
from .errors import IndexFormatError
from .preludes import ADVICE
from .strings import StringTable

KIND = "documents"
BATCH_ROWS = 1024
"""A batch is what is verified at once: some hundred KiB of passages."""


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

    def __post_init__(self) -> None:
        strings = isinstance(self.doc_id, str) and isinstance(self.text, str) and isinstance(self.title, str)
        if not strings or not (type(self.metadata) is dict or isinstance(self.metadata, Mapping)):
            given = [f"{name} {type(getattr(self, name)).__name__}" for name in ("doc_id", "text", "title", "metadata")]
            raise TypeError(f"doc_id, text and title of a document are strings, metadata is a mapping; not {', '.join(given)}")

    @property
    def content(self) -> str:
        """What encoders see: the title and the text joined by a space."""
        return content_of(self.title, self.text)


def content_of(title: str, text: str) -> str:
    """Join a title and a text by a space; either may be empty."""
    return f"{title} {text}" if title and text else title or text


def conform(batches: Iterable[pa.RecordBatch], fields: Mapping[str, str]) -> Iterator[pa.RecordBatch]:
    """Bring every batch's metadata to the types in ``fields``, so that all have one schema."""
    schema = _schema(fields)
    for batch in batches:
        columns = [batch.column(0), batch.column(1), _conform(batch.column(2), schema.field("metadata").type, fields)]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def write_batches(folder: Path, batches: Iterable[pa.RecordBatch], fields: Mapping[str, str]) -> None:
    """Write ``documents.lex`` from batches of the schema that `conform` gives."""
    spans: list[tuple[int, int]] = []
    with ArrayFileWriter(folder / "documents.lex", KIND) as out:
        with out.stream("arrow") as sink:
            for batch in batches:
                if batch.num_rows:
                    sink.write(batch.serialize())
                    spans.append((batch.num_rows, sink.n_bytes))  # of the file's first array
        out.add("batches", np.array(spans, np.int64).reshape(-1, 2))
        with out.stream("types") as sink:
            sink.write(json.dumps(dict(fields)).encode())


def _schema(fields: Mapping[str, str]) -> pa.Schema:
    kind = pa.struct([(name, metadata.ARROW_TYPES[field_type]) for name, field_type in fields.items()])
    columns = [("title", pa.string()), ("text", pa.large_string()), ("metadata", kind)]
    return pa.schema(columns)


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

    Columns of a batch are verified and validated when they are first read.

    Attributes
    ----------
    doc_ids : StringTable
    file : ArrayFile
    fields : dict of str to str
        Metadata field -> type, as the segment was written.

    Raises
    ------
    IndexFormatError
        Damaged files, or as many doc_ids as there are not documents. All methods that read documents raise it too.
    """

    def __init__(self, folder: Path) -> None:
        self.doc_ids = StringTable.open(folder / "doc_ids.lex")
        self.file = file = ArrayFile(folder / "documents.lex", KIND)
        self.fields = _types(file)
        self._schema = _schema(self.fields)
        self._arrow = file.unverified("arrow", "uint8", (None,))
        n_rows, ends = file.array("batches", "int64", (None, 2)).T
        file.require(bool(np.all(n_rows > 0)) and is_indptr(np.append(0, ends), len(self._arrow)), "batches side by side")
        self._firsts: list[int] = [0, *accumulate(n_rows.tolist())]
        self._starts: list[int] = [0, *ends.tolist()]
        file.require(self._firsts[-1] == len(self.doc_ids), f"{len(self.doc_ids)} documents", self._firsts[-1])
        self._batches: dict[int, pa.RecordBatch] = {}
        self._columns: dict[tuple[int, str, str | None], pa.Array] = {}
        self._whole: dict[int, tuple[pa.Array, pa.Array, pa.Array]] = {}

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
        number = bisect_right(self._firsts, position) - 1
        titles, texts, rows = self._whole.get(number) or self._read(number)
        row = position - self._firsts[number]
        try:
            values = metadata.from_row(self.fields, rows[row].as_py()) if self.fields else {}
        except (ValueError, RecursionError) as failure:
            raise self._malformed(number, failure) from failure
        return Document(
            doc_id=self.doc_ids[position], title=titles[row].as_py(), text=texts[row].as_py(), metadata=values
        )  # fmt: skip

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All documents, as batches of title, text and metadata of the types in ``fields``."""
        for number in range(len(self._firsts) - 1):
            self._read(number)
            yield self._batches[number]

    def check(self, types: Mapping[str, str]) -> None:
        """Read everything; ``types`` are those of metadata fields in the whole index.

        Raises
        ------
        IndexFormatError
            Damage, or metadata of a type that the index does not say.
        """
        self.file.verify()
        self.file.require(set(self.fields) <= set(types), f"metadata fields among {sorted(types)}", sorted(self.fields))
        for number in range(len(self._firsts) - 1):
            self._read(number)
            try:
                for name, kind in self.fields.items():
                    metadata.cast(self._column(number, "metadata", name), types[name])
                    if kind == "json":
                        for text in self._column(number, "metadata", name).drop_null().to_pylist():
                            json.loads(text)
            except (pa.ArrowException, ValueError, RecursionError) as failure:
                raise self._malformed(number, failure) from failure

    def column(self, name: str) -> pa.ChunkedArray:
        """Return ``doc_id``, ``title`` or ``text`` of all documents."""
        if name == "doc_id":
            return pa.chunked_array([self.doc_ids.to_arrow()])
        chunks = [self._column(number, name) for number in range(len(self._firsts) - 1)]
        return pa.chunked_array(chunks, self._schema.field(name).type)

    def metadata_column(self, name: str, kind: str) -> pa.ChunkedArray:
        """Return a metadata field as a column of the index's type; all null where the segment has not seen it."""
        wanted = metadata.ARROW_TYPES[kind]
        if name not in self.fields:
            return pa.chunked_array([pa.nulls(len(self), wanted)])
        numbers = range(len(self._firsts) - 1)
        return pa.chunked_array([metadata.cast(self._column(n, "metadata", name), kind) for n in numbers], wanted)

    def _read(self, number: int) -> tuple[pa.Array, pa.Array, pa.Array]:
        """Titles, texts and metadata of a batch, all verified."""
        for name in self.fields:
            self._column(number, "metadata", name)
        titles, texts = self._column(number, "title"), self._column(number, "text")
        whole = self._whole[number] = titles, texts, self._batches[number].column("metadata")
        return whole

    def _column(self, number: int, name: str, child: str | None = None) -> pa.Array:
        """A column of a batch, or a field of its metadata, verified and validated."""
        key = (number, name, child)
        if key not in self._columns:
            if number not in self._batches:
                self._batches[number] = self._message(number)
            column = self._batches[number].column(name)
            if child is not None:
                column = column.field(child)
            try:
                for buffer in column.buffers():
                    if buffer is not None and buffer.size:
                        self.file.verify_memory(buffer.address, buffer.size)
                column.validate(full=True)
            except (pa.ArrowInvalid, IndexFormatError) as failure:
                raise self._malformed(number, failure) from failure
            if child is None and column.null_count:
                raise self._malformed(number, f"no {name}")
            self._columns[key] = column
        return self._columns[key]

    def _message(self, number: int) -> pa.RecordBatch:
        """Map a batch; its head is verified, and its columns are not."""
        message = self._arrow[self._starts[number] : self._starts[number + 1]]
        try:
            self.file.verify(message[:8])  # a mark, and the length of the head
            self.file.verify(message[: 8 + int.from_bytes(message[4:8].tobytes(), "little")])
            batch = pa.ipc.read_record_batch(pa.py_buffer(message), self._schema)
        except (pa.ArrowException, OSError, IndexFormatError) as failure:
            raise self._malformed(number, failure) from failure
        if batch.num_rows != self._firsts[number + 1] - self._firsts[number]:
            raise self._malformed(number, f"{batch.num_rows} of them")
        return batch

    def _malformed(self, number: int, found: object) -> IndexFormatError:
        documents = f"documents {self._firsts[number]} to {self._firsts[number + 1] - 1} of the segment"
        if isinstance(found, IndexFormatError):
            documents, found = f"{documents}, which have {found.expected}", found.found
        return IndexFormatError(self.file.path, expected=documents, found=found, advice=ADVICE)


def _types(file: ArrayFile) -> dict[str, str]:
    """Read the types of metadata fields."""
    try:
        types = json.loads(file.array("types", "uint8", (None,)).tobytes())
    except (ValueError, RecursionError) as failure:
        raise IndexFormatError(file.path, expected="types of metadata fields", found=failure, advice=ADVICE) from failure
    known = isinstance(types, dict) and all(isinstance(t, str) and t in metadata.ARROW_TYPES for t in types.values())
    file.require(known, "types of metadata fields", types)
    return dict(types)
