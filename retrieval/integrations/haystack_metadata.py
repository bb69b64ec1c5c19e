"""Haystack: what a document store tells of its metadata."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from ...index.documents import Document
from .store import IndexStore

Filters = dict[str, Any]
HAS_EMBEDDING = "_has_embedding"
"""Metadata field of stores with embeddings: whether a document came with one. It is shown to nobody."""


class MetadataFacts(ABC):
    """Methods of a document store that count and list metadata values; names may begin with ``meta.``."""

    index: IndexStore

    @abstractmethod
    def matching(self, filters: Filters | None) -> list[Document]:
        """Documents of the index that match."""

    def count_unique_metadata_by_filter(self, filters: Filters | None, metadata_fields: Sequence[str]) -> dict[str, int]:
        """Number of different values of each field, of the documents that match."""
        return {_name(field): len(self._values(field, filters)) for field in metadata_fields}

    def get_metadata_fields_info(self) -> dict[str, dict[str, str]]:
        """Type of each field: bool, int64, bigint, float64, string, list<string>, json or empty."""
        fields = {} if self.index.retriever is None else self.index.retriever.snapshot.manifest.metadata
        return {name: {"type": kind} for name, kind in fields.items() if name != HAS_EMBEDDING}

    def get_metadata_field_min_max(self, metadata_field: str) -> dict[str, Any]:
        """Least and largest value of a field of numbers, or of texts in the order of their code points; None without any."""
        values = self._values(metadata_field, None)
        return {"min": min(values, default=None), "max": max(values, default=None)}

    def get_metadata_field_unique_values(
        self, metadata_field: str, search_term: str | None = None, from_: int = 0, size: int | None = 10,
        filters: Filters | None = None,
    ) -> tuple[list[Any], int]:  # fmt: skip
        """Return ``size`` values in order, from the one numbered ``from_``, and how many there are.

        Parameters
        ----------
        search_term : str or None
            Letters that a value has, in either case; None: all values.
        """
        term = (search_term or "").lower()
        values = sorted(value for value in self._values(metadata_field, filters) if term in str(value).lower())
        return values[from_ : None if size is None else from_ + size], len(values)

    def _values(self, field: str, filters: Filters | None) -> set[Any]:
        """Different values of a field; those inside lists, of a field of lists."""
        found: set[Any] = set()
        for document in self.matching(filters):
            value = document.metadata.get(_name(field))
            found.update(value if isinstance(value, list) else [] if value is None or isinstance(value, dict) else [value])
        return found


def _name(field: str) -> str:
    return field.removeprefix("meta.")
