"""ASGI middleware around everything: an id for each request, headers of every answer, and who is told when it has ended."""

import time
from collections.abc import Callable, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .notes import Notes, notes_of

Listener = Callable[[Scope, Notes, float], None]
"""Called with the scope of a request that has ended, its notes, and the seconds that it took."""
NO_SNIFFING = (b"x-content-type-options", b"nosniff")


class Watch:
    """Tells listeners of every request; each answer has ``X-Request-Id`` and is what it says it is."""

    def __init__(self, app: ASGIApp, listeners: Sequence[Listener]) -> None:
        self.app, self._listeners = app, listeners

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app; note what it answers."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        notes = notes_of(scope)

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                notes.status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", notes.request_id.encode()), NO_SNIFFING]
            else:
                notes.n_bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            seconds = time.perf_counter() - notes.started
            for listener in self._listeners:
                listener(scope, notes, seconds)


def route_of(scope: Scope) -> str:
    """Return the address of a request as the OpenAPI document has it; empty where there is no such address."""
    return getattr(scope.get("route"), "path", "")
