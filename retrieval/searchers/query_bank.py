"""Querybank normalisation (Bogolin et al., CVPR 2022): documents that answer many queries of a bank give way to others.

In spaces of many dimensions some documents are near to a large share of all queries: hubs. With cosines ``c`` and the queries
``b`` of a bank, the inverted softmax orders documents ``d`` of a query ``q`` by::

    exp(beta c(q, d)) / sum over b of exp(beta c(b, d))

and the dynamic one does so where the query's best document is in the activation set, the documents that are among the ``k``
best of some query of the bank; elsewhere the order stays.

Here that quotient has the unit of the field's scores: its logarithm, divided by ``beta``, with the mean over the bank in place
of the sum, so that a score is lowered by what the bank makes of the document. Vectors are taken as of unit length by dividing
queries by their lengths, and documents by the largest length in the field: of vectors of unit length that gives cosines.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ...index.arrays import Floats, Int32s
from ...index.dense.field import DenseField
from ...index.representations.dense import DenseVectors

BLOCK_DOCS = 256
"""Documents whose similarities to the whole bank are in memory at once."""
Doubles = npt.NDArray[np.float64]


class BankNormaliser:
    """The dynamic inverted softmax over one field of one snapshot; safe to use from many threads.

    What the bank makes of a document is computed when it is first a candidate, and kept.

    Parameters
    ----------
    field : DenseField
    bank : callable
        Gives the bank, (n, dim), as the field's searcher takes queries.
    best_of : callable
        Queries and k -> doc_nums of the k best documents of each, of all that are live.
    """

    def __init__(
        self, field: DenseField, bank: Callable[[], DenseVectors], best_of: Callable[[DenseVectors, int], Int32s]
    ) -> None:
        self._field, self._load, self._best_of = field, bank, best_of
        self._lock = threading.RLock()
        self._activated: dict[int, set[int]] = {}
        self._known: dict[float, Doubles] = {}

    def normalised(self, query: Floats, doc_nums: Int32s, scores: Floats, beta: float) -> Floats:
        """Normalise scores, (n,) float32, of documents of one query (dim,)."""
        unit = float(np.linalg.norm(query.astype(np.float64))) * self._longest
        return (scores - unit * self._hubness(doc_nums, beta)).astype(np.float32)

    def is_active(self, query: Floats, k: int, best: int | None = None) -> bool:
        """Whether the best document of a query, where it is not known yet, is among the k best of some query of the bank."""
        found = self._best_of(DenseVectors(query[None]), 1).tolist() if best is None else [best]
        with self._lock:
            if k not in self._activated:
                self._activated[k] = set(self._best_of(self._bank, k).tolist())
            return bool(found) and found[0] in self._activated[k]

    def _hubness(self, doc_nums: Int32s, beta: float) -> Doubles:
        """``log(mean over b of exp(beta c(b, d))) / beta`` of documents."""
        with self._lock:
            known = self._known.setdefault(beta, np.full(self._field.n_total, np.nan))
            missing = np.unique(doc_nums[np.isnan(known[doc_nums])])
            for first in range(0, len(missing), BLOCK_DOCS):
                block = missing[first : first + BLOCK_DOCS]
                exponents = beta * (self._unit_bank @ self._field.document_vectors(block).T.astype(np.float64)) / self._longest
                highest = exponents.max(axis=0)
                known[block] = (highest + np.log(np.exp(exponents - highest).mean(axis=0))) / beta
            found: Doubles = known[doc_nums]
            return found

    @cached_property
    def _bank(self) -> DenseVectors:
        return self._load()

    @cached_property
    def _unit_bank(self) -> Doubles:
        vectors = self._bank.vectors.astype(np.float64)
        unit: Doubles = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float64).tiny)
        return unit

    @cached_property
    def _longest(self) -> float:
        """Length of the longest document vector, 1 without any."""
        return max((segment.part.longest for segment in self._field.segments), default=0.0) or 1.0
