"""Who is exact: every document is scored from its row, in 64-bit integers, without an index.

Two rankings count as equal when their lists of scores are: documents that tie at the k-th score may replace each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...index.kernels import kernel
from .workload import Query, Rows

Scores = npt.NDArray[np.int64]
Documents = npt.NDArray[np.int64]


class Judge:
    """Scores of the best ``depth`` documents of each query, and of any document asked for."""

    def __init__(self, rows: Rows, queries: Sequence[Query], depth: int) -> None:
        self._rows, self._queries = rows, queries
        last_terms = [int(rows.terms.max(initial=0)), *(int(query.terms.max(initial=0)) for query in queries)]
        self._table = np.zeros(1 + max(last_terms), np.int64)
        everything = np.arange(len(rows))
        self.best = [best_scores(self.scores(number, everything), depth) for number in range(len(queries))]

    def scores(self, number: int, documents: Documents) -> Scores:
        """Score ``documents`` for query ``number``."""
        query = self._queries[number]
        self._table[query.terms] = query.weights
        scores = score_rows(self._rows.indptr, self._rows.terms, self._rows.impacts, self._table, documents)
        self._table[query.terms] = 0
        return scores

    def verdict(self, answers: Sequence[Documents], k: int) -> tuple[float, float, int]:
        """Return mean recall@10, mean recall@k and the number of inexact answers, one answer a query, best first."""
        shallow, deep, n_inexact = [], [], 0
        for number, documents in enumerate(answers):
            documents = documents[(documents >= 0) & (documents < len(self._rows))]
            _, firsts = np.unique(documents, return_index=True)  # a document returned twice counts once
            got = self.scores(number, documents[np.sort(firsts)])
            shallow.append(recall(got, self.best[number], min(10, k)))
            deep.append(recall(got, self.best[number], k))
            n_inexact += not np.array_equal(best_scores(got, k), self.best[number][:k])
        return float(np.mean(shallow)), float(np.mean(deep)), n_inexact


def best_scores(scores: Scores, k: int) -> Scores:
    """Return the ``k`` largest scores > 0, falling."""
    if len(scores) > k:
        scores = np.partition(scores, len(scores) - k)[-k:]
    return np.sort(scores[scores > 0])[::-1]


def recall(got: Scores, best: Scores, k: int) -> float:
    """Share of the exact top k that an answer holds: those of its first k scores that reach the k-th best score.

    Parameters
    ----------
    got : (n,) int64
        Exact scores of the documents returned, in the order returned.
    best : (m,) int64
        Largest scores of the collection, falling, all > 0.
    """
    wanted = best[:k]
    return 1.0 if len(wanted) == 0 else float(np.sum(got[:k] >= wanted[-1]) / len(wanted))


@kernel
def score_rows(
    indptr: npt.NDArray[np.int64], terms: npt.NDArray[np.int32], impacts: npt.NDArray[Any], table: Scores,
    documents: Documents,
) -> Scores:  # fmt: skip
    """Score each document; ``table`` has the query's weight by term number."""
    scores = np.zeros(len(documents), np.int64)
    for i in range(len(documents)):
        for p in range(indptr[documents[i]], indptr[documents[i] + 1]):
            scores[i] += table[terms[p]] * impacts[p]
    return scores
