"""What filter plans read: columns of a segment's documents, and values inside nested metadata."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from ..documents import DocumentStore

_ROW_BYTES = 32
_NESTED_ROW_BYTES = 800
_READ_BYTES = 1 << 16


@dataclass(frozen=True)
class FieldRef:
    """What a name in a filter stands for.

    Attributes
    ----------
    name : str
        A metadata field, or with ``own`` a document's own field.
    kind : str or None
        Its type; None where no document has it.
    own : bool
    path : tuple of str
        Keys of the objects inside a json field.
    """

    name: str
    kind: str | None
    own: bool = False
    path: tuple[str, ...] = ()

    def __str__(self) -> str:
        return repr(".".join((self.name, *self.path)))


class Columns:
    """The columns of one segment, made when they are first read."""

    def __init__(self, documents: DocumentStore) -> None:
        self._documents = documents
        self._columns: dict[FieldRef, pa.ChunkedArray] = {}
        self._values: dict[tuple[FieldRef, str | None], list[Any]] = {}

    def __len__(self) -> int:
        return len(self._documents)

    def __getitem__(self, ref: FieldRef) -> pa.ChunkedArray:
        """A field that documents have, as a column of its type."""
        if ref not in self._columns:
            read, kind = self._documents, ref.kind or "empty"
            self._columns[ref] = read.column(ref.name) if ref.own else read.metadata_column(ref.name, kind)
        return self._columns[ref]

    def values(self, ref: FieldRef, kind: str | None = None) -> list[Any]:
        """What a json field holds, or what is at a path inside it: one value per document.

        None where there is nothing, or with ``kind`` nothing of this class (see `class_of`).
        """
        if (ref, kind) not in self._values:
            if kind:
                values = [value if class_of(value) == kind else None for value in self.values(ref)]
            elif ref.path:
                outer = self.values(replace(ref, path=ref.path[:-1]))
                values = [each.get(ref.path[-1]) if isinstance(each, dict) else None for each in outer]
            else:
                values = [None if text is None else json.loads(text) for text in self[ref].to_pylist()]
            self._values[ref, kind] = values
        return self._values[ref, kind]

    def cost(self, ref: FieldRef) -> int:
        """Bytes that one comparison reads; some more for every document and column, which cost time too."""
        if ref.kind == "json":
            return _READ_BYTES + _NESTED_ROW_BYTES * len(self)
        return _READ_BYTES + (_ROW_BYTES * len(self) + self[ref].nbytes if ref.kind else 0)


def class_of(value: Any) -> str | None:
    """Return which values a value can be compared with; None for lists, objects and nulls."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else None
