"""Which terms gave which part of a score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..index.representations import SparseVectors
from ..index.snapshot import Snapshot
from .encoders.base import Encoder
from .searchers.queries import IntegerQuery


@dataclass(frozen=True, kw_only=True)
class TermMatch:
    """One term that query and document share.

    Attributes
    ----------
    term : str
    score : float
        Its part of the score: ``query_weight x document_weight``.
    query_weight, document_weight : float
        As the index has them, after quantisation.
    query_expanded, document_expanded : bool
        The term does not stand in the text itself: the encoder added it.
    """

    term: str
    score: float
    query_weight: float
    document_weight: float
    query_expanded: bool
    document_expanded: bool


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """The terms of a score, largest part first; the parts sum to the score."""

    terms: Sequence[TermMatch]

    @property
    def score(self) -> float:
        """The sum of the parts."""
        return float(sum(match.score for match in self.terms))


def explain(
    snapshot: Snapshot,
    encoder: Encoder,
    query: IntegerQuery,
    query_text: str,
    doc_num: int,
    document_text: str,
) -> Explanation:
    """Explain the score of one document for one query."""
    row: SparseVectors = snapshot.document_row(doc_num)
    shared, in_query, in_row = np.intersect1d(query.terms, row.terms, assume_unique=True, return_indices=True)
    in_query_text, in_document_text = encoder.surface_terms(query_text), encoder.surface_terms(document_text)
    matches = []
    for term, integer, weight in zip(
        snapshot.vocabulary.strings(shared),
        query.weights[in_query].tolist(),
        row.weights[in_row].tolist(),
        strict=True,
    ):
        query_weight = integer / query.scale
        matches.append(
            TermMatch(
                term=term,
                score=query_weight * weight,
                query_weight=query_weight,
                document_weight=weight,
                query_expanded=term not in in_query_text,
                document_expanded=term not in in_document_text,
            )
        )
    return Explanation(terms=sorted(matches, key=lambda match: (-match.score, match.term)))
