"""Haystack: components that retrieve from a `LexmaxDocumentStore`, by texts and by embeddings."""

from __future__ import annotations

from typing import Any

from ...index.errors import MissingDependencyError
from .store import EMBEDDING

try:
    from haystack import component, default_to_dict
    from haystack.dataclasses import Document
    from haystack.document_stores.types import FilterPolicy
    from haystack.document_stores.types.filter_policy import apply_filter_policy
except ImportError as problem:
    raise MissingDependencyError("haystack-ai", "haystack", "lexmax's Haystack retrievers") from problem

from .haystack import LexmaxDocumentStore
from .haystack_metadata import Filters


class _Retriever:
    def __init__(
        self, document_store: LexmaxDocumentStore, *, search: str | None = None, filters: Filters | None = None,
        top_k: int = 10, filter_policy: str | FilterPolicy = FilterPolicy.REPLACE,
    ) -> None:  # fmt: skip
        if not isinstance(document_store, LexmaxDocumentStore):
            raise TypeError(f"document_store is a LexmaxDocumentStore, not {type(document_store).__name__}")
        self.document_store, self.search, self.filters, self.top_k = document_store, search, filters, top_k
        self.filter_policy = filter_policy if isinstance(filter_policy, FilterPolicy) else FilterPolicy.from_str(filter_policy)

    def to_dict(self) -> dict[str, Any]:
        """Return what makes this component again."""
        given = {"search": self.search, "filters": self.filters, "top_k": self.top_k, "filter_policy": self.filter_policy.value}
        return default_to_dict(self, document_store=self.document_store.to_dict(), **given)  # type: ignore[no-any-return]

    def _found(self, query: str, filters: Filters | None, top_k: int | None, embedding: list[float] | None = None) -> Any:
        chosen = apply_filter_policy(self.filter_policy, self.filters, filters)
        k = self.top_k if top_k is None else top_k
        return {"documents": self.document_store.retrieve(query, k, chosen, self.search, embedding)}


@component
class LexmaxTextRetriever(_Retriever):
    """Retrieves by the query's text; ``search`` is an expression, None: the store's."""

    @component.output_types(documents=list[Document])
    def run(self, query: str, filters: Filters | None = None, top_k: int | None = None) -> dict[str, Any]:
        """Find documents."""
        return self._found(query, filters, top_k)  # type: ignore[no-any-return]


@component
class LexmaxEmbeddingRetriever(_Retriever):
    """Retrieves by the query's embedding or, with a ``search`` such as ``bm25 + embedding``, by its text too."""

    def __init__(self, document_store: LexmaxDocumentStore, *, search: str = EMBEDDING, **keywords: Any) -> None:
        _Retriever.__init__(self, document_store, search=search, **keywords)  # `component` makes the class anew

    @component.output_types(documents=list[Document])
    def run(
        self, query_embedding: list[float], query: str = "", filters: Filters | None = None, top_k: int | None = None
    ) -> dict[str, Any]:
        """Find documents."""
        return self._found(query, filters, top_k, query_embedding)  # type: ignore[no-any-return]
