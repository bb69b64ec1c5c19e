"""Which terms, or which pairs of tokens, gave which part of a score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..index.arrays import Floats
from ..index.representations.sparse import SparseVectors
from ..index.snapshot import Snapshot
from .encoders.base import MultiVectorEncoder, SparseEncoder, SparseTokenEncoder
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
class TokenMatch:
    """One token of the query and the document's token that is most similar to it.

    Attributes
    ----------
    score : float
        Their similarity.
    query_token, document_token : str
        As the tokenizer has them; the document's is empty where vectors were pooled.
    query_span, document_span : (int, int)
        Where they stand in the query, and in the document's title and text joined by a space; (0, 0) for special tokens.
    """

    score: float
    query_token: str
    document_token: str
    query_span: tuple[int, int]
    document_span: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """The parts of a score, which sum to it.

    Attributes
    ----------
    terms : sequence of TermMatch
        Of sparse vectors and sparse token vectors, largest part first.
    tokens : sequence of TokenMatch
        Of token vectors, in the order of the query; their sum is that of the decoded vectors, within some thousandths.
    """

    terms: Sequence[TermMatch] = ()
    tokens: Sequence[TokenMatch] = ()

    @property
    def score(self) -> float:
        """The sum of the parts."""
        return float(sum(match.score for match in self.terms) + sum(match.score for match in self.tokens))


def explain(
    snapshot: Snapshot,
    encoder: SparseEncoder,
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


def explain_sparse_tokens(
    snapshot: Snapshot,
    encoder: SparseTokenEncoder,
    query: SparseVectors,
    query_text: str,
    doc_num: int,
    document_text: str,
) -> Explanation:
    """Explain the score of one document for one query of sparse tokens (SLIM).

    Each token of the query has its best token of the document; what they share is summed by term. ``query_weight`` is the
    sum over those tokens of the query, ``document_weight`` the mean, weighted so, over the document's.
    """
    document = snapshot.document_sparse_tokens(doc_num)
    query_weights: dict[int, float] = {}
    scores: dict[int, float] = {}
    for i in range(len(query)):
        weights = dict(zip(*(part.tolist() for part in query.row(i)), strict=True))
        shared = [
            {term: weight for term, weight in zip(*(part.tolist() for part in document.row(j)), strict=True) if term in weights}
            for j in range(len(document))
        ]
        best = max(shared, key=lambda row: sum(weights[term] * row[term] for term in row), default={})
        for term, weight in best.items():
            query_weights[term] = query_weights.get(term, 0.0) + weights[term]
            scores[term] = scores.get(term, 0.0) + weights[term] * weight
    in_query, in_document = encoder.surface_terms(query_text), encoder.surface_terms(document_text)
    strings = snapshot.vocabulary.strings(np.array(list(scores), np.int32))
    matches = [
        TermMatch(
            term=string,
            score=score,
            query_weight=query_weights[term],
            document_weight=score / query_weights[term],
            query_expanded=string not in in_query,
            document_expanded=string not in in_document,
        )
        for string, (term, score) in zip(strings, scores.items(), strict=True)
    ]
    return Explanation(terms=sorted(matches, key=lambda match: (-match.score, match.term)))


def explain_tokens(
    snapshot: Snapshot,
    encoder: MultiVectorEncoder,
    query: Floats,
    query_text: str,
    doc_num: int,
    document_text: str,
) -> Explanation:
    """Explain the MaxSim of one document for one query, from the document's vectors as the index has them."""
    document = snapshot.document_tokens(doc_num)
    if not len(document) or not len(query):
        return Explanation()
    similarities = query @ document.T
    best = similarities.argmax(axis=1)
    in_query = encoder.query_spans(query_text)
    in_document = encoder.document_spans(document_text)
    if in_document is None or len(in_document) != len(document):
        in_document = [("", 0, 0)] * len(document)
    if len(in_query) != len(query):
        in_query = [("", 0, 0)] * len(query)
    matches = []
    for (query_token, *query_span), number, row in zip(in_query, best.tolist(), similarities, strict=True):
        document_token, first, last = in_document[number]
        matches.append(
            TokenMatch(
                score=float(row[number]),
                query_token=query_token,
                document_token=document_token,
                query_span=(query_span[0], query_span[1]),
                document_span=(first, last),
            )
        )
    return Explanation(tokens=matches)
