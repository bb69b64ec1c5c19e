"""Typed metadata: each field has one type in the whole index, fixed when it is first seen.

Types are ``bool``, ``int64``, ``bigint``, ``float64``, ``string``, ``list<string>`` and ``json`` (anything nested: kept, not
filterable). A ``bigint`` is an int64 field with values that a float64 cannot hold. An int64 field widens to float64 and to
bigint; any other disagreement is an error that names document and field. Nulls and empty lists fix no type.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from .errors import DatasetError

ARROW_TYPES: dict[str, pa.DataType] = {
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
_WIDENS = {("int64", "float64"), ("int64", "bigint"), ("list<string>", "json")}
_FITS = {("float64", "int64"), ("bigint", "int64"), ("json", "list<string>")}


def type_of(value: Any) -> str | None:
    """Return the type of one metadata value; None for a null or an empty list. Raises ValueError for what cannot be kept."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ValueError("an integer beyond 64 bits")
        return "int64" if abs(value) <= MAX_EXACT_INT else "bigint"
    if isinstance(value, float):
        return "float64"
    if isinstance(value, str):
        check_text(value)
        return "string"
    if isinstance(value, list | tuple) and all(item is None or isinstance(item, str) for item in value):
        for item in value:
            check_text(item or "")
        return "list<string>" if any(value) or "" in value else None
    if isinstance(value, list | tuple | dict):
        try:
            check_text(json.dumps(value, ensure_ascii=False))
        except (TypeError, RecursionError) as problem:
            raise ValueError(f"what JSON cannot hold ({problem})") from None
        return "json"
    raise ValueError(f"a value of type {type(value).__name__}")


def check_text(text: str) -> None:
    """Raise ValueError for half of a surrogate pair, which UTF-8 cannot hold."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("half of a surrogate pair, which is no Unicode text") from None


def extend_fields(fields: dict[str, str], doc_id: str, metadata: Mapping[str, Any]) -> None:
    """Add the types of one document's metadata to ``fields`` in place.

    Raises
    ------
    DatasetError
        A value's type disagrees with the field's type; ``fields`` is then unchanged.
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
        if found is None or found == known or (known, found) in _FITS:
            continue
        if known is not None and (known, found) not in _WIDENS:
            raise DatasetError(f"document {doc_id!r}: metadata field {name!r} is {found} here and {known} in earlier documents")
        new[name] = found
    fields.update(new)


def to_struct(fields: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> pa.StructArray:
    """Turn metadata rows into one Arrow struct column with a child for each field; absent values are null."""
    children = []
    for name, kind in fields.items():
        values = [row.get(name) for row in rows]
        if kind in ("bool", "int64", "bigint", "float64", "string"):  # an empty list where the field holds scalars
            values = [None if isinstance(value, list | tuple) else value for value in values]
        if kind == "json":
            values = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
        elif kind == "float64":
            values = [None if value is None else float(value) for value in values]
        children.append(pa.array(values, ARROW_TYPES[kind]))
    if not children:
        return pa.StructArray.from_buffers(pa.struct([]), len(rows), [None])
    return pa.StructArray.from_arrays(children, names=list(fields))


def from_row(fields: Mapping[str, str], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return one document's metadata as the user gave it, without nulls."""
    kept = {name: value for name, value in row.items() if value is not None}
    return {name: json.loads(value) if fields.get(name) == "json" else value for name, value in kept.items()}
