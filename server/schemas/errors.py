"""The one shape of every error."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

ErrorType = Literal[
    "invalid_request",
    "invalid_filter",
    "invalid_search",
    "invalid_options",
    "invalid_vectors",
    "representation",
    "unauthorized",
    "forbidden",
    "not_found",
    "conflict",
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
