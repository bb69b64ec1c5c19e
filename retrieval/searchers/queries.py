"""Sparse queries as integers: what makes a score exact, equal in every searcher, and cheap to add."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...index.arrays import Floats, Int32s, Int64s
from ...index.representations.sparse import SparseVectors
from ...index.sparse.field import SparseField
from ..kernels.query import finish, weigh
from ..kernels.topk import HEAP_K, Keys


@dataclass(slots=True)
class IntegerQuery:
    """One query with integer weights.

    Attributes
    ----------
    terms : (n_terms,) int32
        Ascending.
    weights : (n_terms,) int64, 1..255
        0 of terms that no document has.
    ranks : sequence of (n_terms,) int64
        Per segment, the rank of each term, -1 where it has no postings.
    scale : float
        Integer weight / float weight.
    divisor : float
        Integer score / score in units of query weight x document weight.
    narrow : bool
        No score passes 65,535.
    """

    terms: Int32s
    weights: Int64s
    ranks: Sequence[Int64s]
    scale: float
    divisor: float
    narrow: bool | np.bool_

    def floats(self, scores: Int64s) -> Floats:
        """Integer scores -> scores in units of query weight x document weight."""
        return (scores / self.divisor).astype(np.float32)


def prepare(field: SparseField, queries: SparseVectors, number: int) -> IntegerQuery:
    """Make one query of a batch ready.

    Parameters
    ----------
    field : SparseField
    queries : SparseVectors
        In the field's term numbers (`SparseField.query_vectors`).
    number : int
        Which row.

    Raises
    ------
    ValueError
        The query has so many terms (8 million or more) that scores do not fit 31 bits.
    """
    terms, weights = queries.row(number)
    terms, weights = terms.copy(), weights.copy()
    integers = np.empty(len(terms), np.int64)
    reaches, ranks = field.look_up(terms)
    scale, narrow = weigh(weights, reaches, integers)
    return IntegerQuery(terms, integers, ranks, scale, scale * field.scale, narrow)


def answers(keys: Keys, k: int, divisor: float) -> tuple[Int32s, Floats]:
    """doc_nums and float scores of the k best of ``keys``, best first."""
    if len(keys) > HEAP_K:
        keys.sort()  # NumPy's sort is vectorised
    found: tuple[Int32s, Floats] = finish(keys, k, divisor)
    return found
