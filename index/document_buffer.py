"""Documents on their way into an index: column by column, which takes a fraction of the time of one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa

from . import metadata
from .documents import BATCH_ROWS, Document, conform, content_of, write_batches
from .errors import DatasetError
from .strings import StringTable, packed

MAX_DOCUMENT_ID_BYTES = 1024
BATCH_CHARS = 1 << 28
"""Arrow's strings of one batch have at most 2 GiB, and a character up to four bytes."""
Metadata = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class DocumentColumns(Sequence[Document]):
    """Documents as columns of equal length; as a sequence it makes a `Document` of each row that is asked for.

    Attributes
    ----------
    doc_ids, titles, texts : list of str
    metadata : list of mapping, or None
        None: no document has any.
    """

    doc_ids: list[str]
    titles: list[str]
    texts: list[str]
    metadata: list[Metadata] | None = None

    @classmethod
    def of(cls, documents: Sequence[Document]) -> DocumentColumns:
        """Take documents apart; raises TypeError for what is none."""
        if isinstance(documents, DocumentColumns):
            return documents
        for document in documents:
            if not isinstance(document, Document):
                raise TypeError(f"a Document is expected, not {type(document).__name__}")
        rows = [document.metadata for document in documents]
        return cls(
            [document.doc_id for document in documents], [document.title for document in documents],
            [document.text for document in documents], rows if any(rows) else None,
        )  # fmt: skip

    @classmethod
    def joined(cls, parts: Sequence[DocumentColumns]) -> DocumentColumns:
        """Put the documents of all parts one after the other."""
        if len(parts) == 1:
            return parts[0]
        columns = DocumentColumns([], [], [], [] if any(part.metadata for part in parts) else None)
        for part in parts:
            columns.doc_ids.extend(part.doc_ids)
            columns.titles.extend(part.titles)
            columns.texts.extend(part.texts)
            if columns.metadata is not None:
                columns.metadata.extend(part.metadata or [{}] * len(part))
        return columns

    def __len__(self) -> int:
        return len(self.doc_ids)

    @overload
    def __getitem__(self, at: int) -> Document: ...
    @overload
    def __getitem__(self, at: slice) -> DocumentColumns: ...
    def __getitem__(self, at: int | slice) -> Document | DocumentColumns:
        """Return one document, or the columns of some."""
        rows = self.metadata
        if isinstance(at, slice):
            return DocumentColumns(self.doc_ids[at], self.titles[at], self.texts[at], None if rows is None else rows[at])
        found = {} if rows is None else rows[at]
        return Document(doc_id=self.doc_ids[at], title=self.titles[at], text=self.texts[at], metadata=found)

    def __iter__(self) -> Iterator[Document]:
        return map(self.__getitem__, range(len(self)))

    @property
    def contents(self) -> list[str]:
        """What encoders see of each document."""
        return list(map(content_of, self.titles, self.texts)) if any(self.titles) else self.texts

    @property
    def n_chars(self) -> int:
        """About how many characters the documents have, without their doc_ids."""
        n = sum(map(len, self.titles)) + sum(map(len, self.texts))
        return n if self.metadata is None else n + sum(map(metadata.n_chars, filter(None, self.metadata)))

    def check(self) -> None:
        """Raise DatasetError for what could not be stored: an id that is empty or overlong, or what is no Unicode text."""
        for doc_id in self.doc_ids:
            if not 0 < len(doc_id) <= MAX_DOCUMENT_ID_BYTES or not (
                doc_id.isascii() or len(doc_id.encode(errors="surrogatepass")) <= MAX_DOCUMENT_ID_BYTES
            ):
                raise DatasetError(f"doc_id {doc_id[:40]!r} must have 1 to {MAX_DOCUMENT_ID_BYTES} bytes")
        for name, column in (("doc_id", self.doc_ids), ("title", self.titles), ("text", self.texts)):
            for number in _not_ascii(column):
                try:
                    metadata.check_text(column[number])
                except ValueError as problem:
                    raise DatasetError(f"document {self.doc_ids[number]!r}: the {name} holds {problem}") from None


def _not_ascii(column: list[str]) -> Iterable[int]:
    """Positions of strings that are not plain ASCII."""
    plain = list(map(str.isascii, column))
    return () if all(plain) else compress(range(len(column)), map(False.__eq__, plain))


class DocumentBuffer:
    """Documents that wait to be written; full batches are kept in Arrow, which is a third of the size of Python strings."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.fields = dict(fields)
        self.doc_ids: list[str] = []
        self._batches: list[pa.RecordBatch] = []
        self._waiting: list[DocumentColumns] = []
        self._n_packed = self._n_chars = self._n_rows = 0

    def __len__(self) -> int:
        return len(self.doc_ids)

    def extend(self, documents: Sequence[Document], fields: dict[str, str]) -> None:
        """Add documents; ``fields`` are the metadata types after them."""
        self.fields = fields
        columns = DocumentColumns.of(documents)
        self.doc_ids += columns.doc_ids
        at = 0
        while at < len(columns):
            some = columns[at : at + BATCH_ROWS - self._n_rows]
            if self._n_chars + some.n_chars >= BATCH_CHARS and len(some) > 1:
                some = some[:1]
            self._waiting.append(some)
            self._n_chars += some.n_chars
            self._n_rows += len(some)
            at += len(some)
            if self._n_rows == BATCH_ROWS or self._n_chars >= BATCH_CHARS:
                self._pack()

    @property
    def n_bytes(self) -> int:
        """About how much memory the documents take."""
        return self._n_packed + self._n_chars

    def _pack(self) -> None:
        rows = DocumentColumns.joined(self._waiting)
        columns = [
            _strings(rows.titles, pa.string()),
            _strings(rows.texts, pa.large_string()),
            metadata.to_struct(self.fields, rows.metadata or [{}] * len(rows)),
        ]
        self._batches.append(pa.RecordBatch.from_arrays(columns, names=["title", "text", "metadata"]))
        self._n_packed += self._batches[-1].nbytes
        self._waiting, self._n_chars, self._n_rows = [], 0, 0

    def write(self, folder: Path) -> None:
        """Write ``doc_ids.lex`` and ``documents.lex`` into ``folder``."""
        if self._waiting:
            self._pack()
        StringTable.of(self.doc_ids).write(folder / "doc_ids.lex")
        write_batches(folder, conform(self._batches, self.fields), self.fields)


def _strings(column: list[str], kind: pa.DataType) -> pa.Array:
    """Make an Arrow column of strings. `pyarrow.array` takes longer, and imports pandas where it is installed."""
    characters, offsets = packed(column)
    if kind == pa.string():
        offsets = offsets.astype(np.int32)
    return pa.Array.from_buffers(kind, len(column), [None, pa.py_buffer(offsets), pa.py_buffer(characters)])
