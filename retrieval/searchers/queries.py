"""Queries as integers: what makes a score exact, equal in every searcher, and cheap to add."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...index.representations import Floats, Int32s, Int64s, SparseVectors
from ...index.snapshot import Snapshot

MAX_WEIGHT = 255
MIN_TOP_WEIGHT = 32
"""The heaviest term keeps at least this many levels, even when 16-bit sums then do not suffice."""
MAX_NARROW_SCORE = 65_535
MAX_SCORE = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class IntegerQuery:
    """One query with integer weights.

    Attributes
    ----------
    terms : (n_terms,) int32
    weights : (n_terms,) int64, 1..255
    scale : float
        Integer weight / float weight.
    narrow : bool
        No score passes 65,535.
    """

    terms: Int32s
    weights: Int64s
    scale: float
    narrow: bool


def integer_weights(weights: Floats, max_impacts: Int64s) -> tuple[Int64s, float, bool]:
    """Round query weights to integers 1..255, as fine as 16-bit sums allow, but never below 32 levels for the heaviest.

    Returns
    -------
    (integers, scale, narrow)
    """
    if not len(weights):
        return np.empty(0, np.int64), 1.0, True
    wide, top = weights.astype(np.float64), float(weights.max())
    scale = MAX_WEIGHT / top
    reach = float(wide @ max_impacts)
    while True:
        integers = np.clip(np.rint(wide * scale), 1, MAX_WEIGHT).astype(np.int64)
        total = int(integers @ max_impacts)
        if total <= MAX_NARROW_SCORE:
            return integers, scale, True
        scale = min(scale * 0.98, MAX_NARROW_SCORE / reach)
        if scale * top < MIN_TOP_WEIGHT:
            scale = min(MAX_WEIGHT, MAX_SCORE / max(total, 1) * MAX_WEIGHT) / top
            integers = np.clip(np.rint(wide * scale), 1, MAX_WEIGHT).astype(np.int64)
            return integers, scale, False


def prepare(snapshot: Snapshot, queries: SparseVectors, number: int, beta: float = 1.0) -> IntegerQuery:
    """Make one query of a batch ready: terms that no document has are dropped.

    Parameters
    ----------
    snapshot : Snapshot
    queries : SparseVectors
        In the snapshot's term numbers (`Snapshot.query_vectors`).
    number : int
        Which row.
    beta : float
        Share of the query's terms to keep, heaviest first, rounded up: 1 keeps all; less is approximate.
    """
    terms, weights = queries.row(number)
    max_impacts = snapshot.max_impacts(terms)
    known = max_impacts > 0
    if beta < 1 and known.any():
        n_kept = int(np.ceil(beta * int(known.sum())))
        heaviest = np.argsort(np.where(known, -weights, np.inf), kind="stable")[:n_kept]
        known = np.zeros(len(terms), np.bool_)
        known[heaviest] = True
    terms, max_impacts = terms[known], max_impacts[known]
    integers, scale, narrow = integer_weights(weights[known], max_impacts)
    return IntegerQuery(terms=terms, weights=integers, scale=scale, narrow=narrow)


def to_floats(scores: npt.NDArray[np.int64], query: IntegerQuery, snapshot: Snapshot) -> Floats:
    """Integer scores -> scores in units of query weight x document weight."""
    return (scores / (query.scale * (snapshot.manifest.scale or 1.0))).astype(np.float32)
