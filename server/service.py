"""One retriever at work: admission, the common encoder batch, searches on threads, readiness, shutdown."""

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ..index.errors import StorageError
from .answers import Piece, WrittenAnswer, write_piece
from .batching import Batcher, Encoded
from .checks import check_filter, check_search, check_size, impressions_of
from .errors import RefusedError
from .limits import Limits
from .payloads import Share
from .schemas import DocumentAnswer, FeedbackAnswer, FeedbackBody, IndexInfo, SearchMany, SearchOne

if TYPE_CHECKING:
    from ..retrieval.feedback.clicks import Impression
    from ..retrieval.feedback.log import ClickLog
    from ..retrieval.retriever import Retriever

logger = logging.getLogger(__name__)

CLOSE_S = 5.0  # what threads get to end after their requests were cut
ENCODED_TOGETHER = 32  # queries of all requests in one call of the encoders
PIECE_TEXTS, PIECE_HITS = 16, 1000  # queries and results of one request that go together
LOGGING_AT_ONCE = 64  # requests that log feedback or wait for it
SMOOTHING = 8  # answers that the pace is an average of

T = TypeVar("T")


class Service:
    """One retriever at work: its threads, its queue, its readiness.

    Every call to the retriever that takes long runs in one of two thread pools, the encoder's and ``_threads``, so that
    ``close`` can wait for all of them before the files under them are unmapped. A thread cannot be stopped, so a request of
    many queries goes piece by piece: one that is out of time, or whose client left, ends with the piece at hand, or with the
    explanation.

    Attributes
    ----------
    ready : bool
        Whether the index is open and warm, and the server not about to end.
    failure : Exception or None
        Why the index could not be opened.
    """

    def __init__(self, open_retriever: "Callable[[], Retriever]", limits: Limits) -> None:
        self.ready = False
        self.failure: Exception | None = None
        self._open = open_retriever
        self._opened: Retriever | None = None
        self._limits = limits
        self._n_waiting = 0
        self._pace_s, self._answered_at = 0.0, 0.0  # seconds from one answered query to the next, of late; when the last was
        self._batcher = Batcher(lambda texts, search: self._retriever.encode(texts, search), max_batch=ENCODED_TOGETHER)
        self._threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="lexmax-search")
        self._running: set[Future[Any]] = set()
        self._logging, self._n_logging = asyncio.Lock(), 0

    async def search(self, body: SearchOne | SearchMany, held: Share) -> list[bytes]:
        """Answer a search with the JSON of a ``OneAnswer`` or ``ManyAnswer``, in parts, which ``held`` counts."""
        texts = [body.query] if isinstance(body, SearchOne) else body.queries
        self.check_ready()
        check_size(body, texts, self._limits)
        # A default that a reload replaces meanwhile would not fit the vectors, so it is read once.
        search = self._retriever.default_search if body.search is None else body.search
        fields = check_search(self._retriever, search, body, len(texts), self._limits)
        written = WrittenAnswer(body, len(texts), self._limits.max_answer_bytes, held)
        async with self._in_time(body.timeout_s):
            with self._admitted(len(texts), body.timeout_s or self._limits.deadline_s), _ending() as checkpoint:
                if body.filter is not None:
                    await self._in_thread(lambda: check_filter(self._retriever, body.filter))
                for piece in _pieces(texts, body.k):
                    encoding = time.perf_counter()
                    vectors = await self._batcher.encode(piece, fields, search)
                    encode_ms = (time.perf_counter() - encoding) * 1000
                    work = partial(self._search_piece, body, search, piece, vectors, encode_ms, checkpoint)
                    written.add(await self._in_thread(work))
        return written.parts()

    def _search_piece(
        self, body: SearchOne | SearchMany, search: str, texts: Sequence[str], vectors: Encoded, encode_ms: float,
        checkpoint: Callable[[], None],
    ) -> Piece:  # fmt: skip
        found = self._retriever.search_vectors(
            vectors, texts, body.k, search=search, filter=body.filter, options=body.options, boost=body.boost,
            feedback=body.feedback, explain=body.explain, timings=body.timings, checkpoint=checkpoint,
        )  # fmt: skip
        return write_piece(body, found, encode_ms)

    async def feedback(self, body: FeedbackBody) -> FeedbackAnswer:
        """Log impressions; 404 where the server keeps no log, 507 where it is full or cannot be written."""
        self.check_ready()
        log = self._retriever.clicks
        if log is None:
            raise RefusedError(404, "not_found", "this server keeps no click log: `lexmax serve IDX --feedback LOG` does")
        impressions = impressions_of(body)
        if self._n_logging >= LOGGING_AT_ONCE:
            raise RefusedError(503, "overloaded", "too much feedback is being logged: try again", {"Retry-After": "1"})
        self._n_logging += 1
        try:
            async with self._in_time(), self._logging:  # one thread at most waits for the disk
                n_unknown = await self._in_thread(partial(self._log, log, impressions))
        finally:
            self._n_logging -= 1
        return FeedbackAnswer(logged=len(impressions), unknown_documents=n_unknown)

    def _log(self, log: "ClickLog", impressions: "Sequence[Impression]") -> int:
        try:
            log.add(impressions)
        except StorageError as error:
            logger.error("feedback was not logged: %s", error)
            message = "the click log is full or cannot be written, nothing was logged; the server's log says why"
            raise RefusedError(507, "storage", message) from None
        shown = {doc_id for impression in impressions for doc_id in impression.shown}
        return int((self._retriever.snapshot.find(sorted(shown)) < 0).sum())

    async def document(self, doc_id: str) -> DocumentAnswer:
        """Return a document; 404 when there is none."""
        async with self._in_time():
            document = await self._in_thread(lambda: self._retriever.document(doc_id))
        if document is None:
            raise RefusedError(404, "not_found", f"no document {doc_id[:200]!r}")
        return DocumentAnswer(
            doc_id=document.doc_id, title=document.title, text=document.text, metadata=dict(document.metadata)
        )

    async def info(self) -> IndexInfo:
        """Return the facts about the index that are no secrets: all but places on this machine."""
        async with self._in_time():
            facts = await self._in_thread(self._retriever.info)
        return IndexInfo(_without_places({name: fact for name, fact in facts.items() if name != "path"}))

    def check_ready(self) -> None:
        """Raise RefusedError, 503, until the index is open and warm and once the server shuts down."""
        if not self.ready:
            message = "not ready: opening the index, warming up or shutting down"
            raise RefusedError(503, "unavailable", message, {"Retry-After": "1"})

    async def keep_fresh(self, every_s: float) -> None:
        """Open the index, warm up until it works once, then look for new commits, for ever.

        Where it cannot be opened that is the end: `failure` tells why.
        """
        try:
            self._opened = await self._in_thread(self._open)
        except Exception as error:
            self.failure = error
            return
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
        elif self._opened is not None:
            await self._in_thread(self._opened.close)
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def busy(self) -> bool:
        """Whether a thread is at work, be it for a request that is gone."""
        return self._batcher.busy or bool(self._running)

    @property
    def _retriever(self) -> "Retriever":
        if self._opened is None:
            self.check_ready()
        return cast("Retriever", self._opened)

    @contextlib.asynccontextmanager
    async def _in_time(self, seconds: float | None = None) -> AsyncIterator[None]:
        """Give up with 503 after so many seconds, by default the server's deadline."""
        seconds = seconds or self._limits.deadline_s
        try:
            async with asyncio.timeout(seconds) as clock:
                yield
        except TimeoutError:
            if not clock.expired():
                raise
            message = f"no answer within {seconds:g} s: the server is busy, or the request asks for too much"
            raise RefusedError(503, "deadline", message, {"Retry-After": "1"}) from None

    @contextlib.contextmanager
    def _admitted(self, n_queries: int, seconds: float) -> Iterator[None]:
        """Hold a place for every query from here to its answer; 503 when there are too few, or too many for the time given.

        Work on a request that is too late in the end is lost to those that were not, so it is refused at once.
        """
        wait_s = self._n_waiting * self._pace_s
        if self._n_waiting + n_queries > self._limits.max_waiting or wait_s > seconds:
            message = f"{self._n_waiting} queries are waiting already, some {wait_s:.1f} s of work: try again later"
            raise RefusedError(503, "overloaded", message, {"Retry-After": str(max(1, round(wait_s - seconds)))})
        started = time.perf_counter()
        self._n_waiting += n_queries
        try:
            yield
            now = time.perf_counter()
            took_s = (now - max(started, self._answered_at)) / n_queries
            self._pace_s += (took_s - self._pace_s) / SMOOTHING
            self._answered_at = now
        finally:
            self._n_waiting -= n_queries

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Run work in a thread; when the caller is cancelled, work that has not begun is too."""
        running = self._threads.submit(work)
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        return await asyncio.wrap_future(running)


@contextlib.contextmanager
def _ending() -> Iterator[Callable[[], None]]:
    """What a thread calls between steps of its work; it raises CancelledError once nobody waits for the answer."""
    over = threading.Event()

    def checkpoint() -> None:
        if over.is_set():
            raise CancelledError

    try:
        yield checkpoint
    finally:
        over.set()


def _pieces(texts: Sequence[str], k: int) -> Iterator[Sequence[str]]:
    """Cut the queries of a request so that a piece takes a thread for a moment only."""
    n_texts = max(1, min(PIECE_TEXTS, PIECE_HITS // k))
    for at in range(0, len(texts), n_texts):
        yield texts[at : at + n_texts]


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
