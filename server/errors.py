"""How the server refuses: one JSON shape for every error, and nothing about the machine in it.

::

    malformed request, search, filter   422    no such address, document or index             404
    the index cannot take the query     422    too much waiting, out of time, not ready, ending  503
    wrong encoder for the index         409    head or body came too late                     408
    body over the limit, head too long  413, 431    body not declared as JSON                  415
    anything else                       500    "internal error" and an id that the log carries
    the click log cannot be written     507

Messages about files hold paths, so an error that is not listed here is logged and never sent.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..index.errors import EncoderMismatchError, IndexNotFoundError, RepresentationError, ShardError
from .observing.notes import notes_of
from .schemas.errors import ErrorBody, ErrorFacts, ErrorType

logger = logging.getLogger(__name__)

CLOSE = {"Connection": "close"}

_MAX_MESSAGE_CHARS = 1000


class RefusedError(Exception):
    """An error as the client sees it; ``fault`` is what only the log tells."""

    def __init__(
        self, status: int, kind: ErrorType, message: str, headers: Mapping[str, str] | None = None,
        fault: BaseException | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.kind, self.message, self.headers, self.fault = status, kind, message, headers, fault

    def response(self, headers: Mapping[str, str] | None = None) -> JSONResponse:
        """Return the refusal in the one JSON shape, with more headers where there are some."""
        # What a message quotes may hold half of a surrogate pair, which JSON takes and UTF-8 does not.
        message = self.message[:_MAX_MESSAGE_CHARS].encode("utf-8", "backslashreplace").decode()
        body = ErrorBody(error=ErrorFacts(type=self.kind, message=message))
        return JSONResponse(body.model_dump(), self.status, {**(self.headers or {}), **(headers or {})})


def refused(error: BaseException, scope: Scope) -> RefusedError:
    """Return what the client may know about an error; log the rest under the id that the client is given."""
    match error:
        case RefusedError() if error.fault is not None:
            return RefusedError(error.status, error.kind, f"{error.message}; {_logged(error.fault, scope)}", error.headers)
        case RefusedError():
            return error
        case RequestValidationError() if not _is_json(scope):
            kind = Headers(scope=scope).get("content-type", "no type")[:100]
            message = f"the body must be JSON and declared so, not {kind}: send the header Content-Type: application/json"
            return RefusedError(415, "unsupported_media_type", f"{message} (curl -H 'content-type: application/json')")
        case RequestValidationError():
            return RefusedError(422, "invalid_request", _validation_message(error, scope))
        case asyncio.CancelledError():
            return RefusedError(503, "unavailable", "the server is shutting down", {"Retry-After": "1", **CLOSE})
        case HTTPException(status_code=404):
            return RefusedError(404, "not_found", _address_message(scope))
        case HTTPException(status_code=405):
            takes = _methods(scope)
            return RefusedError(405, "method_not_allowed", f"this address takes {takes}", {"Allow": takes})
        case HTTPException(status_code=status) if status < 500:
            return RefusedError(status, "invalid_request", error.detail, error.headers)
        case EncoderMismatchError():
            message = f"the index was made by encoder {error.index}, this server's encoder is {error.encoder}"
            return RefusedError(409, "encoder_mismatch", message)
        case ShardError():
            return RefusedError(503, "unavailable", f"{error}", {"Retry-After": "1"})
        case IndexNotFoundError():
            return RefusedError(404, "not_found", "the index is no longer there")
    told = _logged(error, scope)
    if isinstance(error, RepresentationError):
        return RefusedError(422, "representation", f"this index cannot take the request; {told}")
    return RefusedError(500, "internal", f"internal error; {told}")


def _logged(error: BaseException, scope: Scope) -> str:
    """Log an error under the id of its request; returns what the client is told of it."""
    request_id = notes_of(scope).request_id
    logger.error("request %s failed: %s %r", request_id, scope["method"], scope["path"], exc_info=error)
    return f"the server's log has it as request {request_id}"


def unknown(what: str, name: str, known: Sequence[str]) -> str:
    """Tell that a name is unknown, with the nearest one, or all that there are."""
    near = get_close_matches(name[:100], known, n=1) or [each for each in known if each.lower() == name.lower()]
    advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    return f"there is no {what} {name[:100]!r}: {advice}"


def _validation_message(error: RequestValidationError, scope: Scope) -> str:
    """Tell where and what, without the input: it may be long, or a NaN that JSON cannot carry."""
    endpoint = getattr(scope.get("route"), "endpoint", None)
    body = next(iter(get_args(getattr(endpoint, "__annotations__", {}).get("body"))), None)
    return "; ".join(_problem(problem, body) for problem in error.errors()[:5])


def _methods(scope: Scope) -> str:
    """Methods that an address takes: of all its routes, where each has one."""
    routes = scope["app"].routes if "app" in scope else []
    found = {
        method for route in routes if route.matches(scope)[0] != Match.NONE for method in getattr(route, "methods", None) or ()
    }
    return ", ".join(sorted(found))


def _address_message(scope: Scope) -> str:
    known = [route.path for route in scope["app"].routes if route.path != "/"] if "app" in scope else []
    near = get_close_matches(scope["path"][:100], known, n=1)
    return f"no such address: did you mean {near[0]}?" if near else "no such address: /openapi.json lists them"


def _is_json(scope: Scope) -> bool:
    """Whether the body of a request is declared as JSON; true where there is no body."""
    headers = Headers(scope=scope)
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    return not has_body or kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def _problem(problem: Mapping[str, Any], body: Any) -> str:
    place = problem["loc"][1:]  # after "body"
    field, reason = ".".join(str(part)[:100] for part in place) or "body", problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "json_invalid":
        field = "body"
        reason += f" at character {problem['loc'][-1] + 1}: {problem.get('ctx', {}).get('error', '')}"
    elif problem["type"] == "extra_forbidden" and (known := _fields_at(body, place[:-1])):
        reason = unknown("field", str(place[-1]), known)
    return f"{field}: {reason}"


def _fields_at(model: Any, place: Sequence[Any]) -> list[str]:
    """Names of the fields of a body, or of an object inside."""
    for part in place:
        if isinstance(part, str):
            field = getattr(model, "model_fields", {}).get(part)
            model = next((each for each in get_args(getattr(field, "annotation", None)) if hasattr(each, "model_fields")), None)
    return list(getattr(model, "model_fields", ()))


class OneErrorShape:
    """ASGI middleware: turns whatever the app inside raises into the one JSON shape, and answers HEAD as GET.

    uvicorn sends no body after HEAD, so the two have the same head.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app; answer for it when it raised before it answered."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(inner, receive, watched_send)
        except (Exception, asyncio.CancelledError) as error:  # cancelled: the end of the grace at shutdown
            if started:
                raise
            await refused(error, inner).response()(scope, receive, send)
        finally:
            scope["route"] = inner.get("route")  # for those outside who count
