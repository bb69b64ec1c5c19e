"""The process that serves: one worker, since the kernels release the GIL and threads share one copy of the indexes.

The beginning: the address is bound first, then requests get 503 until their index is open and warm.
A restart: after SIGUSR2 a successor is started, see `succession`; once it is ready this process ends as after SIGTERM.
The end: after SIGTERM, SIGINT or SIGHUP requests have ``grace_s`` seconds to finish. What is left is answered with 503, and
threads that still work ``CLOSE_S`` seconds later end with the process.
"""

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn
from fastapi import FastAPI

from ...index.errors import StorageError
from ..app import DEFAULT_LIMITS, DEFAULT_SETTINGS, create_app
from ..indexes import Indexes, Opens
from ..limits import Limits
from ..settings import Settings
from ..writing.writer import Home
from . import succession
from .connections import SPARE, Connection

if TYPE_CHECKING:
    from ...retrieval.retriever import Retriever

INTERRUPTED = 130  # exit status of a process that SIGINT ended
N_FILES = 128  # descriptors beside those of connections


class Server(uvicorn.Server):
    """Runs an app of `create_app`; ends by itself where an index cannot be opened."""

    def __init__(self, app: FastAPI, limits: Limits = DEFAULT_LIMITS, host: str = "127.0.0.1", port: int = 8000) -> None:
        connection: Any = partial(Connection, limits=limits)
        super().__init__(
            uvicorn.Config(
                app, host=host, port=port, http=connection, ws="none", log_config=None,
                server_header=False, timeout_keep_alive=limits.keep_alive_s, timeout_graceful_shutdown=limits.grace_s,
            )
        )  # fmt: skip
        self._indexes: Indexes = app.state.indexes
        app.state.connections = self.server_state.connections

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, tell a predecessor to end, and be ready for a successor."""
        await super().startup(sockets=sockets)
        if not sockets or threading.current_thread() is not threading.main_thread():
            return
        if self._indexes.failure is None:
            succession.end_predecessor()
        successor = succession.Successor(sockets[0])
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR2, successor.start)
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # nohup ignores it
            loop.add_signal_handler(signal.SIGHUP, self.handle_exit, signal.SIGTERM, None)

    async def on_tick(self, counter: int) -> bool:
        """Tell whether to end; called ten times a second."""
        return self._indexes.failure is not None or bool(await super().on_tick(counter))


@contextlib.contextmanager
def bound(host: str = "127.0.0.1", port: int = 8000) -> Iterator[socket.socket]:
    """Bind an address for `serve`, so that one in use is known before an index is opened; port 0 takes a free one.

    A socket that a predecessor or systemd hands over is taken as it is.

    Raises
    ------
    StorageError
        When the address is in use, unknown or not allowed.
    """
    inherited = succession.inherited_listener()
    if inherited is not None:
        with inherited:
            yield inherited
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is named; it holds the second part of an answer for 40 ms.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen()  # until then another process could bind the address as well
        except (OSError, OverflowError) as failure:
            reason = getattr(failure, "strerror", None) or failure
            raise StorageError(f"cannot listen on {host}:{port}: {reason}; choose another --port or --host") from failure
        yield listener


def check_files(limits: Limits) -> None:
    """See to it that the process may have a descriptor for every connection.

    Raises
    ------
    ValueError
        It may not.
    """
    wanted = limits.max_connections + SPARE + N_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise ValueError(
                f"max_connections {limits.max_connections} takes {wanted} open files, of which a process may have {hard} here: "
                "lower --max-connections or raise `ulimit -Hn`"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def serve(
    retriever: "Retriever | Callable[[], Retriever] | Opens", listener: socket.socket, limits: Limits = DEFAULT_LIMITS,
    settings: Settings = DEFAULT_SETTINGS, home: Home | None = None,
) -> None:  # fmt: skip
    """Serve indexes until SIGINT, SIGTERM or SIGHUP, then close them; requests under way are answered.

    Parameters
    ----------
    retriever : Retriever, callable, or mapping of str to callable
        As in `create_app`.
    listener : socket
        As `bound` yields it.
    limits : Limits
        Bounds of what the server takes.
    settings, home
        As in `create_app`.

    Raises
    ------
    LexmaxError, ValueError, OSError
        What opening the index raised.
    """
    check_files(limits)
    app = create_app(retriever, limits, settings=settings, home=home, open_first=succession.is_inherited(listener))
    indexes: Indexes = app.state.indexes
    try:
        Server(app, limits).run(sockets=[listener])
    finally:
        if indexes.busy or (app.state.writer is not None and app.state.writer.busy):
            # Python would wait for the threads. They read, or write what nobody was told is safe: nothing is lost.
            logging.shutdown()
            os._exit(INTERRUPTED)
    if indexes.failure is not None:
        raise indexes.failure
