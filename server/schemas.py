"""What goes over the wire: request and answer bodies, within `Limits`.

::

    SearchOne   {"query": ...}      ->  OneAnswer   {"results": [Hit, ...], "took_ms": ...}
    SearchMany  {"queries": [...]}  ->  ManyAnswer  {"results": [[Hit, ...], ...], "took_ms": ...}
    any error                       ->  ErrorBody   {"error": {"type": ..., "message": ...}}

Requests are strict: no coercion (``{"explain": 0}`` is refused), no unknown fields, no NaN or infinity.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, RootModel, Tag, create_model

from ..index.filters.expressions import MAX_CHARS
from ..retrieval.feedback.clicks import MAX_QUERY_CHARS, MAX_RANK, MAX_SHOWN
from ..retrieval.searchers.explanation import Explanation
from .limits import Limits

MAX_KEYS = 100  # of a body, and of its options: pydantic would list every one that is wrong


def _few(options: object) -> object:
    """Refuse options of too many fields before each of them is looked at."""
    if isinstance(options, Mapping) and len(options) > MAX_KEYS:
        raise ValueError(f"options of {len(options)} fields: at most {MAX_KEYS}")
    return options


def _few_terms(boost: object) -> object:
    """Refuse a boost of too many terms before each of them is looked at."""
    if isinstance(boost, Mapping) and len(boost) > MAX_KEYS:
        raise ValueError(f"boost of {len(boost)} terms: at most {MAX_KEYS}")
    return boost


class SearchOptions(BaseModel):
    """What both shapes of a search share; ``search_body`` adds the bounds that depend on ``Limits``."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    k: int
    search: str | None
    filter: str | dict[str, Any] | None
    options: Annotated[dict[str, dict[str, Any]] | None, BeforeValidator(_few)] = Field(
        None, description='Options of each field\'s search, as {"colbert": {"n_probe": 64}}.'
    )
    boost: Annotated[dict[str, Annotated[float, Field(ge=0)]] | None, BeforeValidator(_few_terms)] = Field(
        None,
        description='Terms of sparse fields, as {"latent-12": 2}: so many times as heavy as the heaviest of the query; 0 '
        "leaves one out.",
    )
    feedback: bool | Annotated[dict[str, float], BeforeValidator(_few)] | None = Field(
        None,
        description="Move queries of dense, fde and sparse fields by logged clicks: true, or options of Counterfactual "
        'Rocchio, as {"eta": 0.5}. For servers that keep a log.',
    )
    explain: bool = Field(False, description="Explain every score: stages, fields, terms and tokens.")
    timings: bool = Field(False, description="Give the milliseconds of each stage.")
    include_text: bool = Field(True, description="Without it `text` is null in every result.")
    timeout_s: float | None


class SearchOne(SearchOptions):
    """One query."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"query": "how do vaccines work"},
                {"query": "solar cells", "k": 5, "filter": "year >= 2020", "explain": True},
                {"query": "wind", "search": "(bm25 + splade) > colbert", "options": {"colbert": {"n_probe": 64}}},
            ]
        }
    )

    query: str


class SearchMany(SearchOptions):
    """Several queries with the same options."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"queries": ["solar cells", "wind power"], "k": 5, "include_text": False}]}
    )

    queries: list[str]


BODY_FIELDS = tuple(dict.fromkeys([*SearchOne.model_fields, *SearchMany.model_fields]))
"""Names of the fields of both shapes."""


def _shape(body: object) -> str | None:
    """Name the one key that tells the two shapes apart; None when there is not exactly one."""
    if not isinstance(body, Mapping) or len(body) > MAX_KEYS:
        return None
    keys = {"query", "queries"} & body.keys()
    return keys.pop() if len(keys) == 1 else None


def _whole(number: object) -> object:
    """Take 3.0 as 3: to JSON and its schemas they are the same integer."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


def search_body(limits: Limits) -> Any:
    """Return the type of a search body: ``SearchOne`` or ``SearchMany``, within the limits.

    The bounds stand in the types, so that the OpenAPI document and the validation cannot disagree.
    """
    text = Annotated[str, Field(max_length=limits.max_text_chars)]
    texts = Annotated[list[text], Field(min_length=1, max_length=limits.max_batch)]
    options: dict[str, Any] = {
        "k": (
            Annotated[int, BeforeValidator(_whole)],
            Field(10, ge=1, le=limits.max_k, description="Results wanted for a query."),
        ),
        "search": (
            Annotated[str, Field(max_length=limits.max_search_chars)] | None,
            Field(None, description="Search expression, as `(bm25 + splade) > colbert`; by default the index's."),
        ),
        "filter": (
            Annotated[str, Field(max_length=MAX_CHARS)] | dict[str, Any] | None,
            Field(None, description="Condition on metadata that every result meets: an expression or a tree."),
        ),
        "timeout_s": (
            Annotated[float, Field(gt=0, le=limits.deadline_s)] | None,
            Field(None, description="Seconds until the request is given up with 503; by default the server's deadline."),
        ),
    }
    one = create_model("SearchOne", __base__=SearchOne, __doc__=SearchOne.__doc__, query=(text, ...), **options)
    many = create_model("SearchMany", __base__=SearchMany, __doc__=SearchMany.__doc__, queries=(texts, ...), **options)
    return Annotated[
        Annotated[one, Tag("query")] | Annotated[many, Tag("queries")],
        Discriminator(
            _shape,
            custom_error_type="query_or_queries",
            custom_error_message="expected an object with exactly one of `query` and `queries`",
        ),
    ]


class ImpressionBody(BaseModel):
    """What one user saw and clicked."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    query: str = Field(max_length=MAX_QUERY_CHARS)
    shown: list[str] = Field(
        min_length=1, max_length=MAX_SHOWN, description="doc_ids in the order in which they were shown, none twice."
    )
    clicked: list[str] = Field([], max_length=MAX_SHOWN, description="Those of them that were clicked.")
    first_rank: Annotated[int, BeforeValidator(_whole)] = Field(
        1, ge=1, le=MAX_RANK, description="Rank of the first one: of a second page of ten it is 11."
    )


