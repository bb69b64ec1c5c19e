"""What systems rank for the queries of one collection, and what that costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Literal

from ...index.representations import DenseVectors, QueryNets, SparseVectors, Vectors
from ...retrieval.encoders.shared_pass import SharedPass
from ...retrieval.fields import FieldEncoder
from ...retrieval.retriever import Retriever
from ..evaluate import Ranking, without_query
from ..latency import percentiles_ms
from .corpora import Collection, Workplace, open_index
from .systems import System

DEPTH = 100
"""Documents of a ranking."""
SAMPLE_DOCUMENTS, SAMPLE_QUERIES = 64, 64
"""Texts by which encoding and answering are timed, the first of a collection."""
QUERIES_AT_ONCE = 256

Rankings = list[Ranking]
"""A ranking for each query, in the order of the dataset's."""
Unit = Literal["terms", "tokens", "numbers"]
PER_DOCUMENT: dict[Unit, str] = {"terms": "postings_per_doc", "tokens": "tokens_per_doc", "numbers": "dim"}
"""Unit -> key of a field's facts that tells how many a document has."""


@dataclass(frozen=True, kw_only=True)
class FieldCost:
    """How a field sees a collection.

    Attributes
    ----------
    unit : {"terms", "tokens", "numbers"}
        What texts become: weights of terms, token vectors, or the numbers of one vector.
    per_document, per_query : float
        Units on average; of queries, over the first `SAMPLE_QUERIES`.
    """

    unit: Unit
    per_document: float
    per_query: float


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a collection took.

    Attributes
    ----------
    documents_per_s : float
        Encoding for all fields in one pass, over the first `SAMPLE_DOCUMENTS`.
    fields : mapping of str to FieldCost
    query_ms : mapping of str to float
        System -> median time from text to ranking over the first `SAMPLE_QUERIES`, asked one at a time.
    """

    documents_per_s: float
    fields: Mapping[str, FieldCost] = field(default_factory=dict)
    query_ms: Mapping[str, float] = field(default_factory=dict)


def run_systems(
    systems: Sequence[System], fields: Mapping[str, FieldEncoder], collection: Collection, work: Workplace
) -> tuple[dict[str, Rankings], Costs]:
    """Ask every query of every system; a document whose id is the query's own is left out, as BEIR does.

    Returns
    -------
    rankings : dict of str to list of rankings
        By the names of the systems; `DEPTH` documents per query.
    costs : Costs
    """
    rankings: dict[str, Rankings] = {}
    query_ms: dict[str, float] = {}
    with open_index(fields, collection, work) as retriever:
        field_costs, documents_per_s = _field_costs(retriever, fields, collection)
        for system in systems:
            rank = partial(retriever.rank, k=DEPTH + 1, search=system.search)
            rankings[system.name], query_ms[system.name] = _ask(rank, collection)
    return rankings, Costs(documents_per_s=documents_per_s, fields=field_costs, query_ms=query_ms)


def _ask(rank: Callable[[list[str]], Rankings], collection: Collection) -> tuple[Rankings, float]:
    """Rankings of all queries, and the median time of one."""
    dataset = collection.dataset
    texts = list(dataset.queries.values())
    found: Rankings = []
    for first in range(0, len(texts), QUERIES_AT_ONCE):
        found += rank(texts[first : first + QUERIES_AT_ONCE])
    rankings = [
        without_query(ranking, query_id, dataset.qrels)[:DEPTH]
        for query_id, ranking in zip(dataset.queries, found, strict=True)
    ]
    times_s = []
    for text in texts[:SAMPLE_QUERIES]:
        start = time.perf_counter()
        rank([text])
        times_s.append(time.perf_counter() - start)
    return rankings, percentiles_ms(times_s)["p50"]


def _field_costs(
    retriever: Retriever, fields: Mapping[str, FieldEncoder], collection: Collection
) -> tuple[dict[str, FieldCost], float]:
    """Count what texts become in each field, and time the pass over documents."""
    shared = SharedPass({name: each.encoder for name, each in fields.items()})
    documents = [document.content for document in islice(collection.documents(), SAMPLE_DOCUMENTS)]
    shared.encode_documents(documents[:1])  # reads the weights
    start = time.perf_counter()
    shared.encode_documents(documents)
    documents_s = time.perf_counter() - start
    queries = list(collection.dataset.queries.values())[:SAMPLE_QUERIES]
    info, costs = retriever.info()["fields"], {}
    for name, encoded in shared.encode_queries(queries).items():
        unit, n_units = _units(encoded)
        if info[name]["representation"] == "fde":  # its queries are encoded by the searcher
            unit, n_units = "numbers", info[name]["dim"] * len(queries)
        per_document = info[name][PER_DOCUMENT[unit]]
        costs[name] = FieldCost(unit=unit, per_document=per_document, per_query=n_units / len(queries))
    return costs, len(documents) / documents_s


def _units(encoded: Vectors) -> tuple[Unit, int]:
    """What queries became, and how many of it."""
    if isinstance(encoded, SparseVectors):
        return "terms", encoded.n_postings
    if isinstance(encoded, DenseVectors):
        return "numbers", encoded.vectors.size
    if isinstance(encoded, QueryNets):
        return "numbers", encoded.numbers.size
    return "tokens", encoded.n_tokens
