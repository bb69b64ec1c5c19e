"""Typed metadata: each field has one type in the whole index, fixed by its first informative value.

Types are ``bool``, ``int64``, ``bigint``, ``float64``, ``string``, ``list<string>`` and ``json`` (anything nested). A
``bigint`` is an int64 field with values that a float64 cannot hold. An int64 field widens to float64 and to bigint, a list of
strings to json; any other disagreement is an error that names document and field. A null says nothing. An empty list, or one
of nulls, makes a field ``empty``, which becomes whatever comes later; in a field of scalars it is an absent value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import pyarrow as pa

from .errors import DatasetError

ARROW_TYPES: dict[str, pa.DataType] = {
    "empty": pa.list_(pa.string()),
    "bool": pa.bool_(),
    "int64": pa.int64(),
    "bigint": pa.int64(),
    "float64": pa.float64(),
    "string": pa.string(),
    "list<string>": pa.list_(pa.string()),
    "json": pa.string(),
}

MAX_EXACT_INT = 2**53
"""Larger integers are not all float64 numbers."""
MAX_FIELDS = 1000
"""A field costs every document some bytes, so keys that differ from document to document belong into one object."""
MAX_NESTING = 64
MAX_NESTED_INT_BITS = 4096
"""JSON has integers of any size; Python does not read those of more than 4,300 digits."""
_WIDENS = {("int64", "float64"), ("int64", "bigint"), ("list<string>", "json")}
_FITS = {("float64", "int64"), ("bigint", "int64"), ("json", "list<string>")}
_SHOWN = {"bigint": "an integer above 2^53", "list<string>": "a list of strings", "json": "nested"}


def type_of(value: Any) -> str | None:
    """Return the type of one metadata value; None for a null. Raises ValueError for what cannot be kept."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ValueError("an integer beyond 64 bits: write it as a string")
        return "int64" if abs(value) <= MAX_EXACT_INT else "bigint"
    if isinstance(value, float):
        if not isfinite(value):
            raise ValueError(f"{value}, which JSON cannot hold: use null for what is unknown")
        return "float64"
    if isinstance(value, str):
        check_text(value)
        return "string"
    if isinstance(value, list | tuple) and all(item is None or isinstance(item, str) for item in value):
        for item in value:
            check_text(item or "")
        return "list<string>" if any(item is not None for item in value) else "empty"
    if isinstance(value, list | tuple | dict):
        _check_nested(value, 1)
        return "json"
    raise ValueError(f"a value of type {type(value).__name__}, which JSON cannot hold")


def _check_nested(value: Any, nesting: int) -> None:
    if isinstance(value, dict | list | tuple) and nesting > MAX_NESTING:
        raise ValueError(f"more than {MAX_NESTING} lists and objects inside each other")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"an object with the key {key!r}, which is no string")
            check_text(key)
            _check_nested(item, nesting + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_nested(item, nesting + 1)
    elif not isinstance(value, int):
        type_of(value)
    elif value.bit_length() > MAX_NESTED_INT_BITS:
        raise ValueError(f"an integer beyond {MAX_NESTED_INT_BITS} bits: write it as a string")


def check_text(text: str) -> None:
    """Raise ValueError for half of a surrogate pair, which UTF-8 cannot hold."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("half of a surrogate pair, which is no Unicode text") from None


def n_chars(metadata: Mapping[str, Any]) -> int:
    """About how many characters the values have."""
    return sum(len(value) if isinstance(value, str) else 8 if isinstance(value, int | float) else len(str(value))
               for value in metadata.values())  # fmt: skip


def extend_fields(fields: dict[str, str], doc_id: str, metadata: Mapping[str, Any]) -> None:
    """Add the types of one document's metadata to ``fields`` in place.

    Raises
    ------
    DatasetError
        A value's type disagrees with the field's type, or there are more than `MAX_FIELDS`; ``fields`` is then unchanged.
    """
    new: dict[str, str] = {}
    for name, value in metadata.items():
        try:
            found = type_of(value)
            check_text(name)
        except (ValueError, AttributeError) as problem:
            reason = f"holds {problem}" if isinstance(name, str) else "has a name that is no string"
            raise DatasetError(f"document {doc_id!r}: metadata field {name!r} {reason}") from None
        known = fields.get(name)
        if found is None or found == known or (known, found) in _FITS or (known is not None and found == "empty"):
            continue
        if known not in (None, "empty") and (known, found) not in _WIDENS:
            here, before = (_SHOWN.get(kind, kind) for kind in (found, str(known)))
            raise DatasetError(f"document {doc_id!r}: metadata field {name!r} is {here} here and {before} in earlier documents")
        new[name] = found
    added = [name for name in new if name not in fields]
    if added and len(fields) + len(added) > MAX_FIELDS:
        raise DatasetError(
            f"document {doc_id!r}: with {added[-1]!r} there are more than {MAX_FIELDS} metadata fields: put keys that differ "
            'from document to document into one object, as in {"attributes": {...}}, and filter by field("attributes.KEY")'
        )
    fields.update(new)


def joined_fields(parts: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Join the fields of parts of a collection: of each name the type that holds the values of all.

    Raises
    ------
    DatasetError
        A field has types in two parts that no type holds both of.
    """
    joined: dict[str, str] = {}
    for fields in parts:
        for name, found in fields.items():
            known = joined.get(name, "empty")
            if known != "empty" and found not in (known, "empty") and {(known, found), (found, known)}.isdisjoint(_WIDENS):
                raise DatasetError(f"metadata field {name!r} is {found} in one part of the collection and {known} in another")
            if known == "empty" or (known, found) in _WIDENS:
                joined[name] = found
    return joined


def to_struct(fields: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> pa.StructArray:
    """Turn metadata rows into one Arrow struct column with a child for each field; absent values are null."""
    columns: dict[str, list[Any]] = {}
    for number, row in enumerate(rows):
        for name, value in row.items():
            if value is not None:
                if name not in columns:
                    columns[name] = [None] * len(rows)
                columns[name][number] = value
    children = [
        _column(kind, columns[name]) if name in columns else pa.nulls(len(rows), ARROW_TYPES[kind])
        for name, kind in fields.items()
    ]
    if not children:
        return pa.StructArray.from_buffers(pa.struct([]), len(rows), [None])
    return pa.StructArray.from_arrays(children, names=list(fields))


def _column(kind: str, values: list[Any]) -> pa.Array:
    if kind == "json":
        values = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
    elif kind not in ("list<string>", "empty"):
        values = [None if isinstance(value, list | tuple) else value for value in values]  # empty ones
        if kind == "float64":
            values = [None if value is None else float(value) for value in values]
    return pa.array(values, ARROW_TYPES[kind])


def cast(column: pa.Array, kind: str) -> pa.Array:
    """Bring a column, of any type that its field once had, to the type that the field has now."""
    wanted = ARROW_TYPES[kind]
    if column.type == wanted:
        return column
    if pa.types.is_list(column.type):  # strings, where it is json now; else empty lists, where it holds scalars now
        return _column("json", column.to_pylist()) if kind == "json" else pa.nulls(len(column), wanted)
    return column.cast(wanted)


def from_row(fields: Mapping[str, str], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return one document's metadata as the user gave it, without nulls."""
    kept = {name: value for name, value in row.items() if value is not None}
    return {name: json.loads(value) if fields.get(name) == "json" else value for name, value in kept.items()}
