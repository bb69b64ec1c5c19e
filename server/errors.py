"""How the server refuses: one JSON shape for every error, and nothing about the machine in it.

::

    malformed request, search, filter       422    no such address, document or index   404
    wrong encoder for the index             409    body over the limit                  413
    the index cannot take the query         422    too much waiting, not ready, ending  503
    anything else                           500    "internal error" and an id that the log carries

Messages about files hold paths, so an error that is not listed here is logged and never sent.
"""

import asyncio
import logging
import uuid
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..index.errors import EncoderMismatchError, IndexNotFoundError, RepresentationError
from .schemas import BODY_FIELDS, ErrorBody, ErrorFacts, ErrorType

logger = logging.getLogger(__name__)

_MAX_MESSAGE_CHARS = 1000


class RefusedError(Exception):
    """An error as the client sees it."""

    def __init__(self, status: int, kind: ErrorType, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.headers = status, kind, message, headers

    def response(self) -> JSONResponse:
        """Return the refusal in the one JSON shape."""
        # What a message quotes may hold half of a surrogate pair, which JSON takes and UTF-8 does not.
        message = self.message[:_MAX_MESSAGE_CHARS].encode("utf-8", "backslashreplace").decode()
        body = ErrorBody(error=ErrorFacts(type=self.kind, message=message))
        return JSONResponse(body.model_dump(), self.status, self.headers)


def refused(error: BaseException, scope: Scope) -> RefusedError:
    """Return what the client may know about an error; log the rest under the id that the client is given."""
    match error:
        case RefusedError():
            return error
        case RequestValidationError():
            return RefusedError(422, "invalid_request", _validation_message(error, scope))
        case asyncio.CancelledError():
            return RefusedError(503, "unavailable", "the server is shutting down", {"Retry-After": "1", "Connection": "close"})
        case HTTPException(status_code=404):
            return RefusedError(404, "not_found", "no such address: /openapi.json lists them")
        case HTTPException(status_code=405):
            return RefusedError(405, "method_not_allowed", "this address takes another method", error.headers)
        case HTTPException(status_code=status) if status < 500:
            return RefusedError(status, "invalid_request", error.detail, error.headers)
        case EncoderMismatchError():
            message = f"the index was made by encoder {error.index}, this server's encoder is {error.encoder}"
            return RefusedError(409, "encoder_mismatch", message)
        case IndexNotFoundError():
            return RefusedError(404, "not_found", "the index is no longer there")
    request_id = uuid.uuid4().hex
    logger.error("request %s failed: %s %r", request_id, scope["method"], scope["path"], exc_info=error)
    told = f"the server's log has it as request {request_id}"
    headers = {"X-Request-Id": request_id}
    if isinstance(error, RepresentationError):
        return RefusedError(422, "representation", f"this index cannot take the request; {told}", headers)
    return RefusedError(500, "internal", f"internal error; {told}", headers)


def unknown(what: str, name: str, known: Sequence[str]) -> str:
    """Tell that a name is unknown, with the nearest one, or all that there are."""
    near = get_close_matches(name[:100], known, n=1)
    advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    return f"there is no {what} {name[:100]!r}: {advice}"


def _validation_message(error: RequestValidationError, scope: Scope) -> str:
    """Tell where and what, without the input: it may be long, or a NaN that JSON cannot carry."""
    if not _is_json(scope):
        return "the body is not declared as JSON: send it with the header Content-Type: application/json"
    return "; ".join(_problem(problem) for problem in error.errors()[:5])


def _is_json(scope: Scope) -> bool:
    """Whether the body of a request is declared as JSON; true where there is no body."""
    headers = Headers(scope=scope)
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    return not has_body or kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def _problem(problem: Mapping[str, Any]) -> str:
    # A location is ("body", the shape that was chosen, then the field): the client knows the field alone.
    place = problem["loc"][2:]
    field, reason = ".".join(str(part)[:100] for part in place) or "body", problem["msg"]
    if problem["type"] == "extra_forbidden" and len(place) == 1:
        reason = unknown("field", str(place[0]), [name for name in BODY_FIELDS if name not in ("query", "queries")])
    elif problem["type"] == "query_or_queries" and isinstance(problem["input"], Mapping):
        strange = [name for name in problem["input"] if name not in BODY_FIELDS]
        meant = [(name, near) for name in strange[:5] for near in get_close_matches(name[:100], ["query", "queries"], n=1)]
        reason += "".join(f"; did you mean {near!r} by {name[:100]!r}?" for name, near in meant[:1])
    elif problem["type"] == "json_invalid":
        reason += f": {problem.get('ctx', {}).get('error', '')}"
    return f"{field}: {reason}"


class OneErrorShape:
    """ASGI middleware: turns whatever the app inside raises into the one JSON shape."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app; answer for it when it raised before it answered."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
        except (Exception, asyncio.CancelledError) as error:  # cancelled: the end of the grace at shutdown
            if started:
                raise
            await refused(error, scope).response()(scope, receive, send)


class BodyLimit:
    """ASGI middleware: reads the body, chunked or not, up to ``max_bytes``, before anything parses it."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the app a body that fits.

        Raises
        ------
        RefusedError
            413, when the body is larger; the connection closes, since its rest was not read.
        """
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        self._check(int(declared) if declared.isdigit() else 0)
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            self._check(len(body))
        unread: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return unread.pop() if unread else await receive()

        await self.app(scope, replay, send)

    def _check(self, n_bytes: int) -> None:
        if n_bytes > self.max_bytes:
            message = f"the body is larger than {self.max_bytes} bytes"
            raise RefusedError(413, "body_too_large", message, {"Connection": "close"})
