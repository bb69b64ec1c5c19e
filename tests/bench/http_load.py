"""Requests per second and latency of `lexmax serve` under a number of connections that never pause.

    python tests/bench/http_load.py IDX QUERIES.jsonl --connections 16 --seconds 30

Starts the server on a free port of 127.0.0.1, warms it, and drives it from a process of its own with keep-alive
connections; prints one JSON object. QUERIES holds a JSON object per line, with a "query" or "text".
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index")
    parser.add_argument("queries")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--search", help="search expression of every request (default: the index's)")
    options = parser.parse_args()
    records = [json.loads(line) for line in Path(options.queries).read_text().splitlines()[:5000]]
    bodies = [
        json.dumps({"query": r.get("query") or r["text"], "k": options.k, "search": options.search}).encode() for r in records
    ]
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "lexmax", "serve", options.index, "--port", str(port), "--log-level", "error"],
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_ready(port, server)
        drive(port, bodies, options.connections, 2.0)
        latencies, errors, elapsed = drive(port, bodies, options.connections, options.seconds)
    finally:
        server.terminate()
        server.wait()
    p50, p99 = np.percentile(latencies, [50, 99]) * 1000
    row = {
        "connections": options.connections,
        "k": options.k,
        "search": options.search,
        "requests": len(latencies),
        "errors": errors,
        "requests_per_s": round(len(latencies) / elapsed, 1),
        "p50_ms": round(p50, 2),
        "p99_ms": round(p99, 2),
    }
    print(json.dumps(row))


def drive(port: int, bodies: list[bytes], n_connections: int, seconds: float) -> tuple[list[float], int, float]:
    """Latencies in seconds, the number of answers that are not 200, and the time that passed."""
    latencies: list[float] = []
    errors = [0]
    start = time.perf_counter()

    def one(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        at = number * 37
        while time.perf_counter() - start < seconds:
            at += 1
            begin = time.perf_counter()
            connection.request("POST", "/v1/search", bodies[at % len(bodies)], {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            latencies.append(time.perf_counter() - begin)
            errors[0] += answer.status != 200
        connection.close()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(n_connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return latencies, errors[0], time.perf_counter() - start


def wait_ready(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if server.poll() is not None:
            raise SystemExit(f"the server ended with {server.returncode}: try lexmax serve by hand")
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit("the server did not become ready in 60 s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
