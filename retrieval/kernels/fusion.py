"""Fusion of one query's rankings: what each ranking gives its documents, sums, and their order."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ...index.kernels.sorting import order_of
from . import kernel

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]


@kernel
def rank_shares(shares: Doubles, constant: float) -> None:
    """Set ``shares[i]`` to ``1 / (constant + i + 1)``, the reciprocal rank of a document at place i."""
    for i in range(len(shares)):
        shares[i] = 1.0 / (constant + (i + 1))


@kernel
def softmax_shares(scores: Floats, shares: Doubles) -> None:
    """Set ``shares`` to the softmax of the standardised scores (population deviation); equal ones where all scores are."""
    n = len(scores)
    if n == 0:
        return
    mean, largest = 0.0, -np.inf
    for i in range(n):
        mean += np.float64(scores[i])
        largest = max(largest, np.float64(scores[i]))
    mean /= n
    variance, equal = 0.0, True
    for i in range(n):
        variance += (np.float64(scores[i]) - mean) ** 2
        equal = equal and scores[i] == scores[0]
    deviation = math.sqrt(variance / n)
    total = 0.0
    for i in range(n):
        share = 1.0 if equal else math.exp((np.float64(scores[i]) - largest) / deviation)
        shares[i] = share
        total += share
    for i in range(n):
        shares[i] /= total


@kernel
def fuse(doc_nums: Int32s, scores: Floats, starts: Int64s, weights: Doubles, constant: float) -> tuple[Int32s, Floats, Doubles]:
    """Fuse rankings that stand one after another, ranking i at ``starts[i]:starts[i + 1]``.

    Parameters
    ----------
    doc_nums : (n,) int32
    scores : (n,) float32
    starts : (n_rankings + 1,) int64
    weights : (n_rankings,) float64, or empty
        Empty: reciprocal ranks. Else the mass that a ranking distributes over its documents.

    Returns
    -------
    doc_nums : (m,) int32
        Distinct, by falling sum, then by number.
    sums : (m,) float32
    parts : (n_rankings, m) float64
        What each ranking gave each document.
    """
    n, n_rankings = len(doc_nums), len(starts) - 1
    shares = np.empty(n, np.float64)
    of = np.empty(n, np.int64)
    for ranking in range(n_rankings):
        first, last = starts[ranking], starts[ranking + 1]
        of[first:last] = ranking
        if len(weights) == 0:
            rank_shares(shares[first:last], constant)
        else:
            softmax_shares(scores[first:last], shares[first:last])
            for i in range(first, last):
                shares[i] *= weights[ranking]
    order = order_of(doc_nums)
    place = np.empty(n, np.int64)
    m = 0
    for j in range(n):
        if j == 0 or doc_nums[order[j]] != doc_nums[order[j - 1]]:
            m += 1
        place[j] = m - 1
    totals = np.zeros(m, np.float64)
    parts = np.zeros((n_rankings, m), np.float64)
    numbers = np.empty(m, np.int32)
    for j in range(n):
        i = order[j]
        numbers[place[j]] = doc_nums[i]
        parts[of[i], place[j]] = shares[i]
    for ranking in range(n_rankings):
        for j in range(m):
            totals[j] += parts[ranking, j]
    sums = totals.astype(np.float32)
    best = order_of(-sums)
    sorted_parts = np.empty((n_rankings, m), np.float64)
    for ranking in range(n_rankings):
        for j in range(m):
            sorted_parts[ranking, j] = parts[ranking, best[j]]
    return numbers[best], sums[best], sorted_parts
