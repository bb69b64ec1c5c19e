"""Bodies as they come and answers as they go: bounded in bytes, in time, and in what all of them hold together.

::

    client --pieces--> BodyReader --whole body--> app --Answer--> client, as fast as it reads
                            |___ Share of the Budget ___|
"""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import CLOSE, RefusedError
from ..limits import Limits

LINGER_S = 5.0  # what a client gets to end a body that was refused already
PIECE = 64 * 1024  # bytes sent at once; a client that reads slowly holds the rest back


class Budget:
    """Bytes that all requests together may hold, in one event loop."""

    def __init__(self, n_bytes: int) -> None:
        self._most = n_bytes
        self.held = 0
        """What they hold now."""

    @contextlib.contextmanager
    def share(self) -> Iterator["Share"]:
        """Open an empty share, which is given back at the end."""
        share = Share(self)
        try:
            yield share
        finally:
            self.held -= share.n_bytes

    def take(self, n_bytes: int) -> None:
        """Count bytes.

        Raises
        ------
        RefusedError
            503, when there are too many.
        """
        if self.held + n_bytes > self._most:
            message = f"requests hold {self.held} bytes already, of {self._most}: try again in a second"
            raise RefusedError(503, "overloaded", message, {"Retry-After": "1"})
        self.held += n_bytes


class Share:
    """What one request holds of a `Budget`."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.n_bytes = 0

    def take(self, n_bytes: int) -> None:
        """Hold more; raises as `Budget.take` does."""
        self._budget.take(n_bytes)
        self.n_bytes += n_bytes


class BodyReader:
    """ASGI middleware: reads the body, chunked or not, within bytes and seconds, before anything parses it.

    The app finds its `Share` of the budget in ``scope["held"]``.
    """

    def __init__(self, app: ASGIApp, limits: Limits, budget: Budget) -> None:
        self.app = app
        self._limits, self._budget = limits, budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the app a body that fits; answer 408 for one that is late and 413 for one that is too large."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        with self._budget.share() as held:
            try:
                body = await self._read(scope, receive, held)
            except RefusedError as refusal:
                await self._refuse(refusal, receive, send)
                return
            if body is None:  # the client hung up
                return
            unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

            async def replay() -> Message:
                return unread.pop() if unread else await receive()

            scope["held"] = held
            await self.app(scope, replay, send)

    async def _read(self, scope: Scope, receive: Receive, held: Share) -> bytes | None:
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        self._check(int(declared) if declared.isdigit() else 0)
        body = bytearray()
        more = True
        try:
            async with asyncio.timeout(self._limits.body_timeout_s):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    part = message.get("body", b"")
                    held.take(len(part))
                    body += part
                    more = message.get("more_body", False)
                    self._check(len(body))
        except TimeoutError:
            seconds = self._limits.body_timeout_s
            raise RefusedError(408, "timeout", f"the body did not arrive within {seconds:g} s", CLOSE) from None
        return bytes(body)

    def _check(self, n_bytes: int) -> None:
        if n_bytes > self._limits.max_body_bytes:
            message = f"the body is larger than {self._limits.max_body_bytes} bytes"
            raise RefusedError(413, "body_too_large", message, CLOSE)

    async def _refuse(self, refusal: RefusedError, receive: Receive, send: Send) -> None:
        """Answer at once, then let the client end its body for a while: a connection closed under it would lose the answer."""
        response = refusal.response(CLOSE)
        await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": response.body, "more_body": True})
        if refusal.status != 408:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(LINGER_S, self._limits.body_timeout_s)):
                    while (await receive()).get("more_body"):
                        pass
        await send({"type": "http.response.body", "body": b""})


class Answer(Response):
    """A JSON body in parts, sent as the client takes it, so that no more than `PIECE` waits outside the budget."""

    def __init__(self, parts: Sequence[bytes], headers: Mapping[str, str] | None = None) -> None:
        super().__init__(None, 200, headers, "application/json")
        self._parts = parts
        self.headers["content-length"] = str(sum(map(len, parts)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send head, pieces and end."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if int(self.headers["content-length"]) <= PIECE:
            await send({"type": "http.response.body", "body": b"".join(self._parts)})
            return
        for part in self._parts:
            for at in range(0, len(part), PIECE):
                await send({"type": "http.response.body", "body": part[at : at + PIECE], "more_body": True})
        await send({"type": "http.response.body", "body": b""})
