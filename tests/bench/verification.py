"""What verification costs: queries on a warm index beside another checkout of lexmax, and the first touch of the index.

    python tests/bench/verification.py [--beside FOLDER] [--docs 40000] [--rounds 30]

FOLDER is the root of another checkout, of an earlier commit say. Each has a process and an index of the same vectors, and
answers the same queries in turns, in one thread. Prints JSON rows: median over the rounds of the CPU time of a query in
microseconds, and the median of the rounds' ratios; milliseconds per MiB of a first touch.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
K = 10


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--beside", type=Path)
    parser.add_argument("--docs", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.docs)
        return
    with tempfile.TemporaryDirectory() as folder:
        checkouts = {"here": Path(__file__).parents[2], **({"beside": options.beside.resolve()} if options.beside else {})}
        workers = {name: start(name, root, Path(folder), options.docs) for name, root in checkouts.items()}
        first = {name: json.loads(ask(worker, "")) for name, worker in workers.items()}
        print(json.dumps({"first touch": first}))
        rounds: list[dict[str, dict[str, float]]] = []
        for number in range(options.rounds):
            order = list(workers) if number % 2 else list(workers)[::-1]
            rounds.append({name: json.loads(ask(workers[name], "go\n")) for name in order})
        for what in rounds[0]["here"]:
            row = {name: round(statistics.median(each[name][what] for each in rounds), 1) for name in workers}
            ratios = [each["here"][what] / each["beside"][what] for each in rounds] if options.beside else []
            print(json.dumps({"queries": what, **row, **({"ratio": round(statistics.median(ratios), 4)} if ratios else {})}))
        for worker in workers.values():
            worker.kill()


def start(name: str, root: Path, folder: Path, n_docs: int) -> subprocess.Popen[str]:
    """Start the process of a checkout, which it sees as the package ``lexmax``."""
    packages = folder / f"{name}-packages"
    packages.mkdir()
    (packages / "lexmax").symlink_to(root)
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    command = [sys.executable, __file__, "--worker", str(folder / name), "--docs", str(n_docs)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def ask(worker: "subprocess.Popen[str]", line: str) -> str:
    assert worker.stdin
    assert worker.stdout
    worker.stdin.write(line)
    worker.stdin.flush()
    return worker.stdout.readline()


def work(path: Path, n_docs: int) -> None:
    """Build the index, touch it, and answer the queries once for each line that comes."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import numpy as np
    from all_kinds import build, vectors_of

    from lexmax.index.snapshot import Snapshot
    from lexmax.retrieval.searchers.registry import field_searcher

    build(path, n=n_docs, width=80, n_tokens=12, text_bytes=300, id_bytes=10)
    vectors = vectors_of(np.random.default_rng(9), 60, 16, 8)
    started = time.process_time()
    snapshot = Snapshot.open(path, verify=True)
    touched = time.process_time() - started
    n_mib = sum(each.stat().st_size for each in path.rglob("*.lex")) / 2**20
    searchers = {name: field_searcher(field) for name, field in snapshot.fields.items()}
    queries = {name: searcher.vectors(vectors[name]) for name, searcher in searchers.items()}
    doc_nums = [np.random.default_rng(i).choice(n_docs, 100, replace=False).astype(np.int32) for i in range(60)]
    for searcher in searchers.values():
        searcher.warm()
    started = time.process_time()
    Snapshot.open(path, verify=True)
    again = time.process_time() - started
    print(json.dumps({"MiB": round(n_mib), "ms/MiB": round(1e3 * min(touched, again) / n_mib, 3)}), flush=True)
    for _ in sys.stdin:
        found = {}
        for name, searcher in searchers.items():
            for what, call in (
                ("search", lambda searcher=searcher, name=name: searcher.search(queries[name], K)),
                ("score", lambda searcher=searcher, name=name: searcher.score(queries[name], doc_nums)),
            ):
                started = time.process_time()
                call()
                found[f"{what} {name}"] = 1e6 * (time.process_time() - started) / len(queries[name])
        started = time.process_time()
        for numbers in doc_nums:
            snapshot.get_many(numbers[:K].tolist())
        found[f"{K} documents"] = 1e6 * (time.process_time() - started) / len(doc_nums)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
