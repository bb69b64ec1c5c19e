"""What shards cost: building, searching in one process and on Ray, and the death of replicas.

    python tests/bench/shards.py PASSAGES.jsonl.gz QUERIES.jsonl WORK [--docs 500000] [--shards 4] [--workers 2] [--ray]

Documents are made of halves of passages: the first half of one with the second half of another, so any number has the words
and lengths of real text. In the folder WORK one index and one set of shards are built of them with BM25, by a command each;
what is there already is kept. Then the same queries go to the index, to the set in this process, and with --ray to the set on
Ray with two replicas, the engines taking turns: time of a query, whether the answers are the same bits, and memory. On Ray one
replica after another is killed while queries run: failed and wrong answers, and the longest.
"""

import argparse
import gzip
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from lexmax import Retriever
from lexmax.retrieval.corpora.queries import read_queries
from lexmax.retrieval.shards.on_ray import RayOptions, open_on_ray
from lexmax.retrieval.shards.snapshot import ShardedSnapshot


def write_corpus(passages, path, n_docs, seed=0):
    """Write documents of halves of passages."""
    with gzip.open(passages, "rt") as lines:
        texts = [json.loads(line)["text"].split() for line in lines]
    rng = np.random.default_rng(seed)
    with path.with_suffix(".part").open("w") as out:
        for number, (a, b) in enumerate(rng.integers(0, len(texts), (n_docs, 2)).tolist()):
            words = texts[a][: len(texts[a]) // 2] + texts[b][len(texts[b]) // 2 :]
            out.write(json.dumps({"_id": str(number), "text": " ".join(words)}) + "\n")
    path.with_suffix(".part").rename(path)


def built(corpus, out, *arguments):
    """Build by a command; prints its seconds, CPU seconds and the largest process."""
    if out.exists():
        return
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-m", "lexmax", "build", str(corpus), "--out", str(out), "--encoder", "bm25", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after, n_bytes = resource.getrusage(resource.RUSAGE_CHILDREN), sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        f"{out.name}: {time.monotonic() - start:.1f} s, CPU {cpu:.1f} s, largest process so far "
        f"{after.ru_maxrss / 2**10:.0f} MiB, {n_bytes / 2**20:.0f} MiB on disk", flush=True,
    )  # fmt: skip


def answers(retriever, query, k):
    """Documents and scores, and the milliseconds that they took."""
    start = time.perf_counter()
    found = retriever.rank([query], k, n_threads=1)[0]
    return found, (time.perf_counter() - start) * 1000


def slowest_shard(snapshot, encoded, k):
    """Milliseconds of the slowest shard, each searched alone in this process."""
    times = []
    for shard in snapshot.shards:
        start = time.perf_counter()
        shard.search("bm25", encoded["bm25"], k, None, None, 1)
        times.append((time.perf_counter() - start) * 1000)
    return max(times)


def compare(engines, queries, k):
    """Ask all engines every query in turns; prints their times."""
    times = {name: [] for name in engines}
    wrong = dict.fromkeys(engines, 0)
    for query in queries:
        expected = None
        for name, retriever in engines.items():
            if name == "slowest shard":
                times[name].append(slowest_shard(retriever.snapshot, retriever.encode([query]), k))
                continue
            found, elapsed = answers(retriever, query, k)
            times[name].append(elapsed)
            expected = found if expected is None else expected
            wrong[name] += found != expected
    for name, each in times.items():
        p50, p99 = np.percentile(each, [50, 99])
        print(f"  k = {k}, {name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms, {wrong[name]} of {len(queries)} differ", flush=True)


def kill_replicas(snapshot, retriever, one, queries, seconds):
    """Kill one replica of a shard after another while queries run; prints what became of the answers."""
    import ray

    longest, wrong, failed, n, killed = 0.0, 0, 0, 0, 0
    end, next_kill = time.monotonic() + seconds, time.monotonic() + 1
    while time.monotonic() < end:
        if time.monotonic() > next_kill:
            replicas = snapshot.shards[killed % len(snapshot.shards)]._replicas
            os.kill(ray.get(replicas[killed // len(snapshot.shards) % len(replicas)].pid.remote()), signal.SIGKILL)
            killed, next_kill = killed + 1, time.monotonic() + 8
        query = queries[n % len(queries)]
        n += 1
        try:
            found, elapsed = answers(retriever, query, 10)
        except Exception as error:
            failed += 1
            print(f"  failed: {error}")
            continue
        longest, wrong = max(longest, elapsed), wrong + (found != answers(one, query, 10)[0])
    print(
        f"  {killed} replicas killed, {n} queries: {failed} failed, {wrong} wrong, longest {longest / 1000:.2f} s", flush=True
    )


def resident():
    """MiB of this process: its own memory, and pages of files."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return "own {} MiB, files {} MiB".format(*(int(lines[name].split()[0]) // 1024 for name in ("RssAnon", "RssFile")))


def main():
    """Build, then compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("passages")
    parser.add_argument("queries")
    parser.add_argument("work", type=Path)
    parser.add_argument("--docs", type=int, default=500_000)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--n-queries", type=int, default=200)
    parser.add_argument("--ray", action="store_true")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    corpus = options.work / "corpus.jsonl"
    if not corpus.exists():
        process = multiprocessing.get_context("spawn").Process(  # its memory must not count as that of the commands
            target=write_corpus, args=(options.passages, corpus, options.docs)
        )
        process.start()
        process.join()
    built(corpus, options.work / "one")
    built(corpus, options.work / "set", "--shards", str(options.shards), "--workers", str(options.workers))
    queries = [query.text for query in read_queries(options.queries)][: options.n_queries]
    one = Retriever.open(options.work / "one")
    print(f"one index open: {resident()}")
    local = Retriever(ShardedSnapshot.open(options.work / "set"))
    engines = {"one index": one, "set in this process": local, "slowest shard": local}
    if options.ray:
        shards = open_on_ray(options.work / "set", RayOptions(n_replicas=2))
        engines["set on Ray"] = Retriever(shards)
    for _, retriever in engines.items():
        for query in queries[:20]:
            answers(retriever, query, 10)
    print(f"all open: {resident()}")
    for k in (10, 100, 1000):
        compare(engines, queries, k)
    if options.ray:
        kill_replicas(shards, engines["set on Ray"], one, queries, 60)


if __name__ == "__main__":
    main()
