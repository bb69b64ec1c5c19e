"""Bodies of feedback: what users saw and clicked."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from ...retrieval.feedback.clicks import MAX_QUERY_CHARS, MAX_RANK, MAX_SHOWN
from ..limits import Limits
from .searches import whole


class ImpressionBody(BaseModel):
    """What one user saw and clicked."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    query: str = Field(max_length=MAX_QUERY_CHARS)
    shown: list[str] = Field(
        min_length=1, max_length=MAX_SHOWN, description="doc_ids in the order in which they were shown, none twice."
    )
    clicked: list[str] = Field([], max_length=MAX_SHOWN, description="Those of them that were clicked.")
    first_rank: Annotated[int, BeforeValidator(whole)] = Field(
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
