"""Mixed load for long: searches of every kind, mistakes, clients that hang up, and commits beside them; does memory grow?

    python tests/stress/mixed_load.py IDX --minutes 30

IDX is copied first. A second process adds and deletes documents and compacts now and then. Private memory is sampled every five
seconds; its slope is fitted to the samples after the first third. Every answer must be the one that its request calls for.
"""

import argparse
import asyncio
import contextlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
from overload import WORDS
from served import Served, served

WRITER = """
import random, sys, time
from lexmax import Collection, Retriever
from lexmax.retrieval.build import add_to_index
path, end = sys.argv[1], time.time() + float(sys.argv[2])
words, number = sys.argv[3].split(), 0
while time.time() < end:
    documents = [
        {"_id": f"new{number % 50}-{i}", "text": " ".join(random.choices(words, k=20)), "year": 2000} for i in range(3)
    ]
    add_to_index(None, path, documents=documents, replace=True)
    with Collection.open(path) as collection:
        collection.delete([f"new{number % 50}-0"])
        collection.commit()
        if number % 20 == 19:
            collection.compact()
    number += 1
    print("commit", flush=True)
    time.sleep(2)
"""


def requests_of(random_: random.Random) -> tuple[str, dict[str, object], set[int]]:
    """Draw a request: its address, the body of a search if it is one, and the statuses that it may get."""
    text = " ".join(random_.choices(WORDS, k=random_.randint(1, 12)))
    good, refused, found = {200, 503}, {422, 503}, {200, 404, 503}
    return random_.choice(
        [
            ("/v1/search", {"query": text}, good),
            ("/v1/search", {"query": text, "explain": True, "timings": True, "k": 3}, good),
            ("/v1/search/batch", {"queries": [text] * random_.randint(1, 20), "k": 50, "include_text": False}, good),
            ("/v1/search", {"query": text, "search": "bm25", "filter": f"year >= {random_.randint(1990, 2030)}"}, good),
            ("/v1/search", {"query": text, "search": f"bm25:{random_.randint(1, 900)}", "k": random_.randint(1, 300)}, good),
            ("/v1/search", {"query": text * 50, "timeout_s": random_.choice([0.01, 5])}, good),
            ("/v1/search", {"query": text, "filter": f"yaer > {random_.random()}"}, refused),
            ("/v1/search", {"query": text, "k": 100_000}, refused),
            (f"/v1/documents/new{random_.randint(0, 49)}-1", {}, found),
            (f"/v1/documents/none{random_.random()}", {}, {404, 503}),
            ("/v1/index", {}, good),
        ]
    )


async def one_client(server: Served, number: int, end: float, seen: Counter[object]) -> None:
    """Send requests one after another; one in twenty is left before its answer."""
    random_ = random.Random(number)
    while time.monotonic() < end:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            for _ in range(20):
                address, body, allowed = requests_of(random_)
                asked = client.post(address, json=body) if body else client.get(address)
                if random_.random() < 0.05:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(asked, 0.01)
                    seen["left"] += 1
                    continue
                response = await asked
                seen[response.status_code] += 1
                if response.status_code not in allowed:
                    seen["WRONG"] += 1
                    print(f"WRONG: {response.status_code} for {address} {str(body)[:200]}: {response.text[:300]}", flush=True)
                await asyncio.sleep(random_.random() * 0.1)


async def load(server: Served, options: argparse.Namespace, seen: Counter[object]) -> list[tuple[float, float]]:
    """Run the clients; returns (minutes, megabytes) of the samples."""
    started = time.monotonic()
    end = started + options.minutes * 60
    samples: list[tuple[float, float]] = []

    async def watch() -> None:
        while time.monotonic() < end:
            samples.append(((time.monotonic() - started) / 60, server.rss_mb()))
            if len(samples) % 12 == 1:
                print(f"{samples[-1][0]:5.1f} min  {samples[-1][1]:7.1f} MB  {dict(seen)}", flush=True)
            await asyncio.sleep(5)

    await asyncio.gather(watch(), *(one_client(server, number, end, seen) for number in range(options.clients)))
    return samples


def main() -> int:
    """Run the program; 1 when an answer was wrong or memory grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--max-mb-per-minute", type=float, default=1.0)
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="lexmax-mixed-"))
    index = place / "index"
    shutil.copytree(options.index, index)
    seen: Counter[object] = Counter()
    with served(index, place / "server.log") as server:
        command = [sys.executable, "-c", WRITER, str(index), str(options.minutes * 60), " ".join(WORDS)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            samples = asyncio.run(load(server, options, seen))
            n_commits = len(writer.communicate()[0].splitlines())
    late = np.array(samples[len(samples) // 3 :])
    slope = float(np.polyfit(late[:, 0], late[:, 1], 1)[0])
    print(f"{sum(n for status, n in seen.items() if isinstance(status, int))} answers, {dict(seen)}")
    print(f"{n_commits} rounds of add, delete and commit, the writer ended with {writer.returncode}")
    print(f"private memory {samples[0][1]:.0f} -> {samples[-1][1]:.0f} MB; slope after the first third {slope:+.2f} MB/min")
    good = not seen["WRONG"] and writer.returncode == 0 and slope < options.max_mb_per_minute
    print("good" if good else f"NOT GOOD; see {place / 'server.log'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
