"""Hits: ranked documents of a batch of queries, in arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..index.arrays import Floats, Int32s, Int64s

Score = TypeVar("Score", np.float32, np.float64, np.int64)


@dataclass(kw_only=True)
class ReadCounts:
    """What a stage read from disk, for a batch of queries.

    Attributes
    ----------
    n_records, n_reads, n_bytes : int
        Documents whose records were read, reads, and their bytes.
    n_unreadable : int
        Documents whose records could not be read, and that kept the score of the stage before.
    n_guessed, n_hits : int
        Documents that were read while the stage before was still running, and those of them that it found.
    """

    n_records: int = 0
    n_reads: int = 0
    n_bytes: int = 0
    n_unreadable: int = 0
    n_guessed: int = 0
    n_hits: int = 0

    def add(self, other: ReadCounts) -> None:
        """Count others too."""
        for name, count in asdict(other).items():
            setattr(self, name, getattr(self, name) + count)

    @classmethod
    def total(cls, counts: Iterable[ReadCounts]) -> ReadCounts:
        """Sum counts."""
        found = cls()
        for each in counts:
            found.add(each)
        return found


class Scores(list[Floats]):
    """Scores of a batch, one array per query, and what was read from disk for them."""

    def __init__(self, scores: Sequence[Floats], reads: ReadCounts) -> None:
        super().__init__(scores)
        self.reads = reads


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
    reads : ReadCounts or None
        What was read from disk, of a search that reads records.
    """

    offsets: Int64s
    doc_nums: Int32s
    scores: Floats
    n_scored: Int64s | None = None
    reads: ReadCounts | None = None

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
UNREADABLE = np.float32(np.nan)
"""Score of a candidate whose record cannot be read, where that is no error: it keeps that of the stage before."""


def best(doc_nums: npt.NDArray[np.integer[Any]], scores: npt.NDArray[Score], k: int) -> tuple[Int32s, npt.NDArray[Score]]:
    """Return doc_nums and scores of the ``k`` highest scores: score descending, then doc_num ascending."""
    order = np.lexsort((doc_nums, -scores))[:k]
    return doc_nums[order].astype(np.int32), scores[order]
