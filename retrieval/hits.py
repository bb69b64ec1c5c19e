"""Hits: ranked documents of a batch of queries, in arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..index.arrays import Floats, Int32s, Int64s

Score = TypeVar("Score", np.float32, np.float64, np.int64)


@dataclass(frozen=True, eq=False)
class Hits:
    """Answers of ``n`` queries; score descending, then doc_num ascending, so runs are reproducible.

    Attributes
    ----------
    offsets : (n + 1,) int64
        Query ``i`` has hits ``offsets[i]:offsets[i + 1]``.
    doc_nums : (total,) int32
    scores : (total,) float32
    n_scored : (n,) int64 or None
        Documents that were scored for each query, of a search that chooses them one by one.
    """

    offsets: Int64s
    doc_nums: Int32s
    scores: Floats
    n_scored: Int64s | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def query(self, number: int) -> tuple[Int32s, Floats]:
        """doc_nums and scores of one query."""
        span = slice(int(self.offsets[number]), int(self.offsets[number + 1]))
        return self.doc_nums[span], self.scores[span]

    @classmethod
    def of(cls, rankings: Sequence[tuple[Int32s, Floats]]) -> Hits:
        """Join the hits of single queries."""
        if len(rankings) == 1:
            doc_nums, scores = rankings[0]
            return cls(np.array([0, len(doc_nums)], np.int64), doc_nums, scores)
        offsets = np.zeros(len(rankings) + 1, np.int64)
        np.cumsum([len(doc_nums) for doc_nums, _ in rankings], out=offsets[1:])
        return cls(
            offsets,
            np.concatenate([np.empty(0, np.int32), *(doc_nums for doc_nums, _ in rankings)]),
            np.concatenate([np.empty(0, np.float32), *(scores for _, scores in rankings)]),
        )


NO_HITS = (np.empty(0, np.int32), np.empty(0, np.float32))
"""doc_nums and scores of a query that nothing matches."""
NO_SCORE = np.float32(-np.inf)
"""Score of a document that is no answer, whatever its rivals score: one without tokens in a field of token vectors."""


def best(doc_nums: npt.NDArray[np.integer[Any]], scores: npt.NDArray[Score], k: int) -> tuple[Int32s, npt.NDArray[Score]]:
    """Return doc_nums and scores of the ``k`` highest scores: score descending, then doc_num ascending."""
    order = np.lexsort((doc_nums, -scores))[:k]
    return doc_nums[order].astype(np.int32), scores[order]
