"""Indexes that benchmarks write, and the fields that they read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from ...index.documents import Document
from ...index.errors import RepresentationError
from ...index.fields import Field
from ...index.snapshot import Snapshot

FieldT = TypeVar("FieldT", bound=Field[Any])


def without_text(first: int, last: int) -> list[Document]:
    """Documents whose doc_ids are the numbers ``first`` to ``last - 1``."""
    return [Document(doc_id=str(number), text="") for number in range(first, last)]


def only_field(path: Path | str, kind: type[FieldT], what: str) -> FieldT:
    """Open the only field of a kind of an index.

    Raises
    ------
    RepresentationError
        The index has none, or several.
    """
    found = [field for field in Snapshot.open(path).fields.values() if type(field) is kind]
    if len(found) != 1:
        names = ", ".join(field.name for field in found)
        raise RepresentationError(f"{path} has {names or 'no fields'} of {what}: expected one such field")
    return found[0]


def undeleted(field: FieldT) -> FieldT:
    """Return the field; raises RepresentationError where documents of it are deleted."""
    if any(segment.live is not None for segment in field.segments):
        raise RepresentationError(f"{field.path} has deleted documents: run `lexmax compact {field.path}` first")
    return field
