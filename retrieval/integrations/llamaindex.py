"""LlamaIndex: a retriever over an index, and a vector store that keeps nodes, with their embeddings, in one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...index.errors import MissingDependencyError, RepresentationError
from ..results import Results
from ..retriever import Filter, Options, Retriever
from .embeddings import matrix_of
from .filters import tree_of_query
from .metadata import kept, shown
from .store import EMBEDDING, IndexStore

try:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle, TextNode
    from llama_index.core.vector_stores import types
    from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
except ImportError as problem:
    raise MissingDependencyError("llama-index-core", "llamaindex", "lexmax's LlamaIndex retriever") from problem

UNUSED = ("output_fields", "embedding_field", "mmr_threshold")


class LexmaxRetriever(BaseRetriever):
    """Retrieves ``k`` nodes from ``index``, a folder or an open `Retriever`; the other parameters are those of its `search`."""

    def __init__(
        self, index: str | Path | Retriever, k: int = 10, *, search: str | None = None, filter: Filter | None = None,
        options: Options | None = None, **keywords: Any,
    ) -> None:  # fmt: skip
        super().__init__(**keywords)
        self._retriever = index if isinstance(index, Retriever) else Retriever.open(index, search=search)
        self._given: dict[str, Any] = {"k": k, "search": search, "filter": filter, "options": options}

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = self._retriever.search(query_bundle.query_str, **self._given)
        return [
            NodeWithScore(node=TextNode(id_=each.doc_id, text=each.text, metadata=shown(each)), score=each.score)
            for each in found
        ]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = await self._retriever.asearch(query_bundle.query_str, **self._given)
        return [
            NodeWithScore(node=TextNode(id_=each.doc_id, text=each.text, metadata=shown(each)), score=each.score)
            for each in found
        ]


class LexmaxVectorStore(types.BasePydanticVectorStore):
    """A vector store in an index folder: the nodes' embeddings, and ``encoders`` of their texts (BM25 unless given).

    ``text_search`` is the expression of the modes ``text_search`` and ``sparse``, and what ``hybrid`` fuses with embeddings.
    """

    stores_text: bool = True
    path: str | None = None
    encoders: Any = None
    text_search: str = "bm25"
    _store: IndexStore = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Open the index, if there is one."""
        self._store = IndexStore(self.path, encoders=self.encoders, embedded=True)

    @property
    def client(self) -> IndexStore:
        """The index."""
        return self._store

    def add(self, nodes: Sequence[BaseNode], **keywords: Any) -> list[str]:
        """Add nodes in one commit, or replace those of the same id; returns the ids."""
        texts = [each.get_content(metadata_mode=MetadataMode.NONE) for each in nodes]
        fields = [node_to_metadata_dict(each, remove_text=True) for each in nodes]
        rows = [kept(each.node_id, text, values) for each, text, values in zip(nodes, texts, fields, strict=True)]
        self._store.write(rows, matrix_of([each.get_embedding() for each in nodes]) if nodes else None, replace=True)
        return [each.node_id for each in nodes]

    def delete(self, ref_doc_id: str, **keywords: Any) -> None:
        """Delete the nodes of a document."""
        self._store.delete([each.doc_id for each in self._store.matching({"ref_doc_id": ref_doc_id})])

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: types.MetadataFilters | None = None, **keywords: Any
    ) -> None:
        """Delete nodes by id, by metadata, or by both."""
        self._store.delete([each.node_id for each in self.get_nodes(node_ids, filters)])

    def clear(self) -> None:
        """Delete all nodes."""
        self._store.delete([each.doc_id for each in self._store.matching()])

    def get_nodes(self, node_ids: list[str] | None = None, filters: types.MetadataFilters | None = None) -> list[BaseNode]:
        """Nodes by id, by metadata, or by both; all without either."""
        if node_ids is not None and not node_ids:
            return []  # in a query, no ids are all of them
        return [
            _node(each)
            for each in self._store.matching(tree_of_query(types.VectorStoreQuery(node_ids=node_ids, filters=filters)))
        ]

    def query(self, query: types.VectorStoreQuery, **keywords: Any) -> types.VectorStoreQueryResult:
        """Answer a query in the modes ``default``, ``text_search``, ``sparse``, ``hybrid`` and ``semantic_hybrid``.

        Raises
        ------
        RepresentationError
            Another mode, a setting that there is not, or a query without the text or the embedding that its mode needs.
        FilterError
            A filter that there is not.
        """
        unused = next((name for name in UNUSED if getattr(query, name) is not None), None)
        if unused or keywords:
            raise RepresentationError(f"queries of a lexmax store have no {unused or next(iter(keywords))}")
        search, k = self._search_of(query)
        vector = None if query.query_embedding is None or search == self.text_search else np.array(query.query_embedding)
        found = self._store.search(query.query_str or "", k, vector=vector, filter=tree_of_query(query), search=search)
        ids, scores = [each.doc_id for each in found], [each.score for each in found]
        return types.VectorStoreQueryResult(nodes=[_node(each) for each in found], similarities=scores, ids=ids)

    def _search_of(self, query: types.VectorStoreQuery) -> tuple[str, int]:
        """The search expression of a query, and how many nodes it wants."""
        mode, alpha, k = query.mode.value, query.alpha, query.similarity_top_k
        hybrid = mode in ("hybrid", "semantic_hybrid")
        if not hybrid and mode not in ("default", "text_search", "sparse"):
            raise RepresentationError(f"a lexmax store has no mode {mode!r}: default, text_search, sparse or hybrid")
        if query.query_embedding is None and (hybrid or mode == "default"):
            raise RepresentationError(f"the mode {mode!r} needs an embedding of the query")
        if query.query_str is None and mode != "default":
            raise RepresentationError(f"the mode {mode!r} needs the text of the query")
        if alpha is not None and hybrid and not 0 <= alpha <= 1:
            raise RepresentationError(f"alpha is {alpha}: 0 for the text alone to 1 for embeddings alone")
        if mode == "default" or (hybrid and alpha == 1):
            return EMBEDDING, k
        if not hybrid or alpha == 0:
            return self.text_search, k if hybrid or query.sparse_top_k is None else query.sparse_top_k
        text = f"({self.text_search})" + ("" if query.sparse_top_k is None else f":{query.sparse_top_k}")
        fused = f"{text} + {EMBEDDING}:{k}" if alpha is None else f"{1 - alpha:.6f}*{text} + {alpha:.6f}*{EMBEDDING}:{k}"
        return fused, query.hybrid_top_k or k


def _scored(found: Results) -> list[NodeWithScore]:
    nodes = (TextNode(id_=each.doc_id, text=each.text, metadata=shown(each)) for each in found)
    return [NodeWithScore(node=node, score=each.score) for node, each in zip(nodes, found, strict=True)]


def _node(found: Any) -> BaseNode:
    return metadata_dict_to_node(shown(found), text=found.text)
