"""Kills what a set of shards on Ray is made of, while it is built and while it is searched; prints what became of the answers.

    python tests/stress/shards.py CORPUS.jsonl QUERIES.jsonl WORK [--seconds 20]

Building: `lexmax build --shards 4 --ray` loses a worker, then its driver, and is run again. Searching: a cluster of two nodes
of Ray on this machine, `lexmax serve --ray` with two replicas of each shard, four clients. Then in turn replicas, the second
node and the server itself are killed with SIGKILL, and documents are added. Each answer must be that of one index, before the
addition or after it: anything else is wrong. An answer is late after two seconds.
"""

import argparse
import collections
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx

from lexmax import Retriever
from lexmax.retrieval.corpora.queries import read_queries

LATE_S = 2.0
COMMAND = [sys.executable, "-m", "lexmax"]


def processes(name):
    """Pids of processes whose command line begins with a name."""
    found = []
    for each in Path("/proc").iterdir():
        try:
            if each.name.isdigit() and (each / "cmdline").read_bytes().replace(b"\0", b" ").strip().startswith(name.encode()):
                found.append(int(each.name))
        except OSError:
            continue
    return found


def ranked(retriever, queries):
    """Answers of one index, by query."""
    return {query: [(each.doc_id, round(each.score, 4)) for each in retriever.search(query, 10)] for query in queries}


def build(corpus, out):
    """Build a set on Ray; kill a worker in the middle, then the driver; run again until it is whole."""
    command = [
        *COMMAND,
        "build",
        str(corpus),
        "--out",
        str(out),
        "--encoder",
        "bm25",
        "--shards",
        "4",
        "--workers",
        "2",
        "--ray",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (workers := processes("ray::build_shard")) and process.poll() is None:
        time.sleep(0.02)
    for pid in workers[:1]:
        os.kill(pid, signal.SIGKILL)
    process.wait()
    print(f"build: a worker was killed; the command ended with {process.returncode}", flush=True)
    again = out.with_name("again")
    command[command.index(str(out))] = str(again)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(list(again.glob("shard-*/manifest.json"))) < 2 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    ended = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
    print(f"build: the driver was killed with shards finished; run again, it ended with {ended}", flush=True)
    return again


class Clients:
    """Four threads that search, and what became of their answers."""

    def __init__(self, address, expected):
        self.address, self.expected = address, expected
        self.counts, self.longest, self.failures = collections.Counter(), 0.0, collections.Counter()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._search, args=(number,)) for number in range(4)]
        for thread in self._threads:
            thread.start()

    def _search(self, number):
        queries = list(self.expected[0])
        with httpx.Client(base_url=self.address, timeout=60) as client:
            while not self._ended.is_set():
                query, start = queries[number % len(queries)], time.monotonic()
                number += 4
                try:
                    response = client.post("/v1/search", json={"query": query, "include_text": False})
                except httpx.HTTPError as error:
                    self.failures[type(error).__name__] += 1
                    time.sleep(0.05)
                    continue
                elapsed = time.monotonic() - start
                self.longest = max(self.longest, elapsed)
                if response.status_code != 200:
                    self.failures[response.status_code] += 1
                    continue
                found = [(hit["doc_id"], round(hit["score"], 4)) for hit in response.json()["results"]]
                right = any(found == each[query] for each in self.expected)
                self.counts["right" if right else "wrong"] += 1
                self.counts["late"] += elapsed > LATE_S

    def end(self, what):
        """Stop, and print."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        print(
            f"{what}: {self.counts['right']} right, {self.counts['wrong']} wrong, failed {dict(self.failures) or 0}, "
            f"{self.counts['late']} later than {LATE_S:g} s, longest {self.longest:.2f} s", flush=True,
        )  # fmt: skip


def serve(path, cluster, port):
    """Start a server and wait until it is ready."""
    command = [*COMMAND, "serve", str(path), "--port", str(port), "--ray", cluster.address, "--replicas", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                return process
        except httpx.HTTPError:
            pass
        assert process.poll() is None, "the server ended"
        time.sleep(0.2)


def searches(path, expected, seconds, add):
    """Kill what serves a set, one kind after another."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    second = cluster.add_node(num_cpus=2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = serve(path, cluster, port)
    address = f"http://127.0.0.1:{port}"
    try:
        clients = Clients(address, expected)
        for _ in range(max(1, seconds // 5)):
            time.sleep(5)
            os.kill(processes("ray::ShardActor")[0], signal.SIGKILL)
        time.sleep(5)
        clients.end("replicas killed")
        clients = Clients(address, expected)
        time.sleep(2)
        cluster.remove_node(second, allow_graceful=False)
        time.sleep(seconds)
        clients.end("a node killed")
        clients = Clients(address, expected)
        time.sleep(2)
        server.send_signal(signal.SIGKILL)
        server.wait()
        start = time.monotonic()
        server = serve(path, cluster, port)
        print(f"the server was killed: ready again after {time.monotonic() - start:.1f} s", flush=True)
        time.sleep(2)
        clients.end("the server killed")
        clients = Clients(address, expected)
        time.sleep(1)
        expected.append(add())
        time.sleep(seconds)
        clients.end("documents added")
    finally:
        server.kill()
        cluster.shutdown()


def main():
    """Build, then search."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("queries")
    parser.add_argument("work", type=Path)
    parser.add_argument("--seconds", type=int, default=20)
    options = parser.parse_args()
    queries = [query.text for query in read_queries(options.queries)][:100]
    one = options.work / "one"
    if not one.exists():
        subprocess.run([*COMMAND, "build", str(options.corpus), "--out", str(one), "--encoder", "bm25"], check=True)
    path = build(options.corpus, options.work / "killed")
    with Retriever.open(one) as retriever:
        expected = ranked(retriever, queries)
    for each in (options.work / "killed", path):
        with Retriever.open(each) as retriever:
            print(f"{each.name}: {'the answers of one index' if ranked(retriever, queries) == expected else 'WRONG answers'}")
    more = options.work / "more.jsonl"
    more.write_text(json.dumps({"_id": "added", "text": " ".join(queries[:20])}) + "\n")

    def add():
        for each in (one, path):
            subprocess.run([*COMMAND, "add", str(each), str(more)], check=True, stderr=subprocess.DEVNULL)
        with Retriever.open(one) as retriever:
            return ranked(retriever, queries)

    searches(path, [expected], options.seconds, add)


if __name__ == "__main__":
    main()
