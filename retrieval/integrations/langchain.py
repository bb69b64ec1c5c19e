"""LangChain: a retriever over an index, and a vector store that keeps its documents in one.

Filters are filter trees, which have the operators of LangChain's own stores (``{"year": {"$gte": 2015}}``), or expressions.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...index.documents import Document
from ...index.errors import MissingDependencyError, RepresentationError
from ..results import Result
from ..retriever import Filter, Options, Retriever
from .embeddings import EmbeddingEncoder, model_name
from .filters import of_metadata
from .metadata import kept, shown
from .store import EMBEDDING, IndexStore

try:
    from langchain_core import documents as langchain
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.vectorstores import VectorStore
    from langchain_core.vectorstores.utils import maximal_marginal_relevance
    from pydantic import ConfigDict, PrivateAttr
except ImportError as problem:
    raise MissingDependencyError("langchain-core", "langchain", "lexmax's LangChain retriever") from problem


class LexmaxRetriever(BaseRetriever):
    """Retrieves ``k`` documents from ``index``, a folder or an open `Retriever`; the other fields are those of its `search`."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    index: str | Path | Retriever
    k: int = 10
    search: str | None = None
    filter: Filter | None = None
    options: Options | None = None
    _retriever: Retriever = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Open the index."""
        super().model_post_init(context)
        self._retriever = self.index if isinstance(self.index, Retriever) else Retriever.open(self.index, search=self.search)

    def _get_relevant_documents(
        self, query: str, *, run_manager: Any, k: int | None = None, filter: Filter | None = None
    ) -> list[langchain.Document]:
        found = self._retriever.search(
            query, self.k if k is None else k, search=self.search, filter=self.filter if filter is None else filter,
            options=self.options,
        )  # fmt: skip
        return [_document(each, relevance_score=each.score) for each in found]


class LexmaxVectorStore(VectorStore):
    """A vector store in an index folder, with a field of BM25 and, given an ``embedding``, one of its vectors.

    ``encoders`` names other fields than BM25, ``search`` another default search than their fusion; see `store.IndexStore`.
    """

    def __init__(
        self, embedding: Embeddings | None = None, path: Path | str | None = None, *, encoders: Any = None,
        search: str | None = None,
    ) -> None:  # fmt: skip
        fields: Any = encoders
        if embedding is not None:
            dense = EmbeddingEncoder(embedding.embed_documents, lambda texts: [embedding.embed_query(each) for each in texts],
                                     name=model_name(embedding))  # fmt: skip
            fields = {**(encoders or {"bm25": "bm25"}), EMBEDDING: dense}
        self.store, self._embedding = IndexStore(path, encoders=fields, search=search), embedding

    @property
    def embeddings(self) -> Embeddings | None:
        """The embedding model, if there is one."""
        return self._embedding

    @classmethod
    def from_texts(cls, texts: list[str], embedding: Embeddings | None = None, metadatas: list[dict[str, Any]] | None = None,
                   *, ids: list[str] | None = None, **keywords: Any) -> LexmaxVectorStore:  # fmt: skip
        """Make a store of texts; the other keywords are the constructor's."""
        store = cls(embedding, **keywords)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    def add_documents(self, documents: list[langchain.Document], *, ids: Sequence[str | None] | None = None) -> list[str]:
        """Add documents in one commit, or replace those of the same id; returns the ids."""
        given = [each.id for each in documents] if ids is None else list(ids)
        if len(given) != len(documents):
            raise ValueError(f"{len(documents)} documents with {len(given)} ids")
        names = [each or str(uuid.uuid4()) for each in given]
        rows = {name: kept(name, each.page_content, each.metadata) for name, each in zip(names, documents, strict=True)}
        self.store.write(list(rows.values()), replace=True)
        return names

    def delete(self, ids: list[str] | None = None) -> bool:
        """Delete documents by id, or all; ids that are not there are passed over."""
        self.store.delete([each.doc_id for each in self.store.matching()] if ids is None else ids)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[langchain.Document]:
        """Documents that are there, in the order of ``ids``."""
        return [_document(each) for each in self.store.get(ids) if each is not None]

    def similarity_search_with_score(
        self, query: str, k: int = 4, *, filter: Filter | None = None, search: str | None = None
    ) -> list[tuple[langchain.Document, float]]:
        """Best documents with their scores, which are those of the search expression."""
        found = self.store.search(query, k, filter=of_metadata(filter), search=search)
        return [(_document(each), each.score) for each in found]

    def similarity_search(self, query: str, k: int = 4, **keywords: Any) -> list[langchain.Document]:
        """Best documents; keywords are those of `similarity_search_with_score`."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **keywords)]

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, *, filter: Filter | None = None
    ) -> list[langchain.Document]:
        """Documents whose embeddings have the largest inner product with a vector."""
        found = self.store.search("", k, vector=np.array(embedding), filter=of_metadata(filter), search=EMBEDDING)
        return [_document(each) for each in found]

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, *, filter: Filter | None = None
    ) -> list[langchain.Document]:
        """Choose ``k`` of ``fetch_k`` found documents that are relevant and differ from each other, by their embeddings."""
        if self._embedding is None:
            raise RepresentationError("maximal marginal relevance compares embeddings: give the store an embedding model")
        found = self.store.search(query, fetch_k, filter=of_metadata(filter))
        vectors = self.store.vectors([each.doc_id for each in found]) if found else np.empty((0, 1), np.float32)
        asked = np.array(self._embedding.embed_query(query), np.float32)
        return [_document(found[i]) for i in maximal_marginal_relevance(asked, list(vectors), lambda_mult, k)]

    def _select_relevance_score_fn(self) -> Any:
        raise RepresentationError("scores of searches are not within 0..1: use similarity_search_with_score")


def _document(found: Result | Document, **more: Any) -> langchain.Document:
    return langchain.Document(id=found.doc_id, page_content=found.text, metadata={**shown(found), **more})
