"""One retriever at work: admission, the common encoder batch, searches on threads, readiness, shutdown."""

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from ...index.errors import StorageError
from ...index.representations import Vectors
from ..errors import RefusedError
from ..limits import Limits
from ..schemas.answers import DocumentAnswer, IndexInfo, NamedIndex
from ..schemas.feedback import FeedbackAnswer, FeedbackBody
from ..schemas.searches import Search
from ..transport.payloads import Share
from .admission import Admission
from .answers import Piece, WrittenAnswer, write_piece
from .batching import Batcher, Encoded
from .checks import check_filter, check_search, check_size, impressions_of
from .facts import without_places
from .vectors import query_vectors

if TYPE_CHECKING:
    from ...retrieval.feedback.clicks import Impression
    from ...retrieval.feedback.log import ClickLog
    from ...retrieval.retriever import Retriever

logger = logging.getLogger(__name__)

CLOSE_S = 5.0  # what threads get to end after their requests were cut
ENCODED_TOGETHER = 32  # queries of all requests in one call of the encoders
PIECE_TEXTS, PIECE_HITS = 16, 1000  # queries and results of one request that go together
LOGGING_AT_ONCE = 64  # requests that log feedback or wait for it

T = TypeVar("T")


class Service:
    """One retriever at work: its threads, its queue, its readiness.

    Every call to the retriever that takes long runs in one of two thread pools, the encoder's and ``_threads``, so that
    ``close`` can wait for all of them before the files under them are unmapped. A thread cannot be stopped, so a request of
    many queries goes piece by piece: one that is out of time, or whose client left, ends with the piece at hand, or with the
    explanation.

    Attributes
    ----------
    name : str
    required : bool
        Whether the server is only ready with it, and ends where it cannot be opened.
    on_batch : callable
        Called with the number of queries of each batch that is encoded, in the encoder's thread.
    ready : bool
        Whether the index is open and warm, and the server not about to end.
    failure : Exception or None
        Why the index could not be opened.
    """

    def __init__(
        self, open_retriever: "Callable[[], Retriever]", limits: Limits, admission: Admission | None = None,
        name: str = "index", *, required: bool = True,
    ) -> None:  # fmt: skip
        self.name, self.required, self.ready = name, required, False
        self.on_batch: Callable[[int], None] = lambda _: None
        self._measured: tuple[tuple[str, int], int] | None = None
        self.failure: Exception | None = None
        self._open = open_retriever
        self._opened: Retriever | None = None
        self._limits = limits
        self._admission = admission or Admission(limits.max_waiting)
        self._n_at_work = 0  # of the searches that are admitted, those of this index
        self._batcher = Batcher(self._encode, max_batch=ENCODED_TOGETHER)
        self._threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="lexmax-search")
        self._running: set[Future[Any]] = set()
        self._logging, self._n_logging = asyncio.Lock(), 0

    async def search(self, body: Search, held: Share) -> WrittenAnswer:
        """Answer a search with the JSON of a ``OneAnswer`` or ``ManyAnswer``, in parts, which ``held`` counts."""
        self.check_ready()
        check_size(body, body.texts, self._limits)
        # A default that a reload replaces meanwhile would not fit the vectors, so it is read once.
        search = self.retriever.default_search if body.search is None else body.search
        fields = check_search(self.retriever, search, body, len(body.texts), self._limits)
        written = WrittenAnswer(body, len(body.texts), self._limits.max_answer_bytes, held)
        async with self.admitted(len(body.texts), body.timeout_s):
            with _ending() as checkpoint:
                if body.filter is not None:
                    await self.in_thread(lambda: check_filter(self.retriever, body.filter))
                given = await self._given(body, fields)
                for piece in _pieces(len(body.texts), body.k + body.offset):
                    encoding, vectors = time.perf_counter(), None
                    if given or not self._is_lexical(fields):
                        vectors = await self._encoded(body, search, fields, given, piece)
                    encode_ms = (time.perf_counter() - encoding) * 1000
                    work = partial(self._search_piece, body, search, piece, vectors, encode_ms, checkpoint)
                    written.add(await self.in_thread(work))
        return written

    async def encode(self, texts: Sequence[str], field: str) -> Vectors:
        """Encode queries for one field, together with those that wait."""
        return (await self._batcher.encode(texts, [field], field))[field]

    def _encode(self, texts: Sequence[str], search: str | None) -> Encoded:
        self.on_batch(len(texts))
        return self.retriever.encode(texts, search)

    async def _given(self, body: Search, fields: Sequence[str]) -> Mapping[str, Vectors]:
        """Vectors that the request brings; refused with 422 where some are neither there nor can be made."""
        if not body.given:
            return {}
        given = await self.in_thread(lambda: query_vectors(self.retriever.snapshot, body.given, fields))
        missing = [name for name in fields if name not in given]
        if missing and not body.has_texts:
            message = f"no vectors of the field {missing[0]!r}, which the search names: send them, or the text"
            raise RefusedError(422, "invalid_vectors", message)
        return given

    async def _encoded(
        self, body: Search, search: str, fields: Sequence[str], given: Mapping[str, Vectors], piece: range
    ) -> Encoded:
        """Vectors of some of the queries, for all fields of a search."""
        rows = np.arange(piece.start, piece.stop, dtype=np.int64)
        brought = {name: vectors.select(rows) for name, vectors in given.items()}
        missing = [name for name in fields if name not in given]
        if not missing:
            return brought
        wanted = " + ".join(missing) if given else search
        return {**await self._batcher.encode(body.texts[piece.start : piece.stop], missing, wanted), **brought}

    def _is_lexical(self, fields: Sequence[str]) -> bool:
        """Whether encoding costs less than handing the texts to the encoder's thread."""
        records = self.retriever.snapshot.manifest.fields
        return all(name in records and records[name].encoder.kind == "bm25" for name in fields)

    def _search_piece(
        self, body: Search, search: str, piece: range, vectors: Encoded | None, encode_ms: float,
        checkpoint: Callable[[], None],
    ) -> Piece:  # fmt: skip
        texts = body.texts[piece.start : piece.stop]
        if vectors is None:
            start = time.perf_counter()
            vectors = self._encode(texts, search)
            encode_ms = (time.perf_counter() - start) * 1000
        found = self.retriever.search_vectors(
            vectors, texts, body.k + body.offset, search=search, filter=body.filter,
            options=body.options, boost=body.boost, feedback=body.feedback, explain=body.explain, timings=True,
            partial=body.partial, checkpoint=checkpoint,
        )  # fmt: skip
        return write_piece(body, found, encode_ms)

    async def feedback(self, body: FeedbackBody) -> FeedbackAnswer:
        """Log impressions; 404 where the server keeps no log, 507 where it is full or cannot be written."""
        self.check_ready()
        log = self.retriever.clicks
        if log is None:
            raise RefusedError(404, "not_found", "this server keeps no click log: `lexmax serve IDX --feedback LOG` does")
        impressions = impressions_of(body)
        if self._n_logging >= LOGGING_AT_ONCE:
            raise RefusedError(503, "overloaded", "too much feedback is being logged: try again", {"Retry-After": "1"})
        self._n_logging += 1
        try:
            async with self.in_time(), self._logging:  # one thread at most waits for the disk
                n_unknown = await self.in_thread(partial(self._log, log, impressions))
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
        return int((self.retriever.snapshot.find(sorted(shown)) < 0).sum())

    async def document(self, doc_id: str) -> DocumentAnswer:
        """Return a document; 404 when there is none."""
        async with self.in_time():
            document = await self.in_thread(lambda: self.retriever.document(doc_id))
        if document is None:
            raise RefusedError(404, "not_found", f"no document {doc_id[:200]!r}")
        return DocumentAnswer(
            doc_id=document.doc_id, title=document.title, text=document.text, metadata=dict(document.metadata)
        )

    async def info(self) -> IndexInfo:
        """Return the facts about the index that are no secrets: all but places on this machine."""
        async with self.in_time():
            facts = await self.in_thread(self.retriever.info)
        return IndexInfo(without_places({name: fact for name, fact in facts.items() if name != "path"}))

    def named(self, name: str) -> NamedIndex:
        """Return what a list of indexes says of it."""
        error = None if self.failure is None else "the index cannot be opened: the server's log says why"
        if not self.ready:
            return NamedIndex(name=name, ready=False, n_docs=None, generation=None, search=None, fields=None, error=error)
        snapshot = self.retriever.snapshot
        return NamedIndex(
            name=name, ready=True, n_docs=snapshot.n_docs, generation=snapshot.generation,
            search=self.retriever.default_search, fields=list(self.retriever.fields), error=None,
        )  # fmt: skip

    def numbers(self) -> dict[str, float]:
        """Return what metrics tell of the commit that is searched; nothing until the index is open."""
        if not self.ready:
            return {}
        snapshot = self.retriever.snapshot
        commit = (snapshot.manifest.build_id, snapshot.generation)
        if self._measured is None or self._measured[0] != commit:
            self._measured = (commit, snapshot.info()["n_bytes"])
        return {
            "documents": snapshot.n_docs, "generation": snapshot.generation, "segments": len(snapshot.manifest.segments),
            "bytes": self._measured[1],
        }  # fmt: skip

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
            self._opened = await self.in_thread(self._open)
        except Exception as error:
            self.failure = error
            return
        while True:
            try:
                if not self.ready:
                    await self.in_thread(self.retriever.warm)
                    self.ready = True
                    logger.info("warm and ready")
                elif await self.in_thread(self.retriever.reload):
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
        while (self.busy or self._n_at_work) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        if self.busy or self._n_at_work:
            logger.warning("threads are still at work after %g s", within_s)
        elif self._opened is not None:
            await self.in_thread(self._opened.close)
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def busy(self) -> bool:
        """Whether a thread is at work, be it for a request that is gone."""
        return self._batcher.busy or bool(self._running)

    @property
    def retriever(self) -> "Retriever":
        """The open retriever; RefusedError, 503, until there is one."""
        if self._opened is None:
            self.check_ready()
        return cast("Retriever", self._opened)

    @contextlib.asynccontextmanager
    async def in_time(self, seconds: float | None = None) -> AsyncIterator[None]:
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

    @contextlib.asynccontextmanager
    async def admitted(self, n_queries: int, seconds: float | None = None) -> AsyncIterator[None]:
        """Hold places for queries, as `Admission.admitted` has it, for so many seconds at most, as `in_time` has it."""
        async with self.in_time(seconds):
            with self._admission.admitted(n_queries, seconds or self._limits.deadline_s):
                self._n_at_work += 1
                try:
                    yield
                finally:
                    self._n_at_work -= 1

    async def in_thread(self, work: Callable[[], T]) -> T:
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


def _pieces(n_queries: int, k: int) -> Iterator[range]:
    """Cut the queries of a request so that a piece takes a thread for a moment only."""
    n_together = max(1, min(PIECE_TEXTS, PIECE_HITS // k))
    for at in range(0, n_queries, n_together):
        yield range(at, min(at + n_together, n_queries))
