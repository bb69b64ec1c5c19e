"""What systems rank for the queries of one collection, and what it costs them.

Systems that encode go first, then those that are made of ready ones, so that rerankings with one encoder encode the documents
of all of them once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, Protocol

import numpy as np

from ...index.arrays import Floats
from ...index.representations.sparse import SparseVectors
from ...retrieval.encoders.base import Vectors
from ...retrieval.encoders.dense import DenseEncoder
from ...retrieval.pipelines.fusion import reciprocal_rank_fusion, weighted_sum
from ..evaluate import Ranking, without_query
from ..latency import percentiles_ms
from .corpora import Collection, Workplace, open_index, open_index_of
from .dense_vectors import open_dense
from .systems import AnyEncoder, EncoderSpec, System, token_encoder

DEPTH = 100
"""Documents of a ranking: what is reranked and fused."""
SAMPLE_DOCUMENTS, SAMPLE_QUERIES = 64, 64
"""Texts by which encoding and answering are timed, the first of a collection."""
QUERIES_AT_ONCE = 256

Rankings = list[Ranking]
"""A ranking for each query, in the order of the dataset's."""
Unit = Literal["terms", "tokens", "numbers"]


class Ranker(Protocol):
    """What answers queries of a system that encodes: `Retriever` and `DenseRanker`."""

    def rank(self, texts: Sequence[str], k: int) -> Rankings:
        """Return (doc_id, score), best first, at most ``k`` for each text."""
        ...

    def info(self) -> dict[str, Any]:
        """Facts about what was indexed."""
        ...


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How an encoder sees a collection.

    Attributes
    ----------
    unit : {"terms", "tokens", "numbers"}
        What texts become: weights of terms, token vectors, or the numbers of one vector.
    per_document, per_query : float
        Units on average; of queries, over the first `SAMPLE_QUERIES`.
    documents_per_s : float
        Encoding alone, over the first `SAMPLE_DOCUMENTS`.
    """

    unit: Unit
    per_document: float
    per_query: float
    documents_per_s: float


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a system takes.

    Attributes
    ----------
    encoding : Encoding or None
        Of its own encoder; None of a fusion.
    documents_per_s : float
        Encoding by all encoders that it is made of, one after the other.
    query_ms : float
        Median time from text to ranking over the first `SAMPLE_QUERIES`, asked one at a time; of rerankings and fusions the
        sum over all stages.
    """

    encoding: Encoding | None
    documents_per_s: float
    query_ms: float


def run_systems(
    systems: Sequence[System], encoders: Mapping[EncoderSpec, AnyEncoder], collection: Collection, work: Workplace
) -> tuple[dict[str, Rankings], dict[str, Cost]]:
    """Ask every query of every system; a document whose id is the query's own is left out, as BEIR does.

    Parameters
    ----------
    encoders : mapping of EncoderSpec to encoder
        See `systems.load_encoders`.

    Returns
    -------
    rankings, costs : dict of str to list of rankings, and of str to Cost
        By the names of all systems, in their order; `DEPTH` documents a query.
    """
    contest = _Contest(encoders, collection, work)
    levels = _levels(systems)
    for level in range(max(levels.values()) + 1):
        here = [system for system in systems if levels[system.name] == level]
        for system in here:
            if system.kind == "encoder":
                contest.rank(system)
        reranks: dict[EncoderSpec | None, list[System]] = {}
        for system in here:
            if system.kind == "rerank":
                reranks.setdefault(system.encoder, []).append(system)
        for group in reranks.values():
            contest.rerank(group)
        for system in here:
            if system.kind == "fusion":
                contest.fuse(system)
    return {system.name: contest.rankings[system.name] for system in systems}, contest.costs(systems)


def _levels(systems: Sequence[System]) -> dict[str, int]:
    """How many rerankings follow one another in each system."""
    levels: dict[str, int] = {}
    for system in systems:
        below = max((levels[part] for part in system.parts), default=0)
        levels[system.name] = below + (system.kind == "rerank")
    return levels


