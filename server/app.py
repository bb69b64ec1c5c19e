"""The FastAPI application over one index, and the process that serves it.

One request's way: body limit, strict validation, then the service: admission, a common encoder
batch, a search in a thread. One process with one worker: the kernels release the GIL, so threads search
in parallel over one copy of the index.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import uvicorn
from fastapi import Body, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import Receive

from ..index.errors import StorageError
from .errors import BodyLimit, OneErrorShape, RefusedError, refused
from .schemas import DocumentAnswer, ErrorBody, IndexInfo, Limits, ManyAnswer, OneAnswer, Status, search_body
from .service import Service

if TYPE_CHECKING:
    from ..retrieval.retriever import Retriever

DEFAULT_LIMITS = Limits()
GRACE_S = 30  # what requests under way get at shutdown

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
        if not service.ready:
            raise RefusedError(503, "unavailable", "not ready: warming up or shutting down", {"Retry-After": "1"})
        return Status()


def server_config(app: FastAPI, host: str, port: int) -> uvicorn.Config:
    """Return how uvicorn runs the app: logging is the caller's, and requests get time to end."""
    return uvicorn.Config(app, host=host, port=port, log_config=None, server_header=False, timeout_graceful_shutdown=GRACE_S)


def serve(open_retriever: Callable[[], "Retriever"], host: str = "127.0.0.1", port: int = 8000) -> None:
    """Listen, open the index, and serve it until SIGINT or SIGTERM; requests under way are answered.

    Parameters
    ----------
    open_retriever : callable
        Opens the index; called once the address is bound, so that a port in use is known at once.
    host, port
        Where to listen; by default this machine alone is answered.

    Raises
    ------
    LexmaxError
        When the index cannot be opened.
    StorageError
        When the address is in use or not allowed.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as failure:
            raise StorageError(f"cannot listen on {host}:{port}: {failure.strerror}; choose another --port") from failure
        app = create_app(open_retriever())
        uvicorn.Server(server_config(app, host, port)).run(sockets=[listener])
    finally:
        listener.close()


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
