"""Fusion of rankings over the same doc_nums.

Reciprocal rank fusion (Cormack, Clarke & Büttcher, SIGIR 2009) looks at ranks alone::

    score(d) = sum over rankings that hold d of 1 / (60 + rank(d)),   ranks from 1

A weighted fusion is a mixture: a term of weight w distributes the mass w over its documents by a softmax of their standardised
scores (`masses`). A term whose scores hardly differ spreads its mass and cannot outvote one that is sure, which makes fixed
weights safe where min-max scaling, which stretches every ranking to 0..1, is not (docs/measurements.md).

Terms are summed in their order in float64 and rounded to float32 once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...index.arrays import Floats, Int32s

RRF_CONSTANT = 60.0
"""The paper's."""
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


def masses(scores: Doubles) -> Doubles:
    """Distribute a mass of 1 over documents: the softmax of their standardised scores.

    ``p = exp(z) / sum exp(z)`` with ``z = (s - mean) / std`` over the given documents (population std; 0 where all are equal).
    """
    if not len(scores):
        return scores
    deviation = scores.std()
    z = (scores - scores.mean()) / deviation if deviation > 0 else np.zeros_like(scores)
    shares: Doubles = np.exp(z - z.max())
    shares /= shares.sum()
    return shares


def fuse(rankings: Sequence[Ranking], weights: Sequence[float] | None = None) -> FusedRanking:
    """Fuse rankings of one query; documents that a ranking does not hold get nothing from it.

    Parameters
    ----------
    rankings : sequence of (doc_nums, scores)
        Each best first, without a document twice.
    weights : sequence of float or None
        None: reciprocal rank fusion. Given: a mixture.
    """
    doc_nums = np.unique(np.concatenate([np.empty(0, np.int32), *(numbers for numbers, _ in rankings)]))
    parts = np.zeros((len(rankings), len(doc_nums)), np.float64)
    for i, (numbers, scores) in enumerate(rankings):
        at = np.searchsorted(doc_nums, numbers)
        if weights is None:
            parts[i, at] = 1.0 / (RRF_CONSTANT + np.arange(1, len(numbers) + 1))
        else:
            parts[i, at] = weights[i] * masses(scores.astype(np.float64))
    return _ranked(doc_nums, parts)


def fuse_scores(doc_nums: Int32s, scores: Sequence[Floats], weights: Sequence[float] | None = None) -> FusedRanking:
    """Fuse the scores that several fields give the same candidates.

    Parameters
    ----------
    doc_nums : (n,) int32
        Distinct candidates, in any order.
    scores : sequence of (n,) float32
        One array per field.
    weights : sequence of float or None
        As in `fuse`; one field without weights keeps its scores.
    """
    order = np.argsort(doc_nums, kind="stable")
    ordered = doc_nums[order]
    if weights is None and len(scores) == 1:
        return _ranked(ordered, scores[0][order].astype(np.float64)[None])
    if weights is None:
        return fuse([_best_first(ordered, each[order]) for each in scores])
    return fuse([(ordered, each[order]) for each in scores], weights)


def _best_first(doc_nums: Int32s, scores: Floats) -> Ranking:
    best = np.lexsort((doc_nums, -scores))
    return doc_nums[best], scores[best]


def _ranked(doc_nums: Int32s, parts: Doubles) -> FusedRanking:
    """Order documents by the sums of their parts; ``doc_nums`` ascend."""
    totals = np.zeros(len(doc_nums), np.float64)
    for part in parts:
        totals += part
    scores = totals.astype(np.float32)
    best = np.lexsort((doc_nums, -scores))
    return FusedRanking(doc_nums[best].astype(np.int32), scores[best], parts[:, best])
