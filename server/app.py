"""The FastAPI application over the indexes of a server.

The way of a request: body limits, strict validation, then the service: admission, common encoder batches, searches in a thread.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from .errors import OneErrorShape, refused
from .indexes import Indexes, Opens
from .limits import Limits, limits_table
from .payloads import BodyReader
from .routes.common import errors
from .routes.searching import add_search_routes
from .routes.state import add_state_routes
from .schemas.openapi import flat

if TYPE_CHECKING:
    from ..retrieval.retriever import Retriever

DEFAULT_LIMITS = Limits()
DEFAULT_NAME = "index"  # of a retriever that is given without a name
ABOUT = """Search over indexes of several vector fields. Every error has the shape of `ErrorBody`. Addresses under `/v1` without
the name of an index mean the only one; a server of several has `/v1/indexes/{index}/...` alone.

Limits of this server:

"""


def create_app(
    retriever: "Retriever | Callable[[], Retriever] | Opens", limits: Limits = DEFAULT_LIMITS, reload_every_s: float = 5.0
) -> FastAPI:
    """Return the application; it owns the retrievers from here on and closes them at shutdown.

    Parameters
    ----------
    retriever : Retriever, callable, or mapping of str to callable
        The open index, or what opens it in a thread of its own: until then requests are answered with 503. Of several
        indexes, what opens each, by name.
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
    indexes = Indexes(_opens(retriever), limits)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        indexes.keep_fresh(reload_every_s)
        try:
            yield
        finally:
            await indexes.close()

    app = _Application(
        title="lexmax",
        version=version("lexmax"),
        description=ABOUT + limits_table(limits),
        lifespan=lifespan,
        docs_url="/docs",
        redoc_url=None,
        redirect_slashes=False,
        responses=errors(400, 408, 413, 431, 500, 503),
    )
    app.state.indexes = indexes
    app.add_middleware(BodyReader, limits=limits)
    app.add_middleware(OneErrorShape)  # the last one added stands outermost
    for kind in (HTTPException, RequestValidationError):  # the two that FastAPI answers by itself
        app.add_exception_handler(kind, _answer_error)
    add_search_routes(app, indexes, limits)
    add_state_routes(app, indexes)
    return app


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
