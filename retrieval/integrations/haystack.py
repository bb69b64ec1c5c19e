"""Haystack: a document store in an index folder. Its retrievers are `haystack_retrievers`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from ...index import documents as lexmax
from ...index import errors
from ...index.arrays import Floats
from ...index.errors import DatasetError, MissingDependencyError
from ..results import Result
from .filters import Tree, tree_of_haystack
from .haystack_metadata import HAS_EMBEDDING, Filters, MetadataFacts
from .metadata import kept, shown
from .store import EMBEDDING, IndexStore

try:
    from haystack import default_from_dict, default_to_dict
    from haystack.dataclasses import Document
    from haystack.document_stores.errors import DuplicateDocumentError
    from haystack.document_stores.types import DuplicatePolicy
    from haystack.errors import FilterError
except ImportError as problem:
    raise MissingDependencyError("haystack-ai", "haystack", "lexmax's Haystack document store") from problem


class LexmaxDocumentStore(MetadataFacts):
    """Documents in the index folder ``path``, None: a temporary one.

    ``encoders`` make its fields of the texts; None: the default ones. With an ``embedding_dim`` there is a field of their
    embeddings too, and BM25 is the only other one unless ``encoders`` are given; documents may lack them.
    """

    def __init__(
        self, path: str | None = None, *, encoders: Sequence[str] | None = None, search: str | None = None,
        embedding_dim: int | None = None,
    ) -> None:  # fmt: skip
        self._settings: dict[str, Any] = {"path": path, "encoders": encoders, "search": search, "embedding_dim": embedding_dim}
        self._dim = embedding_dim
        self.index = IndexStore(path, encoders=encoders, search=search, embedded=embedding_dim is not None)

    def to_dict(self) -> dict[str, Any]:
        """Return what makes this store again: its folder and settings."""
        return default_to_dict(self, **self._settings)  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> LexmaxDocumentStore:
        """Open the store that `to_dict` described."""
        return default_from_dict(cls, data)  # type: ignore[no-any-return]

    def count_documents(self) -> int:
        """Number of documents."""
        return len(self.index)

    def filter_documents(self, filters: Filters | None = None) -> list[Document]:
        """Documents that match; raises FilterError for a filter that is malformed or does not fit the metadata."""
        found = self.matching(filters)
        vectors = self.index.vectors([each.doc_id for each in found]) if self._dim and found else [None] * len(found)
        return [_document(each, vector) for each, vector in zip(found, vectors, strict=True)]

    def matching(self, filters: Filters | None) -> list[lexmax.Document]:
        """Documents of the index that match; errors are those of `filter_documents`."""
        with _haystack_errors():
            return self.index.matching(_tree(filters))

    def write_documents(self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE) -> int:
        """Add documents in one commit; returns how many. Without a policy, duplicates are an error."""
        if not isinstance(documents, list) or not all(isinstance(each, Document) for each in documents):
            raise ValueError("documents are a list of Haystack's Documents")
        if policy == DuplicatePolicy.SKIP:
            unique = {each.id: each for each in reversed(documents)}
            known = {each.doc_id for each in self.index.get(list(unique)) if each is not None}
            documents = [each for each in reversed(unique.values()) if each.id not in known]
        rows, vectors = [self._kept(each) for each in documents], None
        if self._dim and documents:
            vectors = np.array([each.embedding or np.zeros(self._dim) for each in documents], np.float32)
        with _haystack_errors():
            self.index.write(rows, vectors, replace=policy == DuplicatePolicy.OVERWRITE)
        return len(documents)

    def delete_documents(self, document_ids: list[str]) -> None:
        """Delete documents; ids that are not there are passed over."""
        self.index.delete(document_ids)

    def delete_all_documents(self) -> None:
        """Delete all documents."""
        self.delete_by_filter(None)

    def delete_by_filter(self, filters: Filters | None) -> int:
        """Delete the documents that match; returns how many."""
        found = [each.id for each in self.filter_documents(filters)]
        self.index.delete(found)
        return len(found)

    def update_by_filter(self, filters: Filters, meta: dict[str, Any]) -> int:
        """Set metadata of the documents that match, in one commit; returns how many."""
        found = [replace(each, meta={**each.meta, **meta}) for each in self.filter_documents(filters)]
        return self.write_documents(found, DuplicatePolicy.OVERWRITE)

    def count_documents_by_filter(self, filters: Filters) -> int:
        """Number of documents that match."""
        return len(self.filter_documents(filters))

    def retrieve(
        self, query: str, top_k: int, filters: Filters | None, search: str | None, embedding: list[float] | None = None
    ) -> list[Document]:
        """Best documents with their scores; where ``search`` is of embeddings, of the documents that have one."""
        tree = _tree(filters)
        if embedding is not None and search == EMBEDDING:
            tree = {"and": [{HAS_EMBEDDING: True}, *([tree] if tree else [])]}
        vector = None if embedding is None else np.array(embedding, np.float32)
        with _haystack_errors():
            found = self.index.search(query, top_k, vector=vector, filter=tree, search=search)
        return [replace(_document(each), score=each.score) for each in found]

    def _kept(self, document: Document) -> lexmax.Document:
        if document.content is None or document.blob is not None:
            raise DatasetError(f"document {document.id!r}: it has no text, or data beside it, which an index cannot keep")
        if document.sparse_embedding is not None or (document.embedding is not None and not self._dim):
            raise DatasetError(
                f"document {document.id!r}: it has an embedding, and the store no field for it: give the store "
                "embedding_dim=..., and sparse encoders as encoders=[...]"
            )
        flag = {HAS_EMBEDDING: document.embedding is not None} if self._dim else {}
        return kept(document.id, document.content, {**document.meta, **flag})


def _in_thread(name: str) -> Callable[..., Any]:
    async def call(self: LexmaxDocumentStore, *args: Any, **keywords: Any) -> Any:
        return await asyncio.to_thread(getattr(self, name), *args, **keywords)

    call.__doc__ = f"Do what `{name}` does, in a thread of the event loop."
    return call


for _name in [each for each in dir(LexmaxDocumentStore) if "documents" in each or "filter" in each or "metadata" in each]:
    setattr(LexmaxDocumentStore, f"{_name}_async", _in_thread(_name))


@contextmanager
def _haystack_errors() -> Iterator[None]:
    """Raise Haystack's errors where it has some."""
    try:
        yield
    except errors.FilterError as problem:
        raise FilterError(str(problem)) from problem
    except errors.DuplicateDocumentError as problem:
        raise DuplicateDocumentError(str(problem)) from problem


def _tree(filters: Filters | None) -> Tree | None:
    with _haystack_errors():
        return tree_of_haystack(filters) if filters else None


def _document(found: Result | lexmax.Document, vector: Floats | None = None) -> Document:
    meta = shown(found)
    has_embedding = meta.pop(HAS_EMBEDDING, False)
    return Document(
        id=found.doc_id,
        content=found.text,
        meta=meta,
        embedding=vector.tolist() if has_embedding and vector is not None else None,
    )