class _Contest:
    """Systems on one collection; what a system is made of is asked before it."""

    def __init__(self, encoders: Mapping[EncoderSpec, AnyEncoder], collection: Collection, work: Workplace) -> None:
        self._encoders, self._collection, self._work = encoders, collection, work
        self._query_ids, self._texts = (list(part) for part in zip(*collection.dataset.queries.items(), strict=True))
        self.rankings: dict[str, Rankings] = {}
        self._encodings: dict[EncoderSpec, Encoding] = {}
        self._own_ms: dict[str, float] = {}

    def rank(self, system: System) -> None:
        """Ask a system that encodes."""
        spec, encoder = self._encoder(system)
        ranker: Ranker
        if isinstance(encoder, DenseEncoder):
            ranker = open_dense(encoder, self._collection, self._work)
        else:
            ranker = open_index(encoder, self._collection, self._work)
        self._measure(spec, encoder, ranker)
        texts, found = self._texts, []
        for first in range(0, len(texts), QUERIES_AT_ONCE):
            found += ranker.rank(texts[first : first + QUERIES_AT_ONCE], DEPTH + 1)
        self.rankings[system.name] = [
            without_query(ranking, query_id, self._collection.dataset.qrels)[:DEPTH]
            for query_id, ranking in zip(self._query_ids, found, strict=True)
        ]
        self._own_ms[system.name] = self._median_ms(lambda i: ranker.rank([texts[i]], DEPTH + 1))

    def rerank(self, group: Sequence[System]) -> None:
        """Order the documents of other systems by one encoder, the same of all systems in the group."""
        spec, encoder = self._encoder(group[0])
        candidates = {system.name: [self._candidates(system, i) for i in range(len(self._texts))] for system in group}
        doc_ids = {doc_id for of_system in candidates.values() for ranking in of_system for doc_id, _ in ranking}
        tokens = token_encoder(encoder, group[0].name)
        with open_index_of(doc_ids, tokens, self._collection, self._work) as second:
            self._measure(spec, encoder, second)
            for system in group:
                of_system = candidates[system.name]
                self.rankings[system.name] = second.rerank(self._texts, of_system, DEPTH)

                def answer(i: int, found: Rankings = of_system) -> object:
                    return second.rerank([self._texts[i]], [found[i]], DEPTH)

                self._own_ms[system.name] = self._median_ms(answer)

    def fuse(self, system: System) -> None:
        """Fuse rankings that are there."""
        fused = []
        for of_query in zip(*(self.rankings[part] for part in system.parts), strict=True):
            if system.weights is None:
                fused.append(reciprocal_rank_fusion(of_query, DEPTH))
            else:
                fused.append(weighted_sum(of_query, DEPTH, weights=system.weights))
        self.rankings[system.name], self._own_ms[system.name] = fused, 0.0

    def costs(self, systems: Sequence[System]) -> dict[str, Cost]:
        """What each system takes; all have been asked."""
        costs: dict[str, Cost] = {}
        specs: dict[str, set[EncoderSpec]] = {}
        for system in systems:
            specs[system.name] = set().union(*(specs[part] for part in system.parts))
            if system.encoder is not None:
                specs[system.name].add(system.encoder)
            costs[system.name] = Cost(
                encoding=None if system.encoder is None else self._encodings[system.encoder],
                documents_per_s=1 / sum(1 / self._encodings[spec].documents_per_s for spec in specs[system.name]),
                query_ms=self._own_ms[system.name] + sum(costs[part].query_ms for part in system.parts),
            )
        return costs

    def _encoder(self, system: System) -> tuple[EncoderSpec, AnyEncoder]:
        spec = system.encoder
        if spec is None:
            raise ValueError(f"{system.name} has no encoder")
        return spec, self._encoders[spec]

    def _candidates(self, system: System, query: int) -> Ranking:
        """Documents of all parts of a system, each once."""
        return list({doc_id: score for part in system.parts for doc_id, score in self.rankings[part][query]}.items())

    def _measure(self, spec: EncoderSpec, encoder: AnyEncoder, ranker: Ranker) -> None:
        """Count what texts become, and time it; once for each encoder."""
        if spec in self._encodings:
            return
        # Spaces make texts that no encoder has met, where encoders share what they made of documents.
        unmet = " " * (1 + len(self._encodings))
        documents = [document.content + unmet for document in islice(self._collection.documents(), SAMPLE_DOCUMENTS)]
        encoder.encode_documents(documents[:1])  # reads the weights
        start = time.perf_counter()
        encoder.encode_documents(documents)
        documents_s = time.perf_counter() - start
        queries = self._texts[:SAMPLE_QUERIES]
        unit, n_units = _units(encoder.encode_queries(queries))
        info = ranker.info()
        self._encodings[spec] = Encoding(
            unit=unit,
            per_document=info[{"terms": "postings_per_doc", "tokens": "tokens_per_doc", "numbers": "dim"}[unit]],
            per_query=n_units / len(queries),
            documents_per_s=len(documents) / documents_s,
        )

    def _median_ms(self, answer: Callable[[int], object]) -> float:
        """Median time of an answer, given the number of its query."""
        times_s = []
        for i in range(min(SAMPLE_QUERIES, len(self._texts))):
            start = time.perf_counter()
            answer(i)
            times_s.append(time.perf_counter() - start)
        return percentiles_ms(times_s)["p50"]


def _units(encoded: Vectors | Floats) -> tuple[Unit, int]:
    """What queries became, and how many of it."""
    if isinstance(encoded, SparseVectors):
        return "terms", encoded.n_postings
    if isinstance(encoded, np.ndarray):
        return "numbers", encoded.size
    return "tokens", encoded.n_tokens
