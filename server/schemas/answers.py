"""Bodies of answers: results, documents, facts, state."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from ...retrieval.searchers.explanation import Explanation


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
    """One result; ``explanation`` is null without ``explain``, and so is what ``include`` leaves out."""

    doc_id: str
    score: float
    title: str | None
    text: str | None
    metadata: dict[str, Any] | None
    explanation: Explanation | None
    unreadable: bool = Field(
        False, description="Its tokens could not be read (`unreadable: keep`): the score is that of the stage before."
    )


class Reads(BaseModel):
    """What a stage read from disk: records of documents, in so many reads of so many bytes; and records that it could not.

    ``n_guessed`` of the records were read while the stage before was at work, and ``n_hits`` of those were wanted.
    """

    n_records: int
    n_reads: int
    n_bytes: int
    n_unreadable: int
    n_guessed: int
    n_hits: int


_TERM: dict[str, Any] = {"term": "solar", "score": 2.5, "query_weight": 1.25, "document_weight": 2.0}
_TERM |= {"query_expanded": False, "document_expanded": False}
_HIT: dict[str, Any] = {"doc_id": "4983", "score": 2.5, "title": "Solar cells", "text": "Cells that ..."}
_FIELD: dict[str, Any] = {"field": "bm25", "score": 2.5, "contribution": 2.5, "terms": [_TERM], "tokens": [], "sentences": []}
_FIELD |= {"measure": ""}
_STAGE: dict[str, Any] = {"stage": "bm25", "rank": 1, "score": 2.5, "fields": [_FIELD], "n_scored": 120}
_HIT |= {"metadata": {"year": 2021}, "explanation": {"score": 2.5, "stages": [_STAGE]}, "unreadable": False}


READS = "When timings are asked for: what each stage read from disk, of stages that did."
MISSING = "When partial answers are asked for: the shards that did not answer, whose documents are left out."
TIMINGS = "When asked for: milliseconds of each stage, for all queries of the request; `encode` includes waiting."


_NOT_ASKED: dict[str, Any] = {"timings_ms": None, "reads": None, "missing_shards": None}


class OneAnswer(BaseModel):
    """Results of one query, best first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"results": [_HIT], "took_ms": 3.1, **_NOT_ASKED}]})

    results: list[Hit]
    took_ms: float = Field(description="Milliseconds from the parsed request to the results, waiting included.")
    timings_ms: dict[str, float] | None = Field(None, description=TIMINGS)
    reads: dict[str, Reads] | None = Field(None, description=READS)
    missing_shards: list[str] | None = Field(None, description=MISSING)


class ManyAnswer(BaseModel):
    """Results of several queries: one list per query, in the order of the queries, each best first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"results": [[_HIT], []], "took_ms": 4.7, **_NOT_ASKED}]})

    results: list[list[Hit]]
    took_ms: float = Field(description="Milliseconds from the parsed request to the results, waiting included.")
    timings_ms: dict[str, float] | None = Field(None, description=TIMINGS)
    reads: dict[str, Reads] | None = Field(None, description=READS)
    missing_shards: list[str] | None = Field(None, description=MISSING)


_BM25: dict[str, Any] = {"representation": "sparse", "encoder": {"kind": "bm25", "fingerprint": "bm25:0123456789abcdef"}}
_INDEX: dict[str, Any] = {"generation": 1, "n_docs": 5183, "search": "bm25", "fields": {"bm25": _BM25}}


class IndexInfo(RootModel[dict[str, Any]]):
    """Facts about the index: its fields with their encoders, its size, its default search."""

    model_config = ConfigDict(json_schema_extra={"examples": [_INDEX]})


class NamedIndex(BaseModel):
    """One of the indexes of a server."""

    name: str
    ready: bool = Field(description="Whether it is open and warm.")
    n_docs: int | None = Field(description="Documents; null until it is open.")
    generation: int | None = Field(description="Number of the commit that is searched.")
    search: str | None = Field(description="The default search expression.")
    fields: list[str] | None = Field(description="Its vector fields.")
    error: str | None = Field(None, description="Why it cannot be opened; the log has the whole of it.")


class IndexesAnswer(BaseModel):
    """The indexes of a server."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "indexes": [
                        {"name": "news", "ready": True, "n_docs": 5183, "generation": 1, "search": "bm25", "fields": ["bm25"]}
                    ],
                    "default": "news",
                }
            ]
        }
    )

    indexes: list[NamedIndex]
    default: str | None = Field(description="The one that addresses without a name mean; null where there are several.")


class Status(BaseModel):
    """The state of the process."""

    status: Literal["ok"] = "ok"
