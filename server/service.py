"""One retriever at work: admission, the common encoder batch, searches on threads, readiness, shutdown."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .batching import Batcher
from .checks import check_filter, check_search, check_size
from .errors import RefusedError
from .schemas import (
    DocumentAnswer,
    Hit,
    IndexInfo,
    Limits,
    ManyAnswer,
    OneAnswer,
    SearchMany,
    SearchOne,
)

if TYPE_CHECKING:
    from ..retrieval.results import Result, Results
    from ..retrieval.retriever import Retriever

logger = logging.getLogger(__name__)

CLOSE_S = 5.0  # what threads get to end after their requests were cut

T = TypeVar("T")


class Service:
    """One retriever at work: its threads, its queue, its readiness.

    Every call to the retriever that takes long runs in one of two thread pools, the encoder's and ``_threads``, so that
    ``close`` can wait for all of them before the files under them are unmapped.
    """

    def __init__(self, retriever: "Retriever", limits: Limits) -> None:
        self.ready = False
        self._retriever = retriever
        self._limits = limits
        self._n_waiting = 0
        self._batcher = Batcher(retriever.encode, max_batch=limits.max_batch)
        self._threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="lexmax-search")
        self._running: set[Future[Any]] = set()

    async def search(self, body: SearchOne | SearchMany) -> str:
        """Answer a search with the JSON of a ``OneAnswer`` or ``ManyAnswer``."""
        started = time.perf_counter()
        texts = [body.query] if isinstance(body, SearchOne) else body.queries
        self.check_ready()
        check_size(body, texts, self._limits)
        # A default that a reload replaces meanwhile would not fit the vectors, so it is read once.
        search = self._retriever.default_search if body.search is None else body.search
        fields = check_search(self._retriever, search, body, len(texts), self._limits)
        with self._admitted(len(texts)):
            if body.filter is not None:
                await self._in_thread(lambda: check_filter(self._retriever, body.filter))
            encoding = time.perf_counter()
            vectors = await self._batcher.encode(texts, fields, search)
            encode_ms = (time.perf_counter() - encoding) * 1000

            def answer() -> str:
                found = self._retriever.search_vectors(
                    vectors, texts, body.k, search=search, filter=body.filter, options=body.options,
                    explain=body.explain, timings=body.timings,
                )  # fmt: skip
                return _answer(body, found, encode_ms, started)

            return await self._in_thread(answer)

    async def document(self, doc_id: str) -> DocumentAnswer:
        """Return a document; 404 when there is none."""
        document = await self._in_thread(lambda: self._retriever.document(doc_id))
        if document is None:
            raise RefusedError(404, "not_found", f"no document {doc_id[:200]!r}")
        return DocumentAnswer(
            doc_id=document.doc_id, title=document.title, text=document.text, metadata=dict(document.metadata)
        )

    async def info(self) -> IndexInfo:
        """Return the facts about the index that are no secrets: all but places on this machine."""
        facts = await self._in_thread(self._retriever.info)
        return IndexInfo(_without_places({name: fact for name, fact in facts.items() if name != "path"}))

    def check_ready(self) -> None:
        """Raise RefusedError, 503, while the index is warmed and once the server shuts down."""
        if not self.ready:
            raise RefusedError(503, "unavailable", "not ready: warming up or shutting down", {"Retry-After": "1"})

    async def keep_fresh(self, every_s: float) -> None:
        """Warm up until it works once, then look for new commits, for ever."""
        while True:
            try:
                if not self.ready:
                    await self._in_thread(self._retriever.warm)
                    self.ready = True
                    logger.info("warm and ready")
                elif await self._in_thread(self._retriever.reload):
                    logger.info("opened a newer snapshot of the index")
            except Exception:
                # Nothing is lost: the snapshot that is open keeps answering, and the next round tries again.
                logger.exception("warm-up or reload failed; the next attempt is in %g s", every_s)
            await asyncio.sleep(every_s)

    async def close(self, within_s: float = CLOSE_S) -> None:
        """Let what runs in threads finish, then close the retriever.

        Threads cannot be stopped. Where one is at work for longer than ``within_s`` the retriever stays open under it, and
        `busy` stays true.
        """
        self.ready = False
        deadline = time.monotonic() + within_s
        await self._batcher.close(within_s)
        while (self.busy or self._n_waiting) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        if self.busy or self._n_waiting:
            logger.warning("threads are still at work after %g s", within_s)
        else:
            await self._in_thread(self._retriever.close)
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def busy(self) -> bool:
        """Whether a thread is at work, be it for a request that is gone."""
        return self._batcher.busy or bool(self._running)

    @contextlib.contextmanager
    def _admitted(self, n_queries: int) -> Iterator[None]:
        """Hold a place for every query from here to its answer; 503 when there are too few."""
        if self._n_waiting + n_queries > self._limits.max_waiting:
            message = f"{self._n_waiting} queries are waiting already: try again in a second"
            raise RefusedError(503, "overloaded", message, {"Retry-After": "1"})
        self._n_waiting += n_queries
        try:
            yield
        finally:
            self._n_waiting -= n_queries

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Run work in a thread; when the caller is cancelled, work that has not begun is too."""
        running = self._threads.submit(work)
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        return await asyncio.wrap_future(running)


def _answer(body: SearchOne | SearchMany, found: "list[Results]", encode_ms: float, started: float) -> str:
    """Write the JSON: in a thread, since a full batch of results takes long to write."""
    hits = [[_hit(result, include_text=body.include_text) for result in results] for results in found]
    timings_ms = {"encode": encode_ms, **found[0].timings_ms} if body.timings else None
    took_ms = (time.perf_counter() - started) * 1000
    if isinstance(body, SearchOne):
        return OneAnswer(results=hits[0], took_ms=took_ms, timings_ms=timings_ms).model_dump_json()
    return ManyAnswer(results=hits, took_ms=took_ms, timings_ms=timings_ms).model_dump_json()


def _hit(result: "Result", *, include_text: bool) -> Hit:
    return Hit(
        doc_id=result.doc_id,
        score=result.score,
        title=result.title,
        text=result.text if include_text else None,
        metadata=dict(result.metadata),
        explanation=result.explanation,
    )


def _without_places(facts: Any) -> Any:
    """Cut every path down to its last name; a model's id, which looks like one, stays whole."""
    if isinstance(facts, dict):
        return {name: _without_places(fact) for name, fact in facts.items()}
    if isinstance(facts, list | tuple):
        return [_without_places(fact) for fact in facts]
    if isinstance(facts, str) and "/" in facts:
        # os.path takes any string, where Path.exists raises at a long one.
        is_place = facts.startswith(("/", ".", "~")) or os.path.exists(facts)  # noqa: PTH110
        return Path(facts).name if is_place else facts
    return facts
