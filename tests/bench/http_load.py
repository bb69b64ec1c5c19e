"""Requests per second and latency of `lexmax serve` under connections that never pause, and what it adds to a search.

    python tests/bench/http_load.py IDX QUERIES.jsonl --connections 16 --seconds 30 [--production]

Starts the server on a free port of 127.0.0.1, warms it, and drives it from a process of its own with keep-alive connections.
Beside that it asks the server and a `Retriever` in this process one query at a time, in turn: the difference of their medians
is the server's overhead. ``--production`` has keys, an access log and metrics, which are read every second. Prints one JSON
object. ``server_cpu_ms`` is what a request costs the server's process; ``other_cores`` is what the rest of the machine took.
QUERIES holds a JSON object per line, with a "query" or "text", plain or as .gz.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np

TICKS = os.sysconf("SC_CLK_TCK")


class Connection:
    """A keep-alive connection that costs the client little."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> int:
        """Send a request and read its answer; returns the status."""
        self._socket.sendall(request)
        received = self._socket.recv(1 << 16)
        while b"\r\n\r\n" not in received:
            received += self._socket.recv(1 << 16)
        head, _, body = received.partition(b"\r\n\r\n")
        at = head.lower().index(b"content-length:") + 15
        left = int(head[at : head.find(b"\r", at) if b"\r" in head[at:] else None]) - len(body)
        while left > 0:
            left -= len(self._socket.recv(1 << 16))
        return int(head[9:12])


class Load:
    """A server, and what is asked of it."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        opens = gzip.open if options.queries.endswith(".gz") else open
        with opens(options.queries, "rt") as lines:
            records = [json.loads(line) for _, line in zip(range(5000), lines, strict=False)]
        self.texts = [record.get("query") or record["text"] for record in records]
        self._folder, self._options, self.port = folder, options, free_port()
        self._key = self._production() if options.production else None
        asked = {"k": options.k, "search": options.search, "options": options_of(options.option)}
        bodies = [{"query": text, **asked} for text in self.texts]
        self._requests = [self._request(json.dumps(body).encode()) for body in bodies]

    def _production(self) -> str:
        command = [sys.executable, "-m", "lexmax", "keys", "add", str(self._folder / "keys.json"), "--name", "load"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def _request(self, body: bytes) -> bytes:
        key = f"Authorization: Bearer {self._key}\r\n" if self._key else ""
        head = (
            f"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{key}Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def start(self) -> subprocess.Popen[bytes]:
        """Start the server, and return when it is ready."""
        command = [
            sys.executable,
            "-m",
            "lexmax",
            "serve",
            self._options.index,
            "--port",
            str(self.port),
            "--log-level",
            "error",
        ]
        if self._key:
            command += ["--keys", str(self._folder / "keys.json"), "--access-log", str(self._folder / "access.jsonl")]
        server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and server.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2):
                    return server
            except OSError:
                time.sleep(0.1)
        server.kill()
        raise SystemExit("the server did not become ready: try lexmax serve by hand")

    def drive(self, seconds: float) -> tuple[list[float], int, float]:
        """Latencies in seconds, the number of answers that are not 200, and the time that passed."""
        latencies: list[float] = []
        errors = [0]
        start = time.perf_counter()

        def one(number: int) -> None:
            connection, at = Connection(self.port), number * 37
            while time.perf_counter() - start < seconds:
                at += 1
                begin = time.perf_counter()
                status = connection.ask(self._requests[at % len(self._requests)])
                latencies.append(time.perf_counter() - begin)
                errors[0] += status != 200

        threads = [threading.Thread(target=one, args=(number,)) for number in range(self._options.connections)]
        if self._key:
            threads.append(threading.Thread(target=self._watch, args=(start + seconds,)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return latencies, errors[0], time.perf_counter() - start

    def _watch(self, end: float) -> None:
        """Read metrics, as Prometheus does."""
        while time.perf_counter() < end:
            request = urllib.request.Request(f"http://127.0.0.1:{self.port}/metrics", headers={"X-API-Key": str(self._key)})
            urllib.request.urlopen(request, timeout=30).read()  # noqa: S310
            time.sleep(1)

    def overhead(self, n_queries: int) -> dict[str, float]:
        """Median milliseconds of single queries, over HTTP and in this process, asked in turn."""
        from lexmax import Retriever

        connection, served, direct = Connection(self.port), [], []
        with Retriever.open(self._options.index, warm=True) as retriever:
            for number in range(n_queries):
                text, request = self.texts[number % len(self.texts)], self._requests[number % len(self.texts)]
                start = time.perf_counter()
                retriever.search(text, self._options.k, search=self._options.search, options=options_of(self._options.option))
                middle = time.perf_counter()
                connection.ask(request)
                served.append((time.perf_counter() - middle) * 1000)
                direct.append((middle - start) * 1000)
        medians = float(np.median(served)), float(np.median(direct))
        return {
            "one_by_one_p50_ms": round(medians[0], 3), "in_process_p50_ms": round(medians[1], 3),
            "overhead_p50_ms": round(medians[0] - medians[1], 3),
        }  # fmt: skip


def cpu_s(process: int) -> float:
    """Seconds of processor that a process has had."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def busy_s() -> float:
    """Seconds of processor that all processes of the machine have had."""
    spent = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]))
    return (sum(spent) - spent[3] - spent[4]) / TICKS  # but for idle and waiting for disks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index")
    parser.add_argument("queries")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--search", help="search expression of every request (default: the index's)")
    parser.add_argument("--option", action="append", default=[], metavar="FIELD.NAME=NUMBER", help="of every request")
    parser.add_argument("--production", action="store_true", help="with keys, an access log and metrics")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        load = Load(options, Path(folder))
        server = load.start()
        try:
            load.drive(2.0)
            before, ours, all_before = cpu_s(server.pid), cpu_s(os.getpid()), busy_s()
            latencies, errors, elapsed = load.drive(options.seconds)
            spent = cpu_s(server.pid) - before
            others = busy_s() - all_before - spent - (cpu_s(os.getpid()) - ours)
            overhead = load.overhead(500)
        finally:
            server.terminate()
            server.wait()
    p50, p99 = np.percentile(latencies, [50, 99]) * 1000
    row = {
        "connections": options.connections,
        "k": options.k,
        "search": options.search,
        "options": options.option,
        "production": options.production,
        "requests": len(latencies),
        "errors": errors,
        "requests_per_s": round(len(latencies) / elapsed, 1),
        "p50_ms": round(p50, 2),
        "p99_ms": round(p99, 2),
        "server_cpu_ms": round(spent / len(latencies) * 1000, 3),
        "other_cores": round(others / elapsed, 2),
        **overhead,
    }
    print(json.dumps(row))


def options_of(given: list[str]) -> dict[str, dict[str, int]]:
    """Options by field, as the server and `Retriever.search` take them."""
    found: dict[str, dict[str, int]] = {}
    for each in given:
        field, _, setting = each.partition(".")
        name, _, value = setting.partition("=")
        found.setdefault(field, {})[name] = int(value)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
