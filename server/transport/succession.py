"""A listening socket that outlives its process, so that a restart refuses nobody.

::

    SIGUSR2 -> the same command is started with the socket  -> it opens its indexes -> it accepts, and ends its predecessor
    systemd -> LISTEN_FDS, LISTEN_PID (socket activation)   -> it opens its indexes -> it accepts

Meanwhile connections go to the predecessor, or wait in the socket's queue. A successor that fails changes nothing.
"""

import logging
import os
import signal
import socket
import subprocess
import sys

INHERITED = "LEXMAX_INHERITED"  # descriptor of the socket and id of the process that hands it over
FIRST_OF_SYSTEMD = 3

logger = logging.getLogger(__name__)


class Successor:
    """Starts this process's command again, with its socket."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, unless one is on its way."""
        if self._process is not None and self._process.poll() is None:
            logger.warning("a successor is on its way already: process %d", self._process.pid)
            return
        if self._process is not None:
            logger.error("the last successor ended with status %d", self._process.returncode)
        number = self._listener.fileno()
        environment = {**os.environ, INHERITED: f"{number},{os.getpid()}"}
        command = [sys.executable, *sys.orig_argv[1:]]
        self._process = subprocess.Popen(command, pass_fds=(number,), env=environment)  # noqa: S603
        logger.info("started a successor: process %d", self._process.pid)


def inherited_listener() -> socket.socket | None:
    """Return the listening socket that a predecessor or systemd hands over; None where there is none."""
    found = _handed_over()
    if found is not None:
        return socket.socket(fileno=found[0])
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS", "0") != "0":
        return socket.socket(fileno=FIRST_OF_SYSTEMD)
    return None


def is_inherited(listener: socket.socket) -> bool:
    """Whether a listener was handed over to this process."""
    found = _handed_over()
    by_systemd = os.environ.get("LISTEN_PID") == str(os.getpid()) and listener.fileno() == FIRST_OF_SYSTEMD
    return by_systemd or (found is not None and found[0] == listener.fileno())


def end_predecessor() -> None:
    """Send SIGTERM to the process that handed its socket over, if it is still there."""
    found = _handed_over()
    if found is not None:
        logger.info("taking over from process %d", found[1])
        os.kill(found[1], signal.SIGTERM)


def _handed_over() -> tuple[int, int] | None:
    """Descriptor and process id; None for a process that was started by another one than it says."""
    number, _, process = os.environ.get(INHERITED, "").partition(",")
    if not (number.isdecimal() and process.isdecimal()) or int(process) != os.getppid():
        return None
    return int(number), int(process)
