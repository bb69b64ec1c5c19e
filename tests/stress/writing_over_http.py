"""Documents added over HTTP while clients search, then `kill -9`: no search may fail, and what was acknowledged must be there.

    python tests/stress/writing_over_http.py --documents 10000 --clients 8

Some writers add batches beside each other; clients search without pause, for a document that is there from the beginning. At
a drawn moment the server is killed, and the index is opened and checked; then a server that is started again adds the rest.
"""

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
from served import Served, served

from lexmax import Retriever, build_index
from lexmax.index.check import check_index

WORDS = ["solar", "wind", "cells", "power", "storms", "battery", "energy", "heat", "river", "ocean", "steel", "market"]


class Load:
    """Writers and searchers of one server, and what came of them."""

    def __init__(self, server: Served, ids: list[str], options: argparse.Namespace) -> None:
        self.acknowledged: set[str] = set()
        self.wrong: list[str] = []
        self.latencies_ms: list[float] = []
        self.killed, self._over, self._lock = threading.Event(), threading.Event(), threading.Lock()
        self._server, self._batch = server, options.batch
        self._batches = [ids[at : at + options.batch] for at in range(0, len(ids), options.batch)]
        self._writers = [threading.Thread(target=self._write) for _ in range(options.writers)]
        self._searchers = [threading.Thread(target=self._search) for _ in range(options.clients)]

    def run(self, kill_after: int | None) -> float:
        """Run until all is added, or so much is acknowledged and the server is killed; returns the seconds."""
        started = time.perf_counter()
        for thread in [*self._writers, *self._searchers]:
            thread.start()
        while any(thread.is_alive() for thread in self._writers):
            if kill_after is not None and len(self.acknowledged) >= kill_after and not self.killed.is_set():
                self.killed.set()
                self._server.process.kill()
            time.sleep(0.001)
        seconds = time.perf_counter() - started
        self._over.set()
        for thread in self._searchers:
            thread.join()
        return seconds

    def _write(self) -> None:
        random_ = random.Random()
        with httpx.Client(base_url=self._server.url, timeout=120) as client:
            while True:
                with self._lock:
                    if not self._batches or self.killed.is_set():
                        return
                    ids = self._batches.pop()
                documents = [{"doc_id": each, "text": " ".join(random_.choices(WORDS, k=60))} for each in ids]
                try:
                    job = client.post("/v1/documents", json={"documents": documents, "replace": True})
                    while job.status_code == 202:
                        time.sleep(0.05)
                        job = client.get(f"/v1/jobs/{job.json()['id']}")
                        if job.json()["state"] in ("queued", "running"):
                            job.status_code = 202
                except httpx.TransportError:
                    if not self.killed.is_set():
                        raise
                    return
                if job.status_code == 200 and job.json()["state"] == "done":
                    self.acknowledged.update(ids)
                else:
                    self.wrong.append(job.text)

    def _search(self) -> None:
        with httpx.Client(base_url=self._server.url, timeout=120) as client:
            while not self._over.is_set() and not self.killed.is_set():
                started = time.perf_counter()
                try:
                    answer = client.post("/v1/search", json={"query": "zeppelin", "k": 3})
                except httpx.TransportError as error:
                    if not self.killed.is_set():
                        self.wrong.append(repr(error))
                    return
                self.latencies_ms.append((time.perf_counter() - started) * 1000)
                if answer.status_code != 200 or [hit["doc_id"] for hit in answer.json()["results"]] != ["first"]:
                    self.wrong.append(answer.text)


def missing_of(index: Path, ids: set[str]) -> list[str]:
    """Which documents are not in the index; it must be sound."""
    problems = check_index(index)
    if problems:
        raise SystemExit(f"the index is damaged: {problems}")
    with Retriever.open(index) as retriever:
        wanted = sorted(ids)
        return [doc_id for doc_id, found in zip(wanted, retriever.documents(wanted), strict=True) if found is None]


def main() -> int:
    """Run the program; 1 when a search failed, or an acknowledged document is not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=100, help="documents per request")
    parser.add_argument("--writers", type=int, default=2)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--kill", action=argparse.BooleanOptionalAction, default=True, help="kill the server on the way")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="lexmax-writing-"))
    build_index(documents=[{"id": "first", "text": "a zeppelin"}], out=folder / "index", encoders=["bm25"])
    ids = [f"d{number}" for number in range(options.documents)]
    wrong, row, left = [], {"documents": len(ids), "batch": options.batch, "clients": options.clients}, ids
    if options.kill:
        with served(folder / "index", folder / "first.log", "--writable") as server:
            load = Load(server, ids, options)
            load.run(random.randint(len(ids) // 10, len(ids) * 9 // 10))
        lost = missing_of(folder / "index", load.acknowledged)
        wrong += load.wrong + [f"acknowledged, and lost: {doc_id}" for doc_id in lost]
        row |= {"acknowledged_before_kill": len(load.acknowledged), "lost": len(lost)}
        left = [doc_id for doc_id in ids if doc_id not in load.acknowledged]
    with served(folder / "index", folder / "second.log", "--writable") as server:
        load = Load(server, left, options)
        seconds = load.run(None)
        in_all = httpx.get(f"{server.url}/v1/index").json()["n_docs"]
    wrong += load.wrong
    if in_all != len(ids) + 1 or load.acknowledged != set(left):
        wrong.append(f"{in_all} documents, {len(load.acknowledged)} acknowledged of {len(left)}")
    times = sorted(load.latencies_ms)
    row |= {
        "added_per_s": round(len(left) / seconds, 1), "searches": len(times), "failed_searches_or_writes": len(wrong),
        "search_p50_ms": round(times[len(times) // 2], 2), "search_p99_ms": round(times[len(times) * 99 // 100], 2),
    }  # fmt: skip
    print(json.dumps(row))
    for each in wrong[:10]:
        print("WRONG", each[:300])
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
