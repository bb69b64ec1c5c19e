"""The one writer of a server: a queue of jobs, and a thread that does them in their order.

::

    request -> Job -> queue -> thread: encode, lock, change, commit, reload -> "done"
                                  (additions and deletions of one index that wait go together)
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...retrieval.build import build_index
from ...retrieval.encoders.specs import EncoderSpec
from ..errors import RefusedError
from ..indexes import Indexes
from ..limits import Limits
from .changes import Outcome, write_documents
from .failures import failure_of
from .jobs import Job, Jobs

if TYPE_CHECKING:
    from ...retrieval.retriever import Retriever

TOGETHER = 20_000  # documents of jobs that share a commit
READY_EVERY_S = 0.02

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Home:
    """Where new indexes are made.

    Attributes
    ----------
    folder : Path
    open : callable
        Opens an index by name and folder.
    """

    folder: Path
    open: "Callable[[str, Path], Retriever]"


class Writer:
    """Does jobs one after the other; belongs to one event loop.

    Parameters
    ----------
    indexes : Indexes
    limits : Limits
    home : Home or None
        None: no index can be made.
    """

    def __init__(self, indexes: Indexes, limits: Limits, home: Home | None = None) -> None:
        self.jobs = Jobs()
        self.home, self._indexes, self._limits = home, indexes, limits
        self._queue: deque[Job] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lexmax-write")
        self._worker: asyncio.Task[None] | None = None
        self._closed = self.busy = False

    def submit(self, job: Job) -> Job:
        """Take a job.

        Raises
        ------
        RefusedError
            503: too many wait, or the server ends.
        """
        if self._closed:
            raise RefusedError(503, "unavailable", "the server is shutting down", {"Retry-After": "1"})
        if len(self._queue) >= self._limits.max_jobs:
            message = f"{len(self._queue)} changes are waiting already: try again later"
            raise RefusedError(503, "overloaded", message, {"Retry-After": "5"})
        self.jobs.add(job)
        self._queue.append(job)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return job

    async def wait(self, job: Job, seconds: float) -> bool:
        """Wait for the end of a job; False where it has not come in time. The job goes on."""
        try:
            async with asyncio.timeout(seconds):
                await job.ended.wait()
        except TimeoutError:
            return job.ended.is_set()
        return True

    async def close(self, within_s: float) -> None:
        """Take no more, give up what waits, and let the job at hand end."""
        self._closed = True
        while self._queue:
            self._queue.popleft().end(None, RefusedError(503, "unavailable", "the server was shut down before this was begun"))
        if self._worker is not None:
            await asyncio.wait({self._worker}, timeout=within_s)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        while self._queue:
            jobs = self._take()
            for job in jobs:
                job.state = "running"
            self.busy = True
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._run, jobs, self._teller())
                if jobs[0].kind == "index" and not jobs[0].ended.is_set():
                    await self._open(jobs[0])
            except Exception as error:
                for job in jobs:
                    if not job.ended.is_set():
                        job.end(None, failure_of(error, job.id, None))
            finally:
                self.busy = False

    def _take(self) -> list[Job]:
        """Pop the oldest, and those after it that can share its commit."""
        jobs = [self._queue.popleft()]
        n_documents = len(jobs[0].documents)
        while self._queue and _shares(jobs[0]) and _shares(self._queue[0]) and self._queue[0].service is jobs[0].service:
            n_documents += len(self._queue[0].documents)
            if n_documents > TOGETHER:
                break
            jobs.append(self._queue.popleft())
        return jobs

    def _teller(self) -> Callable[[Job, Outcome], None]:
        """Return what the thread calls when a job has ended: the loop is told, in order."""
        loop = asyncio.get_running_loop()

        def told(job: Job, outcome: Outcome) -> None:
            folder = None if job.service is None else job.service.retriever.snapshot.path
            if isinstance(outcome, Exception):
                loop.call_soon_threadsafe(job.end, None, failure_of(outcome, job.id, folder))
            else:
                loop.call_soon_threadsafe(job.end, outcome)

        return told

    def _run(self, jobs: list[Job], ended: Callable[[Job, Outcome], None]) -> None:
        """Do jobs (in the writer's thread)."""
        job = jobs[0]
        if _shares(job) and job.service is not None:
            try:
                write_documents(job.service.retriever, jobs, ended)
            except Exception as error:
                for each in jobs:
                    ended(each, error)
            return
        try:
            result = job.change(job) if job.change is not None else {}
        except Exception as error:
            ended(job, error)
            return
        if job.kind == "index":
            job.result = result  # it ends once the index is open
        else:
            ended(job, result)

    async def _open(self, job: Job) -> None:
        """Serve an index that was made, and end its job."""
        if self.home is None:
            raise RuntimeError("an index was made without a home")
        service = self._indexes.add(job.index, partial(self.home.open, job.index, self.home.folder / job.index))
        while not service.ready and service.failure is None:
            await asyncio.sleep(READY_EVERY_S)
        if service.failure is not None:
            self._indexes.remove(job.index)
            raise service.failure
        job.end(job.result)


def make_index(folder: Path, specs: list[EncoderSpec], search: str | None, device: str, job: Job) -> dict[str, Any]:
    """Make an empty index; what a job of kind "index" does."""
    build_index(documents=[], out=folder, encoders=specs, search=search, device=device)
    return {"fields": [spec.name for spec in specs], "generation": 1}


def _shares(job: Job) -> bool:
    return job.kind in ("add", "delete")
