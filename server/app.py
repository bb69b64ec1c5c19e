"""The FastAPI application over the indexes of a server.

The way of a request: body limits, strict validation, then the service: admission, common encoder batches, searches in a thread.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

from .errors import OneErrorShape, refused
from .guarding.guard import Guard
from .guarding.keys import KeyFile
from .indexes import Indexes, Opens
from .limits import Limits, limits_table
from .observing.access import AccessLog
from .observing.metrics import Metrics
from .observing.traces import Traces, sent_to_collector
from .observing.watch import Listener, Watch
from .routes.common import errors
from .routes.docs import add_docs_routes
from .routes.models import add_model_routes
from .routes.operations import add_operation_routes
from .routes.page import add_page_routes
from .routes.searching import add_search_routes
from .routes.state import add_state_routes
from .routes.writing import add_writing_routes
from .schemas.openapi import flat
from .schemas.searches import search_bodies
from .searching.service import CLOSE_S
from .settings import Settings
from .transport.payloads import BodyReader, Budget
from .writing.writer import Home, Writer

if TYPE_CHECKING:
    from ..retrieval.retriever import Retriever

DEFAULT_LIMITS, DEFAULT_SETTINGS = Limits(), Settings()
GZIP_BYTES, GZIP_LEVEL = 1024, 4  # of answers to clients that take gzip
CORS_METHODS = ["GET", "POST", "DELETE"]
CORS_HEADERS = ["Authorization", "Content-Type", "X-API-Key", "X-Request-Id"]
DEFAULT_NAME = "index"  # of a retriever that is given without a name
ABOUT = """Search over indexes of several vector fields. Every error has the shape of `ErrorBody`. Addresses under `/v1` without
the name of an index mean the only one; a server of several has `/v1/indexes/{index}/...` alone.

Limits of this server:

"""


def create_app(
    retriever: "Retriever | Callable[[], Retriever] | Opens", limits: Limits = DEFAULT_LIMITS, reload_every_s: float = 5.0,
    settings: Settings = DEFAULT_SETTINGS, open_first: bool = False, home: Home | None = None,
) -> FastAPI:  # fmt: skip
    """Return the application; it owns the retrievers from here on and closes them at shutdown.

    Parameters
    ----------
    retriever : Retriever, callable, or mapping of str to callable
        The open index, or what opens it in a thread of its own: until then requests are answered with 503. Of several
        indexes, what opens each, by name.
    limits : Limits
        Bounds of what it takes.
    reload_every_s : float
        Seconds between two looks for commits of another process, and for other keys.
    settings : Settings
        How it is run.
    open_first : bool
        Take no connection before the indexes are open: where the listener is another's, requests wait or go to the other.
    home : Home or None
        Where new indexes are made, of a server that may write; None: none are.

    Raises
    ------
    ValueError
        When ``reload_every_s`` is not above 0, or the file of keys is none.
    StorageError
        The file of keys or the access log cannot be opened.
    MissingDependencyError
        Traces are asked for, and OpenTelemetry is not installed.
    """
    if not reload_every_s > 0:
        raise ValueError(f"reload_every_s must be above 0, not {reload_every_s}")
    indexes = Indexes(_opens(retriever), limits)
    keys = None if settings.keys is None else KeyFile(Path(settings.keys))
    writer = Writer(indexes, limits, home) if settings.writable else None
    traces = Traces(sent_to_collector(), indexes.fields) if settings.traces else None

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        indexes.keep_fresh(reload_every_s)
        reading = asyncio.create_task(_refresh(keys, reload_every_s)) if keys is not None else None
        try:
            while open_first and not indexes.ready and indexes.failure is None:
                await asyncio.sleep(0.02)
            yield
        finally:
            if reading is not None:
                reading.cancel()
            if writer is not None:
                await writer.close(CLOSE_S)
            await indexes.close()
            if traces is not None:
                await traces.close()

    app = _Application(
        title="lexmax",
        version=version("lexmax"),
        description=ABOUT + limits_table(limits),
        lifespan=lifespan,
        docs_url=None,  # `routes.docs` has one that loads nothing from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        responses=errors(400, *((401, 403) if keys is not None else ()), 408, 413, 431, 500, 503),
    )
    app.state.indexes, app.state.writer = indexes, writer
    budget = Budget(limits.max_held_bytes)
    gauges = {
        "waiting_queries": lambda: indexes.admission.n_waiting,
        "held_bytes": lambda: budget.held,
        "connections": lambda: len(app.state.connections),
    }
    app.state.connections = ()  # `process.Server` puts those of uvicorn here
    metrics = Metrics(indexes, gauges)
    indexes.tell_batches(metrics.batch)
    listeners: list[Listener] = [metrics]
    if settings.access_log is not None:
        listeners.append(AccessLog(settings.access_log))
    if traces is not None:
        listeners.append(traces)
    app.add_middleware(BodyReader, limits=limits, budget=budget)
    app.add_middleware(GZipMiddleware, minimum_size=GZIP_BYTES, compresslevel=GZIP_LEVEL)
    if keys is not None:
        app.add_middleware(Guard, keys=keys)
    app.add_middleware(OneErrorShape)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.cors_origins, allow_methods=CORS_METHODS, allow_headers=CORS_HEADERS,
            expose_headers=["X-Request-Id", "Retry-After"],
        )  # fmt: skip
    app.add_middleware(Watch, listeners=listeners)  # the last one added stands outermost
    for kind in (HTTPException, RequestValidationError):  # the two that FastAPI answers by itself
        app.add_exception_handler(kind, _answer_error)
    add_search_routes(app, indexes, limits)
    add_state_routes(app, indexes)
    add_operation_routes(app, metrics)
    add_docs_routes(app)
    add_page_routes(app, indexes, search_bodies(limits)[0])
    add_model_routes(app, indexes, limits)
    add_writing_routes(app, indexes, limits, writer)
    return app


async def _refresh(keys: KeyFile, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        keys.refresh()


class _Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, without `anyOf`."""
        if self.openapi_schema is None:
            self.openapi_schema = flat(super().openapi())
        return self.openapi_schema


def _opens(retriever: "Retriever | Callable[[], Retriever] | Opens") -> Opens:
    if isinstance(retriever, Mapping):
        return retriever
    return {DEFAULT_NAME: retriever if callable(retriever) else lambda: retriever}


async def _answer_error(request: Request, error: Exception) -> Response:
    return refused(error, request.scope).response()
