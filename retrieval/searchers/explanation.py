"""Explanations: which terms, or which pairs of tokens, gave which part of a score, field by field and stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ...index.arrays import Floats
from ...index.representations.dense import DenseVectors
from ..sentences import sentences_of

MAX_SENTENCES = 16
"""First sentences of a document that an explanation encodes: each is a run of the network."""


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
        The encoder added the term: it is not in the text itself. False where the texts are not known.
    """

    term: str
    score: float
    query_weight: float
    document_weight: float
    query_expanded: bool
    document_expanded: bool


class KnowsTerms(Protocol):
    """An encoder that says which terms stand in a text."""

    def surface_terms(self, text: str) -> set[str]:
        """Terms of the text itself."""
        ...


def term_matches(
    parts: Iterable[tuple[str, float, float, float]], encoder: KnowsTerms | None, query_text: str, document_text: str
) -> list[TermMatch]:
    """Make matches of (term, score, query weight, document weight), largest score first."""
    in_query = None if encoder is None else encoder.surface_terms(query_text)
    in_document = None if encoder is None else encoder.surface_terms(document_text)
    matches = [
        TermMatch(
            term=term,
            score=score,
            query_weight=query_weight,
            document_weight=document_weight,
            query_expanded=in_query is not None and term not in in_query,
            document_expanded=in_document is not None and term not in in_document,
        )
        for term, score, query_weight, document_weight in parts
    ]
    return sorted(matches, key=lambda match: (-match.score, match.term))


@dataclass(frozen=True, kw_only=True)
class TokenMatch:
    """One token of the query and the document's token that is most similar to it.

    Attributes
    ----------
    score : float
        Their similarity.
    query_token, document_token : str
        As the tokenizer has them; empty where they are not known, the document's where vectors were pooled.
    query_span, document_span : (int, int)
        Where they are in the query, and in the document's title and text joined by a space; (0, 0) for special tokens.
    """

    score: float
    query_token: str
    document_token: str
    query_span: tuple[int, int]
    document_span: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class SentenceMatch:
    """One sentence of the document, encoded alone.

    Attributes
    ----------
    score : float
        Similarity of its vector to the query's; sentences do not sum to the document's score.
    span : (int, int)
        Where it is in the document's title and text joined by a space.
    """

    score: float
    span: tuple[int, int]


class EncodesDocuments(Protocol):
    """An encoder that makes one vector of a text."""

    def encode_documents(self, texts: Sequence[str]) -> DenseVectors:
        """Encode texts."""
        ...


def sentence_matches(
    encoder: EncodesDocuments | None, text: str, scores_of: Callable[[DenseVectors], Floats]
) -> list[SentenceMatch]:  # fmt: skip
    """Score the first sentences of a document, each encoded alone: most similar first, none without an encoder."""
    spans = sentences_of(text)[:MAX_SENTENCES] if encoder is not None else []
    if encoder is None or not spans:
        return []
    scores = scores_of(encoder.encode_documents([text[first:last] for first, last in spans])).tolist()
    matches = [SentenceMatch(score=score, span=span) for score, span in zip(scores, spans, strict=True)]
    return sorted(matches, key=lambda match: -match.score)


@dataclass(frozen=True, kw_only=True)
class FieldExplanation:
    """One field's score of a document and its parts.

    Attributes
    ----------
    field : str
        Name of the field.
    score : float
        The field's score, as a search of the field alone gives it.
    contribution : float
        Its part of the stage's score: the field's score itself where no others take part.
    terms : sequence of TermMatch
        Of sparse vectors and sparse token vectors, largest part first; they sum to the score.
    tokens : sequence of TokenMatch
        Of token vectors, in the order of the query; they sum to the score within 2e-2 per 32 tokens of the query.
    sentences : sequence of SentenceMatch
        Of dense vectors, most similar first, also where queries are networks; they do not sum to the score.
    vector : int or None
        Which of a document's several dense vectors gave the score, from 0; None where documents have one.
    measure : str
        What the score is, where it is none of its field's vectors: of encodings, an estimate of MaxSim.
    """

    field: str
    score: float
    contribution: float
    terms: Sequence[TermMatch] = ()
    tokens: Sequence[TokenMatch] = ()
    sentences: Sequence[SentenceMatch] = ()
    vector: int | None = None
    measure: str = ""


@dataclass(frozen=True, kw_only=True)
class StageExplanation:
    """What one stage of a search made of a document.

    Attributes
    ----------
    stage : str
        The stage's part of the search expression.
    rank : int or None
        Of the document after this stage, from 1; None where the stage did not return it.
    score : float
    fields : sequence of FieldExplanation
        Of the fields that the stage names.
    n_scored : int or None
        Documents that the stage scored for the query, where it walked from document to document.
    """

    stage: str
    rank: int | None
    score: float
    fields: Sequence[FieldExplanation] = ()
    n_scored: int | None = None


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """How a result came by its score, stage by stage.

    Attributes
    ----------
    score : float
        The result's: that of the last stage.
    stages : sequence of StageExplanation
        In the order in which they ran.
    """

    score: float
    stages: Sequence[StageExplanation] = ()

    def _repr_html_(self) -> str:
        """For notebooks: terms as bars, tokens as an alignment."""
        from ..explanation_html import explanation_html

        return explanation_html(self)
