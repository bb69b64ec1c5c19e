"""The retriever: text in, documents out. What Python programs, the server and the evaluation use."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from ..index import manifest as manifests
from ..index.documents import Document
from ..index.representations import SparseVectors
from ..index.snapshot import Snapshot
from .encoders.base import Encoder
from .encoders.precomputed import VectorsEncoder
from .encoders.registry import check_encoder, encoder_of
from .explain import Explanation, explain
from .hits import Hits
from .searchers.blockmax import BlockMaxSearcher, SearchOptions
from .searchers.exhaustive import ExhaustiveSearcher
from .searchers.queries import IntegerQuery, prepare
from .vectors import to_sparse_vectors

SEARCHERS = ("blockmax", "exhaustive")
Searcher = BlockMaxSearcher | ExhaustiveSearcher


@dataclass(frozen=True, kw_only=True)
class Result:
    """One answer.

    Attributes
    ----------
    doc_id : str
    score : float
    title, text : str
    metadata : mapping
    explanation : Explanation or None
        Given when asked for.
    """

    doc_id: str
    score: float
    title: str
    text: str
    metadata: Mapping[str, Any]
    explanation: Explanation | None = None


class Retriever:
    """Answers queries from one index; make one with `open`. Safe to use from many threads; a context manager."""

    def __init__(self, snapshot: Snapshot, encoder: Encoder, *, searcher: str = "blockmax") -> None:
        if searcher not in SEARCHERS:
            raise ValueError(f"searcher must be one of {', '.join(SEARCHERS)}, not {searcher!r}")
        check_encoder(snapshot.manifest.encoder, encoder)
        self.encoder, self._kind = encoder, searcher
        self._reload_lock = threading.Lock()
        self._current: Searcher | None
        self._use(snapshot)

    @classmethod
    def open(
        cls, path: Path | str, *, encoder: Encoder | None = None, model: str | None = None, device: str = "cpu",
        searcher: str = "blockmax", verify: bool | None = None, warm: bool = False,
    ) -> Retriever:  # fmt: skip
        """Open the newest commit of an index and its encoder.

        Parameters
        ----------
        path : Path or str
            The index folder.
        encoder : Encoder or None
            An encoder at hand; None: the index's own is loaded.
        model : str or None
            Where the encoder's model is now, when it has moved.
        device : str
            Where a model runs.
        searcher : "blockmax" or "exhaustive"
            Same answers; the second is the slow oracle.
        verify : bool or None
            See `Snapshot.open`.
        warm : bool
            Load the kernels and the model now, not at the first query.

        Raises
        ------
        IndexNotFoundError, IndexFormatError
            No index there, or a damaged one.
        EncoderMismatchError
            The encoder is not the one that made the index.
        """
        snapshot = Snapshot.open(path, verify=verify)
        record = snapshot.manifest.encoder
        if encoder is None:
            overrides = {} if record.kind == "bm25" else {"device": device}
            encoder = encoder_of(record, model=model, **overrides)
        retriever = cls(snapshot, encoder, searcher=searcher)
        if warm:
            retriever.warm()
        return retriever

    def search(
        self, text: str, k: int = 10, *, filter: str | None = None, explain: bool = False, alpha: float = 1.0,
        beta: float = 1.0,
    ) -> list[Result]:  # fmt: skip
        """Answer one query; see `search_batch`."""
        return self.search_batch([text], k, filter=filter, explain=explain, alpha=alpha, beta=beta)[0]

    def search_batch(
        self, texts: Sequence[str], k: int = 10, *, filter: str | None = None, explain: bool = False,
        alpha: float = 1.0, beta: float = 1.0, n_threads: int | None = None,
    ) -> list[list[Result]]:  # fmt: skip
        """Answer queries, best documents first.

        Parameters
        ----------
        texts : sequence of str
        k : int
            Answers a query; fewer only when fewer documents match.
        filter : str or None
            An expression over metadata, such as ``year >= 2015 and lang == "en"``; see `index.filters`.
        explain : bool
            Say which terms gave which part of each score.
        alpha, beta : float in (0, 1]
            1: exact. Less: faster and approximate; see `SearchOptions`.
        n_threads : int or None
            Queries searched in parallel; None: one for each core.

        Raises
        ------
        ValueError
            k < 1, alpha or beta out of range, or a malformed filter.
        """
        return self.search_vectors(
            self.encode(texts),
            texts,
            k,
            filter=filter,
            explain=explain,
            alpha=alpha,
            beta=beta,
            n_threads=n_threads,
        )

    def encode(self, texts: Sequence[str]) -> SparseVectors:
        """Encode queries, to be searched by `search_vectors`."""
        return self.encoder.encode_queries(texts)

    def search_vectors(
        self, queries: object, texts: Sequence[str] | None = None, k: int = 10, *, filter: str | None = None,
        explain: bool = False, alpha: float = 1.0, beta: float = 1.0, n_threads: int | None = 1,
    ) -> list[list[Result]]:  # fmt: skip
        """Answer queries that are vectors already: encoded ones, or whatever `vectors.to_sparse_vectors` takes.

        ``texts`` are what they were made from, which explanations compare with; None: nothing is known of it. The other
        parameters are those of `search_batch`.

        Raises
        ------
        TypeError, RepresentationError
            As `to_sparse_vectors`, or terms named otherwise than the index names them.
        ValueError
            Not as many texts as queries; or as `search_batch`.
        """
        searcher = self._searching()
        snapshot = searcher.snapshot
        vectors = snapshot.query_vectors(to_sparse_vectors(queries))
        texts = [""] * len(vectors) if texts is None else texts
        if len(texts) != len(vectors):
            raise ValueError(f"{len(vectors)} queries with {len(texts)} texts")
        hits = _search(searcher, vectors, k, filter, SearchOptions(alpha=alpha, beta=beta), n_threads)
        answers = []
        for number, text in enumerate(texts):
            doc_nums, scores = hits.query(number)
            documents = snapshot.get_many(doc_nums.tolist())
            results = [_result(document, score) for document, score in zip(documents, scores.tolist(), strict=True)]
            if explain:
                query = prepare(snapshot, vectors, number, beta)
                results = self._explained(results, snapshot, query, text, doc_nums.tolist())
            answers.append(results)
        return answers

    def rank(
        self, texts: Sequence[str], k: int = 10, *, filter: str | None = None, alpha: float = 1.0, beta: float = 1.0,
        n_threads: int | None = None,
    ) -> list[list[tuple[str, float]]]:  # fmt: skip
        """(doc_id, score) of the k best documents of each query, without reading their texts."""
        searcher = self._searching()
        snapshot = searcher.snapshot
        vectors = snapshot.query_vectors(self.encode(texts))
        hits = _search(searcher, vectors, k, filter, SearchOptions(alpha=alpha, beta=beta), n_threads)
        rankings = []
        for number in range(len(hits)):
            doc_nums, scores = hits.query(number)
            rankings.append(list(zip(snapshot.doc_ids(doc_nums.tolist()), scores.tolist(), strict=True)))
        return rankings

    def document(self, doc_id: str) -> Document | None:
        """Return a live document by its doc_id, None when there is none."""
        snapshot = self._searching().snapshot
        doc_num = int(snapshot.find([doc_id])[0])
        return snapshot.get_many([doc_num])[0] if doc_num >= 0 else None

    def info(self) -> dict[str, Any]:
        """Facts about the index, ready for JSON."""
        return self._searching().snapshot.info()

    @property
    def fingerprint(self) -> str:
        """The encoder's fingerprint."""
        return self.encoder.fingerprint

    @property
    def generation(self) -> int:
        """Number of the commit that is searched."""
        return self._searching().snapshot.generation

    def __len__(self) -> int:
        return self._searching().snapshot.n_docs

    def reload(self) -> bool:
        """Go on with the newest commit, if there is one; running searches end on the old one.

        Raises
        ------
        EncoderMismatchError
            The index was built anew with another encoder; the old snapshot stays in use.
        """
        with self._reload_lock:
            current = self._searching().snapshot
            newest = manifests.read(current.path)
            if newest.generation == current.generation and newest == current.manifest:
                return False
            check_encoder(newest.encoder, self.encoder)
            self._use(Snapshot.open(current.path))
            return True

    def warm(self) -> None:
        """Load kernels and model now, so that the first query is as fast as the next."""
        searcher = self._searching()
        if isinstance(searcher, BlockMaxSearcher):
            searcher.warm()
        if not isinstance(self.encoder, VectorsEncoder):
            self.search("warm up", 1)

    def close(self) -> None:
        """Let go of the index; memory maps go once running searches have ended."""
        self._current = None

    def __enter__(self) -> Retriever:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _use(self, snapshot: Snapshot) -> None:
        """Search this snapshot from now on; one assignment, so that no thread sees half of it."""
        self._current = BlockMaxSearcher(snapshot) if self._kind == "blockmax" else ExhaustiveSearcher(snapshot)

    def _searching(self) -> Searcher:
        current = self._current
        if current is None:
            raise ValueError("the retriever is closed")
        return current

    def _explained(
        self, results: list[Result], snapshot: Snapshot, query: IntegerQuery, text: str, doc_nums: list[int]
    ) -> list[Result]:
        explained = []
        for result, doc_num in zip(results, doc_nums, strict=True):
            content = Document(doc_id=result.doc_id, title=result.title, text=result.text).content
            explanation = explain(snapshot, self.encoder, query, text, doc_num, content)
            explained.append(replace(result, explanation=explanation))
        return explained


def _search(
    searcher: Searcher,
    vectors: SparseVectors,
    k: int,
    filter: str | None,
    options: SearchOptions,
    n_threads: int | None,
) -> Hits:
    allowed = None if filter is None else searcher.snapshot.masks(filter)
    if isinstance(searcher, ExhaustiveSearcher):
        return searcher.search(vectors, k, allowed)
    return searcher.search(vectors, k, allowed, options, n_threads or os.cpu_count() or 1)


def _result(document: Document, score: float) -> Result:
    return Result(
        doc_id=document.doc_id,
        score=score,
        title=document.title,
        text=document.text,
        metadata=document.metadata,
    )
