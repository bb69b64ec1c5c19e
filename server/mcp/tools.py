"""The tools of an MCP server over indexes: search, get, explain. Needs the package ``mcp``."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from ...index.errors import LexmaxError
from ...index.nearest import did_you_mean
from ..searching.facts import without_places

if TYPE_CHECKING:
    from ...retrieval.retriever import Retriever

MAX_K, MAX_RANK = 50, 20
MAX_TEXT_CHARS = 2000  # of each result: a model reads all of it
MAX_QUERY_CHARS = 20_000

Query = Annotated[str, Field(min_length=1, max_length=MAX_QUERY_CHARS, description="What to look for, in natural language.")]
IndexName = Annotated[str | None, Field(description="Which index; may be left out where there is one.")]
Expression = Annotated[
    str | None,
    Field(description="A search expression over fields, as `(bm25 + splade) > colbert`; by default the index's own."),
]


class Tools:
    """What the tools do, over open retrievers by name."""

    def __init__(self, retrievers: "Mapping[str, Retriever]") -> None:
        self._retrievers = retrievers

    def search(
        self, query: str, index: str | None, k: int, search: str | None, filter: str | None
    ) -> dict[str, Any]:  # fmt: skip
        """Search; texts are cut."""
        results = self._fresh(index).search(query, k, search=search, filter=filter)
        found = [
            {
                "doc_id": each.doc_id, "score": each.score, "title": each.title, "text": each.text[:MAX_TEXT_CHARS],
                "cut": len(each.text) > MAX_TEXT_CHARS, "metadata": dict(each.metadata),
            }
            for each in results
        ]  # fmt: skip
        return {"results": found}

    def get(self, doc_id: str, index: str | None) -> dict[str, Any]:
        """Return a whole document."""
        document = self._fresh(index).document(doc_id)
        if document is None:
            raise ToolError(f"there is no document {doc_id[:200]!r}: search gives ids")
        return asdict(document)

    def explain(self, query: str, doc_id: str, index: str | None, search: str | None) -> dict[str, Any]:
        """Explain the rank of a document, stage by stage."""
        retriever = self._fresh(index)
        ids = [each.doc_id for each in retriever.search(query, MAX_RANK, search=search)]
        if doc_id not in ids:
            raise ToolError(f"{doc_id[:200]!r} is not among the {MAX_RANK} best of this query, which are explained")
        rank = ids.index(doc_id) + 1
        explained = retriever.search(query, rank, search=search, explain=True)[rank - 1]
        if explained.doc_id != doc_id or explained.explanation is None:
            raise ToolError("the index has changed meanwhile: ask again")
        return {"doc_id": doc_id, "rank": rank, "explanation": asdict(explained.explanation)}

    def facts(self) -> str:
        """Say what is searched, for the server's instructions."""
        told = []
        for name, retriever in self._retrievers.items():
            facts = without_places(retriever.info())
            kept = ", ".join(f"{field} ({kind})" for field, kind in facts["metadata_fields"].items()) or "none"
            told.append(
                f"{name}: {facts['n_docs']} documents; fields {', '.join(retriever.fields)}; default search "
                f'{retriever.default_search}; metadata for filters such as `year >= 2020 and lang == "en"`: {kept}'
            )
        return "Indexes:\n" + "\n".join(told)

    def _fresh(self, index: str | None) -> "Retriever":
        """The newest commit of an index."""
        names = list(self._retrievers)
        chosen = names[0] if index is None and len(names) == 1 else index
        if chosen is None or chosen not in self._retrievers:
            near = "" if chosen is None else did_you_mean(chosen[:100], names)
            raise ToolError(f"name one of the indexes {', '.join(names)}{near}")
        retriever = self._retrievers[chosen]
        retriever.reload()
        return retriever


def mcp_server(retrievers: "Mapping[str, Retriever]") -> MCPServer:
    """Return an MCP server whose tools search open retrievers, which stay the caller's.

    Parameters
    ----------
    retrievers : mapping of str to Retriever
        By the names that tools take.
    """
    tools = Tools(retrievers)
    server = MCPServer("lexmax", instructions=tools.facts(), version=version("lexmax"))

    @server.tool()
    async def search(
        query: Query, index: IndexName = None, k: Annotated[int, Field(ge=1, le=MAX_K)] = 5, search: Expression = None,
        filter: Annotated[str | None, Field(description="A condition on metadata, as `year >= 2020`.")] = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Find the documents that answer a query best: ids, scores, titles, texts (long ones cut) and metadata."""
        return await _told(tools.search, query, index, k, search, filter)

    @server.tool()
    async def get(doc_id: str, index: IndexName = None) -> dict[str, Any]:
        """Read a whole document by the id that search gave."""
        return await _told(tools.get, doc_id, index)

    @server.tool()
    async def explain(query: Query, doc_id: str, index: IndexName = None, search: Expression = None) -> dict[str, Any]:
        """Tell why a document was found for a query: which terms or tokens gave which part of its score, at each stage."""
        return await _told(tools.explain, query, doc_id, index, search)

    return server


async def _told(work: Any, *arguments: Any) -> dict[str, Any]:
    """Run work in a thread; what is wrong with its arguments is told to the model."""
    try:
        found: dict[str, Any] = await asyncio.to_thread(work, *arguments)
    except (LexmaxError, ValueError) as error:
        raise ToolError(str(error)) from None
    return found
