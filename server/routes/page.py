"""The page: a search form, explanations, facts. Its policy allows its own style sheet and nothing else."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response

from ..errors import RefusedError, refused
from ..indexes import Indexes
from ..observing.notes import notes_of
from ..page.views import Asked, Views, style_sheet

POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
MAX_RANK = 100


def add_page_routes(app: FastAPI, indexes: Indexes, one: Any) -> None:
    """Add them; ``one`` is the body of a search."""
    views = Views(indexes, one)

    async def answer(request: Request, show: Callable[[Asked], Awaitable[str]]) -> Response:
        asked = Asked.of(request.query_params, indexes)
        notes_of(request.scope).index = asked.index if any(name == asked.index for name, _ in indexes) else ""
        try:
            return Response(await show(asked), media_type="text/html", headers=HEADERS)
        except Exception as error:
            refusal = error if isinstance(error, RefusedError) and error.fault is None else refused(error, request.scope)
            headers = {**HEADERS, **(refusal.headers or {})}
            return Response(views.error(asked, refusal), refusal.status, headers, "text/html")

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        return await answer(request, lambda asked: views.search(asked, request.scope["held"]))

    @app.get("/explain", include_in_schema=False)
    async def explain(request: Request) -> Response:
        rank = request.query_params.get("rank", "1")[:6]

        async def show(asked: Asked) -> str:
            if not rank.isdecimal() or not 1 <= int(rank) <= MAX_RANK:
                raise RefusedError(422, "invalid_request", f"rank: a whole number from 1 to {MAX_RANK}")
            if not asked.q:
                raise RefusedError(422, "invalid_request", "query: say which result of which query")
            return await views.explain(asked, int(rank), request.scope["held"])

        return await answer(request, show)

    @app.get("/facts", include_in_schema=False)
    async def facts(request: Request) -> Response:
        return await answer(request, views.facts)

    @app.get("/page.css", include_in_schema=False)
    async def style() -> Response:
        return Response(style_sheet(), media_type="text/css", headers={"Cache-Control": "max-age=3600"})
