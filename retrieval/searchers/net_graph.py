"""Searching with networks along the graph of nearest documents (arXiv 2502.05364, section 3.4).

Documents that are near each other score alike. A walk scores some documents to begin with, then again and again the neighbours
of the best that it has not left yet, until none of them comes among its k best. It differs from the paper in that it leaves the
best of all documents that it has scored, not of the last round alone, and that it begins near centroids, not anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ...index.arrays import Floats, Int32s, Int64s, Mask
from ...index.nets.field import NetSegment

WALKED_SHARE = 8
"""Where no more than an eighth of a segment's documents are allowed they are all scored, which costs what a walk would."""
Score = Callable[[Int64s], Floats]
"""Positions in a segment -> scores."""


class Effort(NamedTuple):
    """How far a walk goes.

    Attributes
    ----------
    n_entry : int or None
        Documents that are scored first. None: one near each centroid.
    n_candidates : int
        Documents whose neighbours are scored in a round; at least k.
    max_iterations : int
        Rounds.
    """

    n_entry: int | None
    n_candidates: int
    max_iterations: int


class Walked(NamedTuple):
    """What a search of one segment found.

    Attributes
    ----------
    doc_nums, scores : (n,)
        Allowed documents that were scored, the k best among them.
    n_scored : int
        Documents that were scored.
    """

    doc_nums: Int32s
    scores: Floats
    n_scored: int


def walk(segment: NetSegment, score: Score, mask: Mask | None, k: int, effort: Effort) -> Walked:
    """Search one segment for the k best of the documents that ``mask`` allows, (n_docs,) bool or None for all.

    A segment without a graph, or with few allowed documents, is scored whole; so is one of which a walk found fewer than k.
    """
    n_docs, neighbours = segment.n_docs, segment.part.neighbours
    n_allowed = n_docs if mask is None else int(np.count_nonzero(mask))
    if neighbours is None or n_allowed * WALKED_SHARE <= n_docs:
        return _whole(segment, score, mask)
    seen, n_left = np.zeros(n_docs, np.bool_), max(effort.n_candidates, k)
    found = new = neighbours.entry_points(effort.n_entry)
    seen[new] = True
    scores = score(new)
    is_open = np.ones(len(found), np.bool_)  # neighbours are not scored yet
    for _ in range(effort.max_iterations):
        (waiting,) = np.nonzero(is_open)
        best = waiting[_best(scores[waiting], n_left)]
        is_open[best] = False
        near = np.unique(neighbours.neighbours[found[best]])
        new = near[~seen[near]].astype(np.int64)
        if not len(new):
            break
        seen[new] = True
        threshold = _threshold(scores if mask is None else scores[mask[found]], k)
        more = score(new)
        found, scores = np.concatenate([found, new]), np.concatenate([scores, more])
        is_open = np.concatenate([is_open, np.ones(len(new), np.bool_)])
        if (more if mask is None else more[mask[new]]).max(initial=-np.inf) <= threshold:
            break
    kept = np.ones(len(found), np.bool_) if mask is None else mask[found]
    if int(kept.sum()) < min(k, n_allowed):
        return _whole(segment, score, mask)
    return Walked((found[kept] + segment.base).astype(np.int32), scores[kept], len(found))


def _whole(segment: NetSegment, score: Score, mask: Mask | None) -> Walked:
    positions = np.arange(segment.n_docs) if mask is None else np.flatnonzero(mask)
    return Walked((positions + segment.base).astype(np.int32), score(positions), len(positions))


def _best(scores: Floats, n: int) -> Int64s:
    """Positions of the n highest scores, of equal ones the first."""
    return np.argsort(-scores, kind="stable")[:n]


def _threshold(scores: Floats, k: int) -> float:
    """The k-th highest score; minus infinity where there are fewer."""
    return float(np.partition(scores, len(scores) - k)[len(scores) - k]) if len(scores) >= k else -np.inf
