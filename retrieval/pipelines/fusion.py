"""Fusion of rankings over the same doc_nums.

Reciprocal rank fusion (Cormack, Clarke & Büttcher, SIGIR 2009) looks at ranks alone::

    score(d) = sum over rankings that hold d of 1 / (60 + rank(d)),   ranks from 1

A weighted fusion is a mixture: a term of weight w distributes the mass w over its documents by a softmax of their standardised
scores, ``p = exp(z) / sum exp(z)`` with ``z = (s - mean) / std``. A term whose scores hardly differ spreads its mass and cannot
outvote one that is sure, which makes fixed weights safe where min-max scaling, which stretches every ranking to 0..1, is not
(docs/measurements.md).

Terms are summed in their order in float64 and rounded to float32 once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...index.arrays import Floats, Int32s
from ..hits import NO_SCORE, best
from ..kernels import fusion as kernels

RRF_CONSTANT = 60.0
"""The paper's."""
_BY_RANKS = np.empty(0, np.float64)
Doubles = npt.NDArray[np.float64]
Ranking = tuple[Int32s, Floats]
"""doc_nums and scores of one query, best first."""


@dataclass(frozen=True, eq=False)
class FusedRanking:
    """One query's documents after a fusion, best first; ties by doc_num.

    Attributes
    ----------
    doc_nums : (n,) int32
    scores : (n,) float32
    parts : (n_terms, n) float64
        What each term contributed to each document.
    """

    doc_nums: Int32s
    scores: Floats
    parts: Doubles

    @classmethod
    def alone(cls, doc_nums: Int32s, scores: Floats) -> FusedRanking:
        """A ranking that nothing is fused with."""
        return cls(doc_nums, scores, scores.astype(np.float64)[None])

    def followed_by(self, doc_nums: Int32s, scores: Floats) -> FusedRanking:
        """Return the ranking with other documents after its own, to which no term contributed."""
        nothing = np.zeros((len(self.parts), len(doc_nums)))
        return FusedRanking(
            np.concatenate([self.doc_nums, doc_nums]),
            np.concatenate([self.scores, scores]),
            np.concatenate([self.parts, nothing], axis=1),
        )


def fuse(rankings: Sequence[Ranking], weights: Sequence[float] | None = None) -> FusedRanking:
    """Fuse rankings of one query; documents that a ranking does not hold get nothing from it.

    Parameters
    ----------
    rankings : sequence of (doc_nums, scores)
        At least one. Each best first, without a document twice.
    weights : sequence of float or None
        None: reciprocal rank fusion. Given: a mixture.
    """
    starts = np.zeros(len(rankings) + 1, np.int64)
    for i, (numbers, _) in enumerate(rankings):
        starts[i + 1] = starts[i] + len(numbers)
    doc_nums = np.concatenate([numbers for numbers, _ in rankings])
    scores = np.concatenate([scores for _, scores in rankings])
    shares = _BY_RANKS if weights is None else np.asarray(weights, np.float64)
    return FusedRanking(*kernels.fuse(doc_nums, scores, starts, shares, RRF_CONSTANT))


def fuse_scores(doc_nums: Int32s, scores: Sequence[Floats], weights: Sequence[float] | None = None) -> FusedRanking:
    """Fuse the scores that several fields give the same candidates; what no field gives a score is left out.

    Parameters
    ----------
    doc_nums : (n,) int32
        Distinct candidates, in any order.
    scores : sequence of (n,) float32
        One array per field, `NO_SCORE` for documents that are no answers there.
    weights : sequence of float or None
        As in `fuse`; one field without weights keeps its scores.
    """
    scored = [each > NO_SCORE for each in scores]
    rankings = [(doc_nums[kept], each[kept]) for kept, each in zip(scored, scores, strict=True)]
    if weights is not None:
        return fuse(rankings, weights)
    ordered = [best(numbers, each, len(numbers)) for numbers, each in rankings]
    return FusedRanking.alone(*ordered[0]) if len(ordered) == 1 else fuse(ordered)
