"""HTTP/1.1 connections that wait for their client only so long. uvicorn's own have no such bounds.

::

    nothing, or part of a head     ``header_timeout_s``    408, or closed where nothing came
    part of a body                 `payloads.BodyReader`   408
    an answer that nobody takes    ``write_timeout_s``     cut off
    nothing after an answer        ``keep_alive_s``        closed

Of ``max_connections`` none is kept by a client that sends nothing: a new one takes the place of the one that has waited longest
for its client. Where every connection has a whole request in it, the new one is answered with 503.
"""

import asyncio
import sys
from typing import Any, cast

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import CLOSE, RefusedError
from ..limits import Limits

SPARE = 64  # connections above the limit that are told so; those above are cut off


class Connection(H11Protocol):
    """One connection of uvicorn, with `Limits`, that refuses what is no HTTP in the one error shape."""

    def __init__(self, *arguments: Any, limits: Limits, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._limits = limits
        self._head: asyncio.TimerHandle | None = None
        self._answer: asyncio.TimerHandle | None = None
        self.waits_since = 0.0

    @property
    def waits(self) -> bool:
        """Whether it is the client's turn: no request has come whole that is not answered."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self.waits_since = self.loop.time()
        n_over = len(self.connections) - self._limits.max_connections
        if n_over > 0 and not self._make_room():
            if n_over > SPARE:
                transport.abort()
                return
            self.app = self._refuse_all
        self._head = self.loop.call_later(self._limits.header_timeout_s, self._head_is_late)

    def connection_lost(self, error: Exception | None) -> None:
        """Stop all clocks."""
        super().connection_lost(error)
        self._stop_head()
        if self._answer is not None:
            self._answer.cancel()

    def data_received(self, data: bytes) -> None:
        """Take what came; the clock of a head runs from its first byte."""
        if self._head is None and self.conn.their_state is h11.IDLE:
            self._head = self.loop.call_later(self._limits.header_timeout_s, self._head_is_late)
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_head()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; called by uvicorn while it handles h11's error, which knows the status."""
        error = sys.exception()
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        self._refuse(RefusedError(status, "invalid_request", f"not HTTP/1.1: {error or msg}"))

    def pause_writing(self) -> None:
        """Begin to wait until the client takes what it was sent."""
        super().pause_writing()
        self._watch_answer()

    def resume_writing(self) -> None:
        """Go on; what is left is waited for anew."""
        super().resume_writing()
        self._watch_answer()

    def on_response_complete(self) -> None:
        """Begin to wait for the next head, and until the client has taken the answer."""
        self.waits_since = self.loop.time()
        super().on_response_complete()
        self._watch_answer()

    def _make_room(self) -> bool:
        """Cut off the connection that has waited longest for its client; False when none has."""
        connections = cast("set[Connection]", self.connections)
        others = [each for each in connections if each is not self and each.waits and not each.transport.is_closing()]
        if not others:
            return False
        min(others, key=lambda each: each.waits_since).transport.abort()
        return True

    def _head_is_late(self) -> None:
        self._head = None
        if self.conn.trailing_data[0]:
            seconds = self._limits.header_timeout_s
            self._refuse(RefusedError(408, "timeout", f"the head of the request did not arrive within {seconds:g} s"))
        else:
            self.transport.close()

    def _stop_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _watch_answer(self) -> None:
        if self._answer is not None:
            self._answer.cancel()
            self._answer = None
        if self.transport.get_write_buffer_size():
            self._answer = self.loop.call_later(self._limits.write_timeout_s, self._answer_is_stuck)

    def _answer_is_stuck(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _refuse(self, refusal: RefusedError) -> None:
        """Answer without the app and close; where an answer has begun already, only close."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            response = refusal.response(CLOSE)
            head = h11.Response(status_code=response.status_code, headers=response.raw_headers)
            for event in (head, h11.Data(data=bytes(response.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event))
            self._watch_answer()
        self.transport.close()

    async def _refuse_all(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = f"all {self._limits.max_connections} connections are busy: try again in a second"
        await RefusedError(503, "overloaded", message, {"Retry-After": "1"}).response(CLOSE)(scope, receive, send)
