"""DSPy: a retriever over an index, as a module of programs, as their ``rm``, or as a tool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...index.errors import MissingDependencyError
from ..results import Results
from ..retriever import Filter, Options, Retriever

try:
    import dspy
except ImportError as problem:
    raise MissingDependencyError("dspy", "dspy", "lexmax's DSPy retriever") from problem


class LexmaxRetriever(dspy.Retrieve):
    """Retrieves ``k`` passages from ``index``, a folder or an open `Retriever`; the rest are parameters of its `search`."""

    def __init__(
        self, index: str | Path | Retriever, k: int = 3, *, search: str | None = None, filter: Filter | None = None,
        options: Options | None = None,
    ) -> None:  # fmt: skip
        super().__init__(k=k)
        self.retriever = index if isinstance(index, Retriever) else Retriever.open(index, search=search)
        self._given: dict[str, Any] = {"search": search, "filter": filter, "options": options}

    def found(self, query: str, k: int | None = None) -> Results:
        """Results of the engine."""
        return self.retriever.search(query, self.k if k is None else k, **self._given)

    def forward(self, query: str, k: int | None = None) -> dspy.Prediction:
        """Passages, with their ``doc_ids`` and ``scores``."""
        found = self.found(query, k)
        passages, doc_ids = [each.text for each in found], [each.doc_id for each in found]
        return dspy.Prediction(passages=passages, doc_ids=doc_ids, scores=[each.score for each in found])

    async def aforward(self, query: str, k: int | None = None) -> dspy.Prediction:
        """Do what `forward` does, in a thread of the event loop."""
        return await dspy.asyncify(self.forward)(query, k)


class LexmaxRM(LexmaxRetriever):
    """The same as ``dspy.configure(rm=LexmaxRM(...))`` takes it, for programs with ``dspy.Retrieve``."""

    def forward(self, query: str, k: int | None = None) -> list[Any]:
        """Passages, each with ``long_text``, ``pid`` and ``score``."""
        return [dspy.Prediction(long_text=each.text, pid=each.doc_id, score=each.score) for each in self.found(query, k)]
