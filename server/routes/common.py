"""What routes share: answers as they are, errors in the OpenAPI document, work that ends when its client leaves."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Response
from pydantic import BaseModel
from starlette.types import Receive

from ..schemas.errors import ErrorBody

T = TypeVar("T")
WATCHED_AFTER_S = 0.02
GONE = 499  # nobody reads it: nginx's number for a client that hung up


def json_of(model: BaseModel, status: int = 200) -> Response:
    """Answer with a model as it is: FastAPI would validate it again, and fail at a NaN in metadata."""
    return Response(model.model_dump_json(), status, media_type="application/json")


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe error answers for the OpenAPI document."""
    return {status: {"model": ErrorBody} for status in statuses}


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``, but cancel it when the client hangs up; work that ends at once is not watched, which costs more.

    Raises
    ------
    ConnectionAbortedError
        When the client hung up first.
    """
    loop, task, gone = asyncio.get_running_loop(), asyncio.current_task(), False
    watching: asyncio.Task[None] | None = None

    async def hang_up() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        if task is not None:
            task.cancel()

    def watch() -> None:
        nonlocal watching
        watching = asyncio.create_task(hang_up())

    timer = loop.call_later(WATCHED_AFTER_S, watch)
    try:
        return await work
    except asyncio.CancelledError:
        if not gone or task is None:
            raise
        task.uncancel()
        raise ConnectionAbortedError from None
    finally:
        timer.cancel()
        if watching is not None:
            watching.cancel()
