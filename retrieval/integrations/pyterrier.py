"""PyTerrier: an index as an artifact, which makes transformers of its search expressions. No Java is needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ...index.errors import MissingDependencyError
from ..build import build_index
from ..retriever import Filter, Options, Retriever

try:
    import pandas as pd
    import pyterrier as pt
except ImportError as problem:
    raise MissingDependencyError("pyterrier", "pyterrier", "lexmax's PyTerrier index") from problem

TEXTS = ("text", "title")


class LexmaxIndex(pt.Artifact):
    """An index folder; `indexer` makes it, `retriever` and `text_loader` read it."""

    ARTIFACT_TYPE, ARTIFACT_FORMAT = "sparse_index", "lexmax"

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._retriever: Retriever | None = None

    @property
    def engine(self) -> Retriever:
        """The open index."""
        if self._retriever is None:
            self._retriever = Retriever.open(self.path)
        return self._retriever

    def indexer(self, *, encoders: Any = None, search: str | None = None) -> LexmaxIndexer:
        """Return an indexer; the parameters are those of `build_index`."""
        return LexmaxIndexer(self, encoders=encoders, search=search)

    def retriever(
        self, search: str | None = None, *, num_results: int = 1000, filter: Filter | None = None,
        options: Options | None = None, texts: bool = False,
    ) -> LexmaxRetriever:  # fmt: skip
        """Return a transformer that answers queries by a search expression; ``texts`` adds the columns title and text."""
        return LexmaxRetriever(self, search, num_results, {"filter": filter, "options": options}, texts)

    def text_loader(self) -> LexmaxTextLoader:
        """Return a transformer that adds the columns title and text to documents."""
        return LexmaxTextLoader(self)


class LexmaxIndexer(pt.Indexer):
    """Builds an index of dicts with a ``docno``, a text and metadata."""

    def __init__(self, index: LexmaxIndex, **settings: Any) -> None:
        self.target, self._settings = index, settings

    def index_inputs(self) -> list[list[str]]:
        """Columns of documents."""
        return [["docno", "text"]]

    def index(self, documents: Iterable[Mapping[str, Any]]) -> LexmaxIndex:
        """Build the index; raises FileExistsError where there is one, DatasetError for malformed documents."""
        rows = ({"id" if name == "docno" else name: value for name, value in each.items()} for each in documents)
        build_index(documents=rows, out=self.target.path, **self._settings)
        return self.target


class LexmaxRetriever(pt.Transformer):
    """Queries -> ranked documents."""

    def __init__(self, index: LexmaxIndex, search: str | None, num_results: int, given: Mapping[str, Any], texts: bool) -> None:
        self.target, self._search, self.num_results, self._given, self._texts = index, search, num_results, given, texts

    def __repr__(self) -> str:
        return "Lexmax"

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Answer the queries of a frame with ``qid`` and ``query``: docno, score and rank (from 0) of each document."""
        pt.validate.query_frame(inp, ["query"], context=self)
        search = self.target.engine.search_batch if self._texts else self.target.engine.rank
        queries = inp.drop_duplicates("qid")
        found: list[Any] = (
            search(list(queries["query"]), self.num_results, search=self._search, **self._given) if len(queries) else []
        )
        columns = [*queries.columns, "docno", "score", "rank", *(TEXTS if self._texts else ())]
        rows = [(*query, *_row(each, rank)) for query, ranking in zip(queries.itertuples(index=False), found, strict=True)
                for rank, each in enumerate(ranking)]  # fmt: skip
        return pd.DataFrame(rows, columns=columns).astype({"score": "float64", "rank": "int64"})


class LexmaxTextLoader(pt.Transformer):
    """Documents -> documents with title and text."""

    def __init__(self, index: LexmaxIndex) -> None:
        self.target = index

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Add the columns to a frame with ``docno``; raises KeyError for a document that is not in the index."""
        pt.validate.columns(inp, includes=["docno"], context=self)
        documents = dict(zip(inp["docno"], self.target.engine.documents(list(inp["docno"])), strict=True))
        missing = next((name for name, each in documents.items() if each is None), None)
        if missing is not None:
            raise KeyError(f"{self.target.path}: there is no document {missing!r}")
        return inp.assign(**{text: [getattr(documents[name], text) for name in inp["docno"]] for text in TEXTS})


def _row(found: Any, rank: int) -> tuple[Any, ...]:
    if isinstance(found, tuple):
        return (*found, rank)
    return (found.doc_id, found.score, rank, found.text, found.title)
