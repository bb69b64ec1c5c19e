"""What is noted of a request while it is answered, for the access log and metrics."""

import os
import re
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import cast

from starlette.types import Scope

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


@dataclass(slots=True)
class Notes:
    """One request.

    Attributes
    ----------
    request_id : str
        The client's, where it sent a sound one in ``X-Request-Id``.
    started : float
        Of `time.perf_counter`, when its head was there.
    method : str
    status : int
        0 where nothing was answered.
    n_bytes : int
        Of the answer's body.
    key : str
        Name of the API key; empty without one.
    index : str
        Empty where the request is about none.
    n_queries, k : int
    stages_ms : dict of str to float
        Stage of a search -> milliseconds.
    """

    request_id: str
    started: float
    method: str
    status: int = 0
    n_bytes: int = 0
    key: str = ""
    index: str = ""
    n_queries: int = 0
    k: int = 0
    stages_ms: dict[str, float] = field(default_factory=dict)


def notes_of(scope: Scope) -> Notes:
    """Return the notes of a request, made when they are first asked for."""
    if "notes" not in scope:
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        known = given.decode() if REQUEST_ID.fullmatch(given) else os.urandom(12).hex()
        scope["notes"] = Notes(known, time.perf_counter(), scope["method"])
    return cast("Notes", scope["notes"])


def stage_kind(stage: str, fields: Collection[str]) -> str:
    """Return what a stage is counted as: expressions are written by clients, and so are no labels."""
    if stage == "encode":
        return stage
    if stage.startswith(">"):
        return "rerank"
    name = stage.partition(":")[0]
    return name if name in fields else "fusion"
