"""The oracle of sparse search: score every posting of every query term in 64-bit integers, sort everything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...index.arrays import Floats, Int32s, Mask
from ...index.representations.sparse import SparseVectors
from ...index.sparse.field import SparseField
from ..hits import Hits, best
from ..kernels.scan import score_all
from .common import check_k, checked_field
from .queries import IntegerQuery, prepare


class ExhaustiveSearcher:
    """Exact top k of a sparse field without any shortcut; what `BlockMaxSearcher` is proven against."""

    def __init__(self, field: SparseField) -> None:
        self.field = checked_field(field, SparseField, "sparse vectors")

    def search(self, queries: SparseVectors, k: int, allowed: Sequence[Mask | None] | None = None) -> Hits:
        """Answer a batch; see `BlockMaxSearcher.search`, whose answers are the same."""
        check_k(k)
        masks = self.field.masks() if allowed is None else allowed
        return Hits.of([self._one(prepare(self.field, queries, i), k, masks) for i in range(len(queries))])

    def _one(self, query: IntegerQuery, k: int, masks: Sequence[Mask | None]) -> tuple[Int32s, Floats]:
        doc_nums, scores = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for segment, ranks, mask in zip(self.field.segments, query.ranks, masks, strict=True):
            present = ranks >= 0
            found = np.zeros(segment.n_docs + (1 << 16), np.int64)  # any slot value falls inside
            score_all(
                segment.inverted.arrays,
                segment.inverted.window,
                ranks[present],
                query.weights[present],
                found,
            )
            segment.inverted.file.raise_damage()
            found = found[: segment.n_docs]
            hits = np.flatnonzero(found if mask is None else np.where(mask, found, 0))
            doc_nums.append(hits + segment.base)
            scores.append(found[hits])
        found_docs, totals = best(np.concatenate(doc_nums), np.concatenate(scores), k)
        return found_docs, query.floats(totals)
