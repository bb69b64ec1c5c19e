"""Documents of frameworks, which have a text and metadata, as documents of an index. Those of others may have a title."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...index.documents import Document
from ...index.errors import DatasetError
from ..corpora.tables import json_row
from ..results import Result


def kept(doc_id: str, text: str, metadata: Mapping[str, Any]) -> Document:
    """Make a document; dates become ISO texts, numpy's numbers Python's.

    Raises
    ------
    DatasetError
        Metadata that an index cannot keep.
    """
    try:
        values = json_row(metadata)
    except ValueError as problem:
        raise DatasetError(f"document {doc_id!r}: metadata: {problem}") from None
    return Document(doc_id=doc_id, text=text, metadata=values)


def shown(found: Result | Document) -> dict[str, Any]:
    """Return metadata with the title."""
    return {**({"title": found.title} if found.title else {}), **found.metadata}
