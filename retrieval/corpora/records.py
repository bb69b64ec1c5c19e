"""From records (mappings of any file format) to documents: which keys hold what, and which values are kept."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from ...index.documents import Document

ID_KEYS = ("_id", "id", "docid", "doc_id", "document_id")
TEXT_KEYS = ("text", "contents", "content", "body", "passage", "abstract")
TITLE_KEYS = ("title",)
"""Keys that are recognised when the user names none, in order of preference."""


@dataclass(frozen=True, kw_only=True)
class Fields:
    """Which keys or columns of a record hold what; None: recognised from the first record.

    Attributes
    ----------
    id : str or None
        The document's id, a string or an integer. Recognised: the first of `ID_KEYS` that is there.
    title, text : tuple of str, or None
        Joined by a space in this order; absent and null ones are skipped. Recognised: ``title``; the first of `TEXT_KEYS`.
    metadata : tuple of str or None
        Keys to keep as metadata, from the record or from its ``metadata`` object, whatever their type. None keeps the whole
        ``metadata`` object, and each other key of the record but lists of anything else than strings, such as vectors.
    """

    id: str | None = None
    title: tuple[str, ...] | None = None
    text: tuple[str, ...] | None = None
    metadata: tuple[str, ...] | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Fields:
        """Restore what `dataclasses.asdict` gave, also after JSON has made lists of tuples."""
        restored: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return cls(**restored)

    @cached_property
    def named(self) -> frozenset[str]:
        """Keys with a meaning of their own, which are not metadata."""
        return self.plain | {"metadata"}

    @cached_property
    def plain(self) -> frozenset[str]:
        """Keys of the id, the title and the text."""
        return frozenset((self.id or ID_KEYS[0], *(self.title or ()), *(self.text or ())))


BEIR = Fields(id="_id", title=("title",), text=("text",))


class BadRecord(NamedTuple):
    """Where a record was left out (line or row, from 1), and why."""

    path: str
    line: int
    reason: str


@dataclass
class BadRecords:
    """Collects malformed records, so that reading continues after them.

    Attributes
    ----------
    n_records : int
        How many were left out.
    examples : list of BadRecord
        The first ``max_examples`` of them.
    """

    max_examples: int = 20
    n_records: int = 0
    examples: list[BadRecord] = field(default_factory=list)

    def add(self, path: str, line: int, reason: str) -> None:
        """Count one record, and remember it when it is among the first."""
        self.n_records += 1
        if len(self.examples) < self.max_examples:
            self.examples.append(BadRecord(path, line, reason))


def recognised(keys: Iterable[str], candidates: Sequence[str]) -> list[str]:
    """Return the candidates that are among ``keys``, the preferred one first."""
    there = set(keys)
    return [name for name in candidates if name in there]


def resolve(fields: Fields, keys: Sequence[str], *, flags: bool = True) -> tuple[Fields, str]:
    """Choose keys for what ``fields`` leaves open.

    Parameters
    ----------
    fields : Fields
    keys : sequence of str
        Keys of the first record or columns of the table.
    flags : bool
        Errors name options of the command line.

    Returns
    -------
    resolved : Fields
        ``text`` stays None where a record has a title only: a later record decides.
    choice : str
        What was chosen, to be told to the user; empty for BEIR's keys and for keys that the user named.

    Raises
    ------
    ValueError
        There is no id, or neither title nor text.
    """
    told, worth = [], False
    name, title, text = fields.id, fields.title, fields.text
    if name is None:
        found = recognised(keys, ID_KEYS)
        if not found:
            raise ValueError(_unknown("id", "id", ID_KEYS, keys, flags))
        name = found[0]
        told.append(_told("id", found))
        worth |= found != ["_id"]
    if title is None:
        title = TITLE_KEYS
    if text is None:
        found = recognised(keys, TEXT_KEYS)
        if found:
            text = (found[0],)
            told.append(_told("text", found))
            worth |= found != ["text"]
        elif not any(key in title for key in keys):
            raise ValueError(_unknown("text", "text", TEXT_KEYS, keys, flags))
    return replace(fields, id=name, title=title, text=text), ", ".join(told) if worth else ""


def _told(what: str, found: Sequence[str]) -> str:
    others = f" (not {', '.join(map(repr, found[1:]))})" if len(found) > 1 else ""
    return f"{what} from {found[0]!r}{others}"


def _unknown(what: str, option: str, candidates: Sequence[str], keys: Sequence[str], flags: bool) -> str:
    there = ", ".join(repr(key)[:40] for key in list(keys)[:12]) or "nothing"
    hint = f"--{option}-field" if flags else f"Fields({option}=...)"
    return f"no {what}: none of {', '.join(map(repr, candidates))} is there, only {there}; name the key with {hint}"


def id_of(record: Mapping[str, Any], name: str) -> str:
    """Return the id under a key; raises ValueError unless it is a string or an integer."""
    found = record.get(name)
    if type(found) is not str or not found:
        found = as_id(found)
    if found is None:
        shown = "nothing" if record.get(name) is None else repr(record[name])[:40]
        raise ValueError(f"{name!r} must be a string or an integer as id, found {shown}")
    return found


def as_id(value: object) -> str | None:
    """Return an id as a string; None for what is no id, such as true and the empty string."""
    if type(value) is int:  # not bool
        return str(value)
    return value if isinstance(value, str) and value else None


def to_document(record: Mapping[str, Any], fields: Fields, left_out: set[str] | None = None) -> Document:
    """Make a document of a record; raises ValueError with the reason when it is malformed.

    Keys that are not kept as metadata because of their type are added to ``left_out``.
    """
    doc_id = id_of(record, fields.id or ID_KEYS[0])
    title, text = _joined(record, fields.title), _joined(record, fields.text)
    if title is None and text is None:
        keys = (fields.title or ()) + (fields.text or ())
        raise ValueError(f"no text: none of the keys {', '.join(map(repr, keys))} is there")
    return Document(doc_id=doc_id, title=title or "", text=text or "", metadata=_metadata(record, fields, left_out))


def _joined(record: Mapping[str, Any], names: tuple[str, ...] | None) -> str | None:
    joined = None
    for name in names or ():
        value = record.get(name)
        if value is None:
            continue
        if not isinstance(value, str):
            raise ValueError(f"{name!r} must be a string, found {repr(value)[:40]}")
        joined = f"{joined} {value}" if joined else value
    return joined


def _metadata(record: Mapping[str, Any], fields: Fields, left_out: set[str] | None) -> dict[str, Any]:
    inner = record.get("metadata") or {}
    if not isinstance(inner, dict):
        raise ValueError(f"'metadata' must be an object, found {repr(inner)[:40]}")
    if fields.metadata is None:
        named, chosen = fields.named, {}
        for key, value in record.items():
            if value is None or key in named:
                continue
            if _kept(value):
                chosen[key] = value
            elif left_out is not None:
                left_out.add(key)
        chosen.update(inner)
    else:
        chosen = {name: record.get(name, inner.get(name)) for name in fields.metadata}
    for name, value in chosen.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"metadata {name!r} is {value}: use null for what is unknown")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError(f"metadata {name!r} is an integer beyond 64 bits: write it as a string")
    return {name: value for name, value in chosen.items() if value is not None} if chosen else chosen


def _kept(value: Any) -> bool:
    if isinstance(value, str | int | float | dict):  # bool is an int
        return True
    return isinstance(value, list) and all(item is None or isinstance(item, str) for item in value)
