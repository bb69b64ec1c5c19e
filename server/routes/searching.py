"""Searches, documents, feedback and facts of an index: by its name, and without one where it is the only one."""

from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI, Path, Request, Response

from ..indexes import Indexes
from ..limits import Limits
from ..observing.notes import notes_of
from ..schemas.answers import DocumentAnswer, IndexInfo, ManyAnswer, OneAnswer
from ..schemas.feedback import FeedbackAnswer, feedback_body
from ..schemas.searches import Search, search_bodies
from ..searching.service import Service
from ..transport.payloads import Answer
from .common import GONE, errors, json_of, unless_gone


def add_search_routes(app: FastAPI, indexes: Indexes, limits: Limits) -> None:
    """Add them under ``/v1`` and under ``/v1/indexes/{index}``."""

    async def only() -> Service:
        return indexes.service()

    async def named(index: Annotated[str, Path(description="The name of the index.")]) -> Service:
        return indexes.service(index)

    bodies = (*search_bodies(limits), feedback_body(limits))
    _add(app, "/v1", "/v1/index", Depends(only), *bodies)
    _add(app, "/v1/indexes/{index}", "/v1/indexes/{index}", Depends(named), *bodies)


def _add(app: FastAPI, at: str, facts: str, chosen: Any, one: Any, many: Any, impressions: Any) -> None:
    @app.post(f"{at}/search", response_model=OneAnswer, responses=errors(404, 409, 415, 422))
    async def search(body: Annotated[one, Body()], request: Request, service: Annotated[Service, chosen]) -> Response:
        """Search with one query: a text, vectors, or both."""
        return await _answer(service, body, request)

    @app.post(f"{at}/search/batch", response_model=ManyAnswer, responses=errors(404, 409, 415, 422))
    async def search_batch(body: Annotated[many, Body()], request: Request, service: Annotated[Service, chosen]) -> Response:
        """Search with several queries: a list of results for each, in their order."""
        return await _answer(service, body, request)

    @app.post(f"{at}/feedback", response_model=FeedbackAnswer, responses=errors(404, 415, 422, 507))
    async def feedback(body: Annotated[impressions, Body()], service: Annotated[Service, chosen]) -> Response:
        """Log what users saw and clicked; searches with `feedback` know it some seconds later."""
        return json_of(await service.feedback(body))

    @app.get(f"{at}/documents/{{doc_id:path}}", response_model=DocumentAnswer, responses=errors(404, 422))
    async def document(doc_id: str, service: Annotated[Service, chosen]) -> Response:
        """Return one document. Its id may hold slashes; other reserved characters are percent-encoded."""
        return json_of(await service.document(doc_id))

    @app.get(facts, response_model=IndexInfo, responses=errors(404, 422))
    async def index_facts(service: Annotated[Service, chosen]) -> Response:
        """Say what is in the index: fields, encoders, sizes."""
        return json_of(await service.info())


async def _answer(service: Service, body: Search, request: Request) -> Response:
    notes = notes_of(request.scope)
    notes.index, notes.n_queries, notes.k = service.name, len(body.texts), body.k
    try:
        written = await unless_gone(request.receive, service.search(body, request.scope["held"]))
    except ConnectionAbortedError:
        return Response(status_code=GONE)
    notes.stages_ms = written.timings_ms
    return Answer(written.parts())
