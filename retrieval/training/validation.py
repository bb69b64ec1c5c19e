"""Measures a student while it trains: every query against every document of a small collection."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ..corpora.reading import read_corpus
from ..encoders.base import Side
from .students.base import Encoded, Student

DOCUMENTS_AT_ONCE = 128


def dev_documents(source: str, qrels: Mapping[str, Mapping[str, int]], limit: int = 0) -> dict[str, str]:
    """Documents to validate on, doc_id -> text, in the corpus's order.

    Parameters
    ----------
    source : str
        As `corpus.read_corpus` takes it.
    qrels : mapping
        query_id -> doc_id -> relevance; the documents judged are always kept.
    limit : int
        Others are drawn, always the same ones, up to so many in all; 0: the whole corpus.

    Raises
    ------
    DatasetError
        As `read_corpus`.
    ValueError
        limit < 0.
    """
    if limit < 0:
        raise ValueError(f"limit is {limit}: it must be >= 0")
    documents = {document.doc_id: document.content for document in read_corpus([source])}
    if not limit or len(documents) <= limit:
        return documents
    judged = {doc_id for relevance in qrels.values() for doc_id in relevance}
    others = [doc_id for doc_id in documents if doc_id not in judged]
    n_drawn = min(len(others), max(0, limit - (len(documents) - len(others))))
    drawn = {others[i] for i in np.random.default_rng(0).choice(len(others), n_drawn, replace=False).tolist()}
    return {doc_id: text for doc_id, text in documents.items() if doc_id in judged or doc_id in drawn}


def ndcg_at_10(
    student: Student, queries: Sequence[str], documents: Sequence[str], judged: Sequence[Mapping[int, float]], *,
    bf16: bool = False,
) -> float:  # fmt: skip
    """Mean nDCG@10 with linear gain, as `eval.measures` has it.

    Parameters
    ----------
    student : Student
    queries, documents : sequence of str
    judged : sequence of mapping of int to float
        For each query: number of a document -> relevance; documents left out are not relevant, and queries without a
        relevance above zero do not count.
    bf16 : bool
        Encode under autocast to bfloat16.

    Raises
    ------
    ValueError
        When no query has a relevant document, or there are not as many judgments as queries.
    """
    if len(judged) != len(queries):
        raise ValueError(f"{len(queries)} queries with {len(judged)} judgments")
    asked = [i for i, relevance in enumerate(judged) if any(gain > 0 for gain in relevance.values())]
    if not asked:
        raise ValueError("no query has a relevant document, so there is nothing to validate on")
    best = best_documents(student, [queries[i] for i in asked], documents, 10, bf16=bf16)
    return sum(_ndcg(ranking, judged[i]) for ranking, i in zip(best, asked, strict=True)) / len(asked)


def best_documents(
    student: Student, queries: Sequence[str], documents: Sequence[str], k: int, *, bf16: bool = False
) -> list[list[int]]:  # fmt: skip
    """Numbers of the ``k`` best documents of each query, best first; of equals the first."""

    def encode(texts: Sequence[str], side: Side) -> Encoded:
        with torch.autocast(student.device.type, torch.bfloat16, enabled=bf16):
            return student.encode(texts, side)

    with torch.no_grad():
        encoded, blocks = encode(queries, "query"), []
        for first in range(0, len(documents), DOCUMENTS_AT_ONCE):
            block = encode(documents[first : first + DOCUMENTS_AT_ONCE], "document")
            blocks.append(student.scores(encoded, block, in_batch=True))
        order = torch.cat(blocks, 1).argsort(dim=1, descending=True, stable=True)
    return [row[:k].tolist() for row in order]


def _ndcg(ranking: Sequence[int], relevance: Mapping[int, float]) -> float:
    ideal = sorted((gain for gain in relevance.values() if gain > 0), reverse=True)[:10]
    return _dcg([max(0.0, relevance.get(document, 0.0)) for document in ranking]) / _dcg(ideal)


def _dcg(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))
