"""Queries as integers: what makes a score exact, equal in every searcher, and cheap to add."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...index.arrays import Floats, Int32s, Int64s
from ...index.representations.sparse import SparseVectors
from ...index.snapshot import Snapshot
from ..kernels.query import weigh


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
    if beta < 1:
        terms, weights = heaviest(snapshot, terms, weights, beta)
    terms, weights = terms.copy(), weights.copy()
    reaches = snapshot.reaches(terms)
    integers = np.empty(len(terms), np.int64)
    scale, narrow = weigh(weights, reaches, integers)
    known = reaches > 0
    return IntegerQuery(terms=terms[known], weights=integers[known], scale=scale, narrow=narrow)


def heaviest(snapshot: Snapshot, terms: Int32s, weights: Floats, beta: float) -> tuple[Int32s, Floats]:
    """Keep the share ``beta`` of the query's terms that have postings, rounded up, heaviest first."""
    known = np.flatnonzero(snapshot.reaches(terms.copy()) > 0)
    n_kept = int(np.ceil(beta * len(known)))
    kept = np.sort(known[np.argsort(-weights[known], kind="stable")[:n_kept]])
    return terms[kept], weights[kept]


def to_floats(scores: npt.NDArray[np.int64], query: IntegerQuery, snapshot: Snapshot) -> Floats:
    """Integer scores -> scores in units of query weight x document weight."""
    return (scores / (query.scale * (snapshot.manifest.scale or 1.0))).astype(np.float32)
