"""The FastAPI application over one index, and the process that serves it.

The way of a request: body limit, strict validation, then the service: admission, a common encoder batch, a search in a thread.
One process with one worker: the kernels release the GIL, so threads search in parallel over one copy of the index.

The end: after SIGTERM or SIGINT requests have ``GRACE_S`` seconds to finish. What is left is answered with 503, and threads
that still work ``CLOSE_S`` seconds later end with the process.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import uvicorn
from fastapi import Body, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import Receive

from ..index.errors import StorageError
from .errors import BodyLimit, OneErrorShape, refused
from .schemas import DocumentAnswer, ErrorBody, IndexInfo, Limits, ManyAnswer, OneAnswer, Status, search_body
from .service import Service

if TYPE_CHECKING:
    from ..retrieval.retriever import Retriever

DEFAULT_LIMITS = Limits()
GRACE_S = 30  # what requests under way get at shutdown
INTERRUPTED = 130  # exit status of a process that SIGINT ended

T = TypeVar("T")


def create_app(retriever: "Retriever", limits: Limits = DEFAULT_LIMITS, reload_every_s: float = 5.0) -> FastAPI:
    """Return the application; it owns the retriever from here on and closes it at shutdown.

    Parameters
    ----------
    retriever : Retriever
        The open index.
    limits : Limits
        Bounds of what it takes.
    reload_every_s : float
        Seconds between two looks for commits of another process.

    Raises
    ------
    ValueError
        When ``reload_every_s`` is not above 0.
    """
    if not reload_every_s > 0:
        raise ValueError(f"reload_every_s must be above 0, not {reload_every_s}")
    service = Service(retriever, limits)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        freshness = asyncio.create_task(service.keep_fresh(reload_every_s))
        try:
            yield
        finally:
            freshness.cancel()
            await service.close()

    app = FastAPI(
        title="lexmax",
        version=version("lexmax"),
        description="Search over one index of several vector fields. Every error has the shape of `ErrorBody`.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=_errors(500),
    )
    app.state.service = service
    app.add_middleware(BodyLimit, max_bytes=limits.max_body_bytes)
    app.add_middleware(OneErrorShape)  # the last one added stands outermost
    for kind in (HTTPException, RequestValidationError):  # the two that FastAPI answers by itself
        app.add_exception_handler(kind, _answer_error)
    _add_routes(app, service, search_body(limits))
    return app


def _add_routes(app: FastAPI, service: Service, body_type: Any) -> None:
    @app.post("/v1/search", response_model=OneAnswer | ManyAnswer, responses=_errors(400, 404, 409, 413, 422, 503))
    async def search(body: Annotated[body_type, Body()], request: Request) -> Response:
        """Search with one query (a list of results) or several (a list of such lists)."""
        try:
            answer = await _unless_gone(request.receive, service.search(body))
        except ConnectionAbortedError:
            return Response(status_code=499)  # nobody reads it: nginx's number for a client that hung up
        return Response(answer, media_type="application/json")

    @app.get("/v1/documents/{doc_id:path}", response_model=DocumentAnswer, responses=_errors(404, 422))
    async def document(doc_id: str) -> Response:
        """Return one document. Its id may hold slashes; other reserved characters are percent-encoded."""
        return _json(await service.document(doc_id))

    @app.get("/v1/index", response_model=IndexInfo)
    async def index() -> Response:
        """Say what is served."""
        return _json(await service.info())

    @app.get("/healthz")
    async def healthz() -> Status:
        """Say that the process is alive."""
        return Status()

    @app.get("/readyz", responses=_errors(503))
    async def readyz() -> Status:
        """Say that the index is open and warm."""
        service.check_ready()
        return Status()


def server_config(app: FastAPI, host: str = "127.0.0.1", port: int = 8000, grace_s: int = GRACE_S) -> uvicorn.Config:
    """Return how uvicorn runs the app: logging is the caller's, and requests get time to end."""
    return uvicorn.Config(app, host=host, port=port, log_config=None, server_header=False, timeout_graceful_shutdown=grace_s)


@contextlib.contextmanager
def bound(host: str = "127.0.0.1", port: int = 8000) -> Iterator[socket.socket]:
    """Bind an address for `serve`, so that one in use is known before an index is opened; port 0 takes a free one.

    Raises
    ------
    StorageError
        When the address is in use, unknown or not allowed.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except (OSError, OverflowError) as failure:
            reason = getattr(failure, "strerror", None) or failure
            raise StorageError(f"cannot listen on {host}:{port}: {reason}; choose another --port or --host") from failure
        yield listener


def serve(retriever: "Retriever", listener: socket.socket, limits: Limits = DEFAULT_LIMITS) -> None:
    """Serve an index until SIGINT or SIGTERM, then close it; requests under way are answered.

    Parameters
    ----------
    retriever : Retriever
        The open index.
    listener : socket
        As `bound` yields it.
    limits : Limits
        Bounds of what the server takes.
    """
    app = create_app(retriever, limits)
    try:
        uvicorn.Server(server_config(app)).run(sockets=[listener])
    finally:
        if app.state.service.busy:
            # Python would wait for the threads. They only read, so nothing is lost with them.
            logging.shutdown()
            os._exit(INTERRUPTED)


async def _answer_error(request: Request, error: Exception) -> Response:
    return refused(error, request.scope).response()


async def _unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``, but cancel it when the client hangs up.

    Raises
    ------
    ConnectionAbortedError
        When the client hung up first.
    """

    async def hang_up() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working, watching = asyncio.create_task(work), asyncio.create_task(hang_up())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ConnectionAbortedError
        return working.result()
    finally:
        working.cancel()
        watching.cancel()


def _json(model: BaseModel) -> Response:
    """Answer with a model as it is: FastAPI would validate it again, and fail at a NaN in metadata."""
    return Response(model.model_dump_json(), media_type="application/json")


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe error answers for the OpenAPI document."""
    return {status: {"model": ErrorBody} for status in statuses}
