"""A server process for the stress programs, with its memory."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

START_S = 300


@dataclass
class Served:
    """A server at work."""

    url: str
    process: subprocess.Popen[bytes]

    def rss_mb(self) -> float:
        """Resident memory without the pages of mapped files, which the kernel takes back when it wants."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith(("RssAnon", "RssShmem"))) / 1024


@contextlib.contextmanager
def served(index: Path, log: Path, *flags: str) -> Iterator[Served]:
    """Serve an index in a process of one thread per library, until ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, "-m", "lexmax", "serve", str(index), "--port", str(port), "--log-level", "warning", *flags]
    with log.open("wb") as lines:
        process = subprocess.Popen(command, stdout=lines, stderr=lines, env={**os.environ, **threads})
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, process)
        yield Served(url, process)
    finally:
        process.terminate()
        process.wait(60)


def wait_until_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    """Ask until the index is open and warm."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        time.sleep(0.2)
    raise RuntimeError("the server did not become ready: see its log")
