"""Jobs: what was asked of the writer, how far it is, and how it ended."""

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ...index.documents import Document
from ..errors import RefusedError
from ..schemas.errors import ErrorFacts
from ..schemas.writing import JobAnswer, JobKind, JobState

if TYPE_CHECKING:
    from ..searching.service import Service

KEPT = 1000  # jobs that have ended and can still be asked for


@dataclass(eq=False, kw_only=True)
class Job:
    """One change of one index. Its numbers are set by the writer's thread, its end by the event loop."""

    kind: JobKind
    index: str
    service: "Service | None" = None
    """Of the index; None of one that is to be made."""
    documents: list[Document] = field(default_factory=list)
    replace: bool = False
    doc_ids: list[str] = field(default_factory=list)
    change: "Callable[[Job], dict[str, Any]] | None" = None
    """What the other kinds do, in the writer's thread; returns the result."""
    n_total: int = 1
    n_done: int = 0
    state: JobState = "queued"
    result: dict[str, Any] | None = None
    failure: RefusedError | None = None
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    started: float = field(default_factory=time.monotonic)
    elapsed_s: float | None = None

    def end(self, result: dict[str, Any] | None, failure: RefusedError | None = None) -> None:
        """Note how it ended, and wake those who wait for it; what it held is given up."""
        self.result, self.failure = result, failure
        self.state = "failed" if failure else "done"
        if failure is None:
            self.n_done = self.n_total
        self.elapsed_s = time.monotonic() - self.started
        self.documents, self.change = [], None
        self.ended.set()

    def answer(self) -> JobAnswer:
        """Return what is told of it."""
        failure = self.failure
        elapsed_s = time.monotonic() - self.started if self.elapsed_s is None else self.elapsed_s
        return JobAnswer(
            id=self.id, kind=self.kind, index=self.index, state=self.state, n_done=self.n_done, n_total=self.n_total,
            result=self.result, error=None if failure is None else ErrorFacts(type=failure.kind, message=failure.message),
            created=self.created.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            elapsed_ms=elapsed_s * 1000,
        )  # fmt: skip


class Jobs:
    """The jobs of a server, by id: those to come, and the last that have ended."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Job] = OrderedDict()

    def add(self, job: Job) -> None:
        """Take a job, and forget the oldest that has ended where there are many."""
        self._jobs[job.id] = job
        if len(self._jobs) > KEPT:
            oldest = next((each for each in self._jobs.values() if each.ended.is_set()), None)
            if oldest is not None:
                del self._jobs[oldest.id]

    def get(self, job_id: str) -> Job:
        """Return a job; RefusedError, 404, where there is none."""
        if job_id not in self._jobs:
            message = f"no job {job_id[:100]!r}: a server knows the last {KEPT} since it was started"
            raise RefusedError(404, "not_found", message)
        return self._jobs[job_id]

    def newest(self) -> list[Job]:
        """Return all, newest first."""
        return list(reversed(self._jobs.values()))
