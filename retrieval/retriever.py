"""The retriever: text in, documents out. What Python programs, the server and the evaluation use."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ..index import manifest as manifests
from ..index.documents import Document
from ..index.errors import RepresentationError
from ..index.snapshot import Snapshot
from .encoders.base import Encoder, Vectors
from .encoders.precomputed import VectorsEncoder
from .encoders.registry import check_encoder, encoder_of
from .explain import Explanation
from .hits import Hits
from .searchers.blockmax import SearchOptions
from .searchers.centroid import CentroidOptions
from .searchers.slim import SlimOptions
from .searching import Searching, SearchPlan, TokenSearching, make_searching


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

    def __init__(self, snapshot: Snapshot, encoder: Encoder, *, plan: SearchPlan | None = None) -> None:
        check_encoder(snapshot.manifest.encoder, encoder)
        self.encoder, self._plan = encoder, plan or SearchPlan()
        self._reload_lock = threading.Lock()
        self._current: Searching | None
        self._use(snapshot)

    @classmethod
    def open(
        cls, path: Path | str, *, encoder: Encoder | None = None, model: str | None = None, device: str = "cpu",
        searcher: str = "auto", centroid: CentroidOptions | None = None, target_recall: float | None = None,
        slim: SlimOptions | None = None, verify: bool | None = None, warm: bool = False,
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
        searcher, centroid, target_recall, slim
            Which searcher answers, and for token vectors how hard it tries; see `SearchPlan`.
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
        RepresentationError, ValueError
            A plan that does not suit the index, or a recall that its calibration does not know.
        """
        snapshot = Snapshot.open(path, verify=verify)
        record = snapshot.manifest.encoder
        if encoder is None:
            overrides = {} if record.kind == "bm25" else {"device": device}
            encoder = encoder_of(record, model=model, **overrides)
        plan = SearchPlan(searcher=searcher, centroid=centroid, target_recall=target_recall, slim=slim)
        retriever = cls(snapshot, encoder, plan=plan)
        if warm:
            retriever.warm()
        return retriever

    def search(
        self, text: str, k: int = 10, *, filter: str | None = None, explain: bool = False, alpha: float = 1.0,
        beta: float = 1.0, mu: float = 1.0,
    ) -> list[Result]:  # fmt: skip
        """Answer one query; see `search_batch`."""
        return self.search_batch([text], k, filter=filter, explain=explain, alpha=alpha, beta=beta, mu=mu)[0]

    def search_batch(
        self, texts: Sequence[str], k: int = 10, *, filter: str | None = None, explain: bool = False,
        alpha: float = 1.0, beta: float = 1.0, mu: float = 1.0, n_threads: int | None = None,
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
            Say which terms, or pairs of tokens, gave which part of each score.
        alpha, beta, mu : float in (0, 1]
            1: exact. Less: faster and approximate; see `SearchOptions`. For sparse vectors alone.
        n_threads : int or None
            Queries searched in parallel; None: one for each core.

        Raises
        ------
        ValueError
            k < 1, alpha, beta or mu out of range, or a malformed filter.
        """
        return self.search_vectors(
            self.encode(texts),
            texts,
            k,
            filter=filter,
            explain=explain,
            alpha=alpha,
            beta=beta,
            mu=mu,
            n_threads=n_threads,
        )

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Encode queries, to be searched by `search_vectors`."""
        return self.encoder.encode_queries(texts)

    def search_vectors(
        self, queries: object, texts: Sequence[str] | None = None, k: int = 10, *, filter: str | None = None,
        explain: bool = False, alpha: float = 1.0, beta: float = 1.0, mu: float = 1.0, n_threads: int | None = 1,
    ) -> list[list[Result]]:  # fmt: skip
        """Answer queries that are vectors already: encoded ones, or whatever `vectors.to_sparse_vectors` takes.

        Queries of token vectors are `MultiVectors`, or a matrix (n_tokens, dim) each.

        ``texts`` are what they were made from, which explanations compare with; None: nothing is known of it. The other
        parameters are those of `search_batch`.

        Raises
        ------
        TypeError, RepresentationError
            As `to_sparse_vectors`, or terms named otherwise than the index names them.
        ValueError
            Not as many texts as queries; or as `search_batch`.
        """
        searching = self._searching()
        snapshot = searching.snapshot
        vectors = searching.vectors(queries)
        texts = [""] * len(vectors) if texts is None else texts
        if len(texts) != len(vectors):
            raise ValueError(f"{len(vectors)} queries with {len(texts)} texts")
        options = SearchOptions(alpha=alpha, beta=beta, mu=mu)
        hits = _search(searching, vectors, k, filter, options, n_threads)
        answers = []
        for number, text in enumerate(texts):
            doc_nums, scores = hits.query(number)
            documents = snapshot.get_many(doc_nums.tolist())
            results = [_result(document, score) for document, score in zip(documents, scores.tolist(), strict=True)]
            if explain:
                for i, doc_num in enumerate(doc_nums.tolist()):
                    content = documents[i].content
                    explanation = _explain(searching, vectors, number, text, doc_num, content, options)
                    results[i] = replace(results[i], explanation=explanation)
            answers.append(results)
        return answers

    def rank(
        self, texts: Sequence[str], k: int = 10, *, filter: str | None = None, alpha: float = 1.0, beta: float = 1.0,
        mu: float = 1.0, n_threads: int | None = None,
    ) -> list[list[tuple[str, float]]]:  # fmt: skip
        """(doc_id, score) of the k best documents of each query, without reading their texts."""
        searching = self._searching()
        snapshot = searching.snapshot
        vectors = searching.vectors(self.encode(texts))
        hits = _search(searching, vectors, k, filter, SearchOptions(alpha=alpha, beta=beta, mu=mu), n_threads)
        rankings = []
        for number in range(len(hits)):
            doc_nums, scores = hits.query(number)
            rankings.append(list(zip(snapshot.doc_ids(doc_nums.tolist()), scores.tolist(), strict=True)))
        return rankings

    def rerank(
        self, texts: Sequence[str], rankings: Sequence[Sequence[tuple[str, float]]], k: int = 10
    ) -> list[list[tuple[str, float]]]:
        """Order the candidates of any first stage by MaxSim with this index's token vectors.

        Parameters
        ----------
        texts : sequence of str
            The queries.
        rankings : sequence of sequences of (doc_id, score)
            Candidates of each query, as another retriever's `rank` gives them.
        k : int
            Answers a query.

        Returns
        -------
        list of lists of (doc_id, score)
            Best first, ties in the order of the index. Candidates that this index does not hold are left out.

        Raises
        ------
        RepresentationError
            The index holds sparse vectors.
        """
        searching = self._searching()
        if not isinstance(searching, TokenSearching):
            raise RepresentationError(f"{searching.snapshot.path}: reranking needs an index of token vectors")
        queries = searching.vectors(self.encode(texts))
        reranked = []
        for number, ranking in enumerate(rankings):
            doc_nums = searching.snapshot.find([doc_id for doc_id, _ in ranking])
            candidates = np.unique(doc_nums[doc_nums >= 0]).astype(np.int32)
            scores = searching.centroid.rerank(queries.row(number), candidates)
            best = np.lexsort((candidates, -scores))[:k]
            ids = searching.snapshot.doc_ids(candidates[best].tolist())
            reranked.append(list(zip(ids, scores[best].tolist(), strict=True)))
        return reranked

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
        self._searching().warm()
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
        self._current = make_searching(snapshot, self.encoder, self._plan)

    def _searching(self) -> Searching:
        current = self._current
        if current is None:
            raise ValueError("the retriever is closed")
        return current


def _search(
    searching: Searching, vectors: Any, k: int, filter: str | None, options: SearchOptions, n_threads: int | None
) -> Hits:
    """Search vectors that ``searching`` itself has made ready."""
    allowed = None if filter is None else searching.snapshot.masks(filter)
    return searching.search(vectors, k, allowed, options, n_threads)


def _explain(
    searching: Searching, vectors: Any, number: int, text: str, doc_num: int, content: str, options: SearchOptions
) -> Explanation:
    """Explain an answer to vectors that ``searching`` itself has made ready."""
    return searching.explain(vectors, number, text, doc_num, content, options)


def _result(document: Document, score: float) -> Result:
    return Result(
        doc_id=document.doc_id,
        score=score,
        title=document.title,
        text=document.text,
        metadata=document.metadata,
    )
