"""The oracle: score every posting of every query term in 64-bit integers, sort everything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...index.arrays import Floats, Int32s
from ...index.representations.sparse import SparseVectors
from ...index.segments import Mask
from ...index.snapshot import Snapshot
from ..hits import Hits
from ..kernels.scan import score_all
from .queries import IntegerQuery, prepare, to_floats


class ExhaustiveSearcher:
    """Exact top k without any shortcut; what the other searchers are proven against."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    def search(self, queries: SparseVectors, k: int, allowed: Sequence[Mask | None] | None = None) -> Hits:
        """Answer a batch; see `BlockMaxSearcher.search`, whose answers are the same."""
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        masks = self.snapshot.masks() if allowed is None else allowed
        return Hits.of([self._one(prepare(self.snapshot, queries, i), k, masks) for i in range(len(queries))])

    def _one(self, query: IntegerQuery, k: int, masks: Sequence[Mask | None]) -> tuple[Int32s, Floats]:
        doc_nums, scores = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for segment, mask in zip(self.snapshot.segments, masks, strict=True):
            ranks = segment.inverted.ranks(query.terms)
            present = ranks >= 0
            found = np.zeros(segment.record.n_docs + (1 << 16), np.int64)  # any slot value falls inside
            score_all(
                segment.inverted.arrays,
                segment.inverted.window,
                ranks[present],
                query.weights[present],
                found,
            )
            found = found[: segment.record.n_docs]
            hits = np.flatnonzero(found if mask is None else np.where(mask, found, 0))
            doc_nums.append(hits + segment.base)
            scores.append(found[hits])
        numbers, totals = np.concatenate(doc_nums), np.concatenate(scores)
        best = np.lexsort((numbers, -totals))[:k]
        return numbers[best].astype(np.int32), to_floats(totals[best], query, self.snapshot)
