"""Hits: ranked documents of a batch of queries, in arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..index.arrays import Floats, Int32s, Int64s


@dataclass(frozen=True, eq=False)
class Hits:
    """Answers of ``n`` queries; score descending, then doc_num ascending, so runs are reproducible.

    Attributes
    ----------
    offsets : (n + 1,) int64
        Query ``i`` has hits ``offsets[i]:offsets[i + 1]``.
    doc_nums : (total,) int32
    scores : (total,) float32
    """

    offsets: Int64s
    doc_nums: Int32s
    scores: Floats

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
