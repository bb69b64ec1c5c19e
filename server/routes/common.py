"""What routes share: answers as they are, errors in the OpenAPI document, work that ends when its client leaves."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Response
from pydantic import BaseModel
from starlette.types import Receive

from ..schemas.errors import ErrorBody

T = TypeVar("T")
GONE = 499  # nobody reads it: nginx's number for a client that hung up


def json_of(model: BaseModel, status: int = 200) -> Response:
    """Answer with a model as it is: FastAPI would validate it again, and fail at a NaN in metadata."""
    return Response(model.model_dump_json(), status, media_type="application/json")


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe error answers for the OpenAPI document."""
    return {status: {"model": ErrorBody} for status in statuses}


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
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
