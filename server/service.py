"""One retriever at work: admission, the common encoder batch, searches on threads, readiness, shutdown."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..index.errors import RepresentationError
from ..index.representations import Vectors
from ..retrieval.pipelines.expression import ExpressionError
from .batching import Batcher
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
    from ..retrieval.results import Result
    from ..retrieval.retriever import Retriever

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Service:
    """One retriever at work: its threads, its queue, its readiness.

    Every call to the retriever runs in one of two thread pools, the encoder's and ``_threads``, so that
    ``close`` can wait for all of them before the files under them are unmapped.
    """

    def __init__(self, retriever: "Retriever", limits: Limits) -> None:
        self.ready = False
        self._retriever = retriever
        self._limits = limits
        self._n_waiting = 0
        self._batcher = Batcher(retriever.encode, max_batch=limits.max_batch)
        self._threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="lexmax-search")

    async def search(self, body: SearchOne | SearchMany) -> str:
        """Answer a search with the JSON of a ``OneAnswer`` or ``ManyAnswer``."""
        started = time.perf_counter()
        texts = [body.query] if isinstance(body, SearchOne) else body.queries
        if len(texts) * body.k > self._limits.max_hits:
            message = f"{len(texts)} queries with k = {body.k}: at most {self._limits.max_hits} results per request"
            raise RefusedError(422, "invalid_request", message)
        with self._admitted(len(texts)):
            fields = self._fields(body)
            vectors = await self._batcher.encode(texts, fields, body.search)
            return await self._in_thread(lambda: self._answer(body, texts, vectors, started))

    async def document(self, doc_id: str) -> DocumentAnswer:
        """Return a document; 404 when there is none."""
        document = await self._in_thread(lambda: self._retriever.document(doc_id))
        if document is None:
            raise RefusedError(404, "not_found", f"no document {doc_id[:200]!r}")
        return DocumentAnswer(
            doc_id=document.doc_id, title=document.title, text=document.text, metadata=dict(document.metadata)
        )

    async def info(self) -> IndexInfo:
        """Return the facts about the index that are nobody's secret: all but places on this machine."""
        facts = await self._in_thread(self._retriever.info)
        return IndexInfo(_without_places({name: fact for name, fact in facts.items() if name != "path"}))

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

    async def close(self) -> None:
        """Let every request that was taken finish, then close the retriever."""
        self.ready = False
        await self._batcher.close()
        await asyncio.to_thread(self._threads.shutdown)
        await asyncio.to_thread(self._retriever.close)

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
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _fields(self, body: SearchOne | SearchMany) -> tuple[str, ...]:
        """Fields that the search names; 422 for a malformed expression or unknown options."""
        try:
            return self._retriever.search_fields(body.search, body.options)
        except ExpressionError as error:
            raise RefusedError(422, "invalid_search", str(error)) from None
        except RepresentationError:
            known = ", ".join(self._retriever.fields)
            message = f"the search names a field that the index does not have; it has {known}"
            raise RefusedError(422, "invalid_search", message) from None
        except (ValueError, TypeError) as error:
            raise RefusedError(422, "invalid_options", str(error)) from None

    def _answer(
        self, body: SearchOne | SearchMany, texts: list[str], vectors: Mapping[str, Vectors], started: float
    ) -> str:  # fmt: skip
        """Search and write the JSON: in a thread, since a full batch of results takes long to write."""
        try:
            found = self._retriever.search_vectors(
                vectors, texts, body.k, search=body.search, filter=body.filter, options=body.options,
                explain=body.explain, timings=body.timings,
            )  # fmt: skip
        except ValueError as error:
            # A word on the filter is a plain ValueError; subclasses (UnicodeError, Arrow's) are bugs.
            if body.filter is None or type(error) is not ValueError:
                raise
            raise RefusedError(422, "invalid_filter", str(error)) from None
        hits = [[_hit(result, include_text=body.include_text) for result in results] for results in found]
        took_ms = (time.perf_counter() - started) * 1000
        timings_ms = dict(found[0].timings_ms) if body.timings else None
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