class FeedbackBody(BaseModel):
    """What users saw and clicked; `feedback_body` adds the bound that depends on ``Limits``."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"impressions": [{"query": "solar cells", "shown": ["12", "4983"], "clicked": ["4983"], "first_rank": 1}]}
            ]
        },
    )

    impressions: list[ImpressionBody]


def feedback_body(limits: Limits) -> Any:
    """Return the type of a feedback body within the limits."""
    impressions = Annotated[list[ImpressionBody], Field(min_length=1, max_length=limits.max_impressions)]
    return create_model("FeedbackBody", __base__=FeedbackBody, __doc__=FeedbackBody.__doc__, impressions=(impressions, ...))


class FeedbackAnswer(BaseModel):
    """What was logged: it is on the disk."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"logged": 1, "unknown_documents": 0}]})

    logged: int = Field(description="Impressions.")
    unknown_documents: int = Field(description="Documents that were shown and are not in the index; they move no query.")


class DocumentAnswer(BaseModel):
    """A document as it was added."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"doc_id": "4983", "title": "Solar cells", "text": "...", "metadata": {"year": 2021}}]}
    )

    doc_id: str
    title: str
    text: str
    metadata: dict[str, Any]


class Hit(BaseModel):
    """One result; ``text`` is null without ``include_text``, ``explanation`` without ``explain``."""

    doc_id: str
    score: float
    title: str
    text: str | None
    metadata: dict[str, Any]
    explanation: Explanation | None
    unreadable: bool = Field(
        False, description="Its tokens could not be read (`unreadable: keep`): the score is that of the stage before."
    )


class Reads(BaseModel):
    """What a stage read from disk: records of documents, in so many reads of so many bytes; and records that it could not."""

    n_records: int
    n_reads: int
    n_bytes: int
    n_unreadable: int


_TERM: dict[str, Any] = {"term": "solar", "score": 2.5, "query_weight": 1.25, "document_weight": 2.0}
_TERM |= {"query_expanded": False, "document_expanded": False}
_HIT: dict[str, Any] = {"doc_id": "4983", "score": 2.5, "title": "Solar cells", "text": "Cells that ..."}
_FIELD: dict[str, Any] = {"field": "bm25", "score": 2.5, "contribution": 2.5, "terms": [_TERM], "tokens": [], "sentences": []}
_FIELD |= {"measure": ""}
_STAGE: dict[str, Any] = {"stage": "bm25", "rank": 1, "score": 2.5, "fields": [_FIELD], "n_scored": 120}
_HIT |= {"metadata": {"year": 2021}, "explanation": {"score": 2.5, "stages": [_STAGE]}, "unreadable": False}


READS = "When timings are asked for: what each stage read from disk, of stages that did."
TIMINGS = "When asked for: milliseconds of each stage, for all queries of the request; `encode` includes waiting."


_NOT_ASKED: dict[str, Any] = {"timings_ms": None, "reads": None}


class OneAnswer(BaseModel):
    """Results of one query, best first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"results": [_HIT], "took_ms": 3.1, **_NOT_ASKED}]})

    results: list[Hit]
    took_ms: float = Field(description="Milliseconds from the parsed request to the results, waiting included.")
    timings_ms: dict[str, float] | None = Field(None, description=TIMINGS)
    reads: dict[str, Reads] | None = Field(None, description=READS)


class ManyAnswer(BaseModel):
    """Results of several queries: one list per query, in the order of the queries, each best first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"results": [[_HIT], []], "took_ms": 4.7, **_NOT_ASKED}]})

    results: list[list[Hit]]
    took_ms: float = Field(description="Milliseconds from the parsed request to the results, waiting included.")
    timings_ms: dict[str, float] | None = Field(None, description=TIMINGS)
    reads: dict[str, Reads] | None = Field(None, description=READS)


_BM25: dict[str, Any] = {"representation": "sparse", "encoder": {"kind": "bm25", "fingerprint": "bm25:0123456789abcdef"}}
_INDEX: dict[str, Any] = {"generation": 1, "n_docs": 5183, "search": "bm25", "fields": {"bm25": _BM25}}


class IndexInfo(RootModel[dict[str, Any]]):
    """Facts about the index: its fields with their encoders, its size, its default search."""

    model_config = ConfigDict(json_schema_extra={"examples": [_INDEX]})


class Status(BaseModel):
    """The state of the process."""

    status: Literal["ok"] = "ok"


ErrorType = Literal[
    "invalid_request",
    "invalid_filter",
    "invalid_search",
    "invalid_options",
    "representation",
    "not_found",
    "method_not_allowed",
    "timeout",
    "body_too_large",
    "unsupported_media_type",
    "encoder_mismatch",
    "storage",
    "overloaded",
    "deadline",
    "unavailable",
    "internal",
]


class ErrorFacts(BaseModel):
    """What went wrong: ``type`` for programs, ``message`` for people."""

    type: ErrorType
    message: str


class ErrorBody(BaseModel):
    """The one shape of every error."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"error": {"type": "not_found", "message": "no document '4983'"}}]}
    )

    error: ErrorFacts
