"""Bodies that change indexes, and the job that each of them becomes."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from ...index.document_buffer import MAX_DOCUMENT_ID_BYTES
from ..limits import Limits
from .errors import ErrorFacts

DocId = Annotated[str, Field(min_length=1, max_length=MAX_DOCUMENT_ID_BYTES)]
Wait = Annotated[bool, Field(description="Answer when the job has ended, or its time is up; else at once, with 202.")]
MAX_SPEC_CHARS = 1000
ENCODER = "`[NAME=]MODEL[,SETTING=VALUE]...`: bm25, a model that comes with lexmax, or muvera of another field."


def _strict(*examples: dict[str, Any]) -> ConfigDict:
    found = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    return found | {"json_schema_extra": {"examples": list(examples)}} if examples else found


class DocumentBody(BaseModel):
    """A document to add."""

    model_config = _strict()

    doc_id: DocId
    text: str
    title: str = ""
    metadata: dict[str, Any] = {}


class AddBody(BaseModel):
    """Documents to add, all of them or none."""

    model_config = _strict({"documents": [{"doc_id": "7", "text": "Cells that ...", "metadata": {"year": 2021}}]})

    documents: list[DocumentBody]
    replace: bool = Field(False, description="Replace documents of the same id; otherwise they are refused with 409.")
    wait: Wait = True


class DeleteBody(BaseModel):
    """Documents to delete."""

    model_config = _strict({"doc_ids": ["7", "12"]})

    doc_ids: list[DocId]
    wait: Wait = True


class CompactBody(BaseModel):
    """A compaction."""

    model_config = _strict({"wait": False})

    wait: Wait = True


class FieldBody(BaseModel):
    """A vector field to add, filled from the texts of the documents."""

    model_config = _strict({"encoder": "splade=lexmax-splade", "search": "bm25 + splade"})

    encoder: str = Field(max_length=MAX_SPEC_CHARS, description=ENCODER)
    search: str | None = Field(None, max_length=MAX_SPEC_CHARS, description="The new default search, once the field is there.")
    wait: Wait = False


class IndexBody(BaseModel):
    """An index to make."""

    model_config = _strict({"name": "news", "encoders": ["bm25", "splade=lexmax-splade"]})

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    encoders: Annotated[list[Annotated[str, Field(max_length=MAX_SPEC_CHARS, description=ENCODER)]], Field(min_length=1)]
    search: str | None = Field(None, max_length=MAX_SPEC_CHARS, description="The default search; by default one of its fields.")
    wait: Wait = True


def writing_bodies(limits: Limits) -> tuple[Any, Any]:
    """Return the types of the bodies of additions and deletions, within the limits."""
    documents = Annotated[list[DocumentBody], Field(min_length=1, max_length=limits.max_documents)]
    doc_ids = Annotated[list[DocId], Field(min_length=1, max_length=limits.max_documents)]
    add = create_model("AddBody", __base__=AddBody, __doc__=AddBody.__doc__, documents=(documents, ...))
    delete = create_model("DeleteBody", __base__=DeleteBody, __doc__=DeleteBody.__doc__, doc_ids=(doc_ids, ...))
    return add, delete


JobKind = Literal["add", "delete", "compact", "field", "index"]
JobState = Literal["queued", "running", "done", "failed"]


class JobAnswer(BaseModel):
    """A job. When it is ``done``, what it did is on the disk, and searches see it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "3f9a0c12b6e1d004", "kind": "add", "index": "news", "state": "done", "n_done": 1, "n_total": 1,
                    "result": {"added": 1, "replaced": 0, "generation": 7}, "created": "2026-11-29T12:00:00.000Z",
                    "elapsed_ms": 41.5,
                }
            ]
        }
    )  # fmt: skip

    id: str
    kind: JobKind
    index: str
    state: JobState
    n_done: int = Field(description="Documents that are encoded, of `n_total`.")
    n_total: int
    result: dict[str, Any] | None = Field(None, description="What a job that is done did.")
    error: ErrorFacts | None = Field(None, description="Why a job failed: nothing of it is in the index.")
    created: str
    elapsed_ms: float = Field(description="Since it was taken.")


class JobsAnswer(BaseModel):
    """The jobs of this process, newest first."""

    jobs: list[JobAnswer]
