"""Overload: clients ask several times as often as the server can answer, beside connections that send nothing.

    python tests/stress/overload.py IDX --clients 64 --seconds 60 --times 4

It measures what the server can answer, then offers a multiple of that: each client sends at its times, whether or not the
last answer has come. Every answer must be 200, 429 or 503, the server's memory bounded, and health answered throughout.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx
from served import Served, served

WORDS = [
    "solar",
    "wind",
    "cells",
    "power",
    "storms",
    "battery",
    "energy",
    "heat",
    "river",
    "ocean",
    "steel",
    "market",
    "bank",
    "law",
    "virus",
    "vaccine",
    "heart",
    "brain",
    "sleep",
]
TAKEN = {200, 429, 503}


def body(random_: random.Random, n_queries: int) -> dict[str, object]:
    """Make a search of several queries."""
    texts = [" ".join(random_.choices(WORDS, k=6)) for _ in range(n_queries)]
    return {"queries": texts, "k": random_.choice([10, 100]), "timeout_s": 10}


async def capacity(client: httpx.AsyncClient, n_queries: int, seconds: float) -> float:
    """Requests a second that eight clients get answered, one after another."""
    random_, end, n_done = random.Random(1), time.monotonic() + seconds, 0

    async def ask() -> None:
        nonlocal n_done
        while time.monotonic() < end:
            response = await client.post("/v1/search/batch", json=body(random_, n_queries))
            n_done += response.status_code == 200

    await asyncio.gather(*(ask() for _ in range(8)))
    return n_done / seconds


async def overload(server: Served, options: argparse.Namespace) -> bool:
    """Run it all and print what came; False when anything was not as it must be."""
    limits = httpx.Limits(max_connections=2000)
    async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client:
        able = await capacity(client, options.queries, options.seconds / 6)
        offered = able * options.times
        before = peak = server.rss_mb()
        host, port = server.url.removeprefix("http://").split(":")
        slow = [await asyncio.open_connection(host, int(port)) for _ in range(options.slow)]
        statuses: Counter[object] = Counter()
        latencies_ms: dict[int, list[float]] = {}
        sent: set[asyncio.Task[None]] = set()

        async def ask(random_: random.Random) -> None:
            started = time.perf_counter()
            try:
                status: object = (await client.post("/v1/search/batch", json=body(random_, options.queries))).status_code
            except httpx.TransportError as error:
                status = type(error).__name__
            statuses[status] += 1
            if isinstance(status, int):
                latencies_ms.setdefault(status, []).append((time.perf_counter() - started) * 1000)

        async def one_client(number: int, end: float) -> None:
            random_ = random.Random(number)
            while time.monotonic() < end:
                task = asyncio.create_task(ask(random_))
                sent.add(task)
                task.add_done_callback(sent.discard)
                await asyncio.sleep(random_.expovariate(offered / options.clients))

        async def watch(end: float) -> None:
            nonlocal peak
            while time.monotonic() < end:
                peak = max(peak, server.rss_mb())
                statuses["health", (await client.get("/healthz")).status_code] += 1
                await asyncio.sleep(0.5)

        end = time.monotonic() + options.seconds
        await asyncio.gather(watch(end), *(one_client(number, end) for number in range(options.clients)))
        await asyncio.gather(*sent)
        for _, writer in slow:
            writer.close()
        again = [(await client.post("/v1/search/batch", json=body(random.Random(0), 1))).status_code for _ in range(5)]
    print(f"able to answer {able:.1f} requests/s of {options.queries} queries; offered {offered:.1f}/s for {options.seconds} s")
    print(f"answers: {dict(statuses)}; after it: {again}")
    for status, times in sorted(latencies_ms.items()):
        times.sort()
        print(f"  {status}: p50 {times[len(times) // 2]:.0f} ms, p99 {times[len(times) * 99 // 100]:.0f} ms")
    print(f"private memory: {before:.0f} MB before, {peak:.0f} MB at most")
    strange = {status for status in statuses if status not in TAKEN and status != ("health", 200)}
    return not strange and again == [200] * 5 and peak - before < options.max_growth_mb


def main() -> int:
    """Run the program; 1 when the server did what it must not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--times", type=float, default=4.0, help="load offered, in capacities")
    parser.add_argument("--queries", type=int, default=4, help="queries per request")
    parser.add_argument("--slow", type=int, default=200, help="connections that send nothing")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--max-growth-mb", type=float, default=400.0)
    options = parser.parse_args()
    log = Path(tempfile.mkdtemp(prefix="lexmax-overload-")) / "server.log"
    with served(options.index, log) as server:
        good = asyncio.run(overload(server, options))
    print(f"{'good' if good else 'NOT GOOD'}; the server's log: {log}, {log.stat().st_size} bytes")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
