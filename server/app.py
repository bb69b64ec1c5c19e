"""The FastAPI application over one index.

The way of a request: body limits, strict validation, then the service: admission, common encoder batches, searches in a thread.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import Body, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import Receive

from .errors import OneErrorShape, refused
from .limits import Limits, limits_table
from .payloads import Answer, BodyReader
from .schemas import (
    DocumentAnswer,
    ErrorBody,
    FeedbackAnswer,
    IndexInfo,
    ManyAnswer,
    OneAnswer,
    Status,
    feedback_body,
    search_body,
)
from .service import Service

if TYPE_CHECKING:
    from ..retrieval.retriever import Retriever

DEFAULT_LIMITS = Limits()
ABOUT = """Search over one index of several vector fields. Every error has the shape of `ErrorBody`.

Limits of this server:

"""

T = TypeVar("T")


def create_app(
    retriever: "Retriever | Callable[[], Retriever]", limits: Limits = DEFAULT_LIMITS, reload_every_s: float = 5.0
) -> FastAPI:
    """Return the application; it owns the retriever from here on and closes it at shutdown.

    Parameters
    ----------
    retriever : Retriever or callable
        The open index, or what opens it in a thread of its own: until then requests are answered with 503.
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
    service = Service(retriever if callable(retriever) else lambda: retriever, limits)

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
        description=ABOUT + limits_table(limits),
        lifespan=lifespan,
        docs_url="/docs",
        redoc_url=None,
        redirect_slashes=False,
        responses=_errors(400, 408, 413, 431, 500, 503),
    )
    app.state.service = service
    app.add_middleware(BodyReader, limits=limits)
    app.add_middleware(OneErrorShape)  # the last one added stands outermost
    for kind in (HTTPException, RequestValidationError):  # the two that FastAPI answers by itself
        app.add_exception_handler(kind, _answer_error)
    _add_routes(app, service, search_body(limits), feedback_body(limits))
    return app


def _add_routes(app: FastAPI, service: Service, body_type: Any, feedback_type: Any) -> None:
    @app.post("/v1/search", response_model=OneAnswer | ManyAnswer, responses=_errors(404, 409, 415, 422))
    async def search(body: Annotated[body_type, Body()], request: Request) -> Response:
        """Search with one query (a list of results) or several (a list of such lists)."""
        try:
            parts = await _unless_gone(request.receive, service.search(body, request.scope["held"]))
        except ConnectionAbortedError:
            return Response(status_code=499)  # nobody reads it: nginx's number for a client that hung up
        return Answer(parts)

    @app.post("/v1/feedback", response_model=FeedbackAnswer, responses=_errors(404, 415, 422, 507))
    async def feedback(body: Annotated[feedback_type, Body()]) -> Response:
        """Log what users saw and clicked; searches with `feedback` know it some seconds later."""
        return _json(await service.feedback(body))

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

    @app.get("/readyz")
    async def readyz() -> Status:
        """Say that the index is open and warm."""
        service.check_ready()
        return Status()


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
