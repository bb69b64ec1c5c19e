"""fast-plaid (a Rust PLAID, arXiv 2205.09707) in a Python environment of its own, since a wheel fits one version of torch.

    PYTHON token_worker.py TOKENS INDEX THREADS build
    PYTHON token_worker.py TOKENS INDEX THREADS serve

TOKENS is a folder as `token_sets` describes. ``build`` writes the index and prints what it cost. ``serve`` answers each line
of its input, ``{"queries": [numbers], "k", "threads", "n_ivf_probe", "n_full_scores"}``, by a line with the time inside the
package and the documents. This file runs without lexmax: it imports numpy, torch and fast_plaid alone.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import numpy as np

NBITS = 4
PACKAGES = ("fast-plaid", "torch")


def build(tokens: Path, index: Path, n_threads: int) -> dict[str, Any]:
    """Build with the package's defaults; returns seconds of CPU time and of the clock."""
    engine, torch = _open(index, n_threads)
    vectors = torch.from_numpy(np.load(tokens / "tokens.npy", allow_pickle=False))
    documents = list(torch.split(vectors, np.load(tokens / "widths.npy", allow_pickle=False).tolist()))
    _, times = timed(lambda: engine.create(documents, nbits=NBITS))
    return {"build_cpu_s": times["cpu_us"] / 1e6, "build_wall_s": times["wall_us"] / 1e6}


def serve(tokens: Path, index: Path, n_threads: int, requests: TextIO, say: Callable[[dict[str, Any]], None]) -> None:
    """Answer requests until there are no more; the first line says which versions answer."""
    engine, torch = _open(index, n_threads)
    queries = torch.split(
        torch.from_numpy(np.load(tokens / "query_tokens.npy", allow_pickle=False)),
        np.load(tokens / "query_widths.npy", allow_pickle=False).tolist(),
    )
    say({name: version(name) for name in PACKAGES})
    for line in requests:
        request = json.loads(line)
        torch.set_num_threads(request["threads"])
        asked = [queries[number] for number in request["queries"]]
        settings = {name: request[name] for name in ("n_ivf_probe", "n_full_scores")}
        found, times = timed(partial(engine.search, asked, top_k=request["k"], show_progress=False, **settings))
        say({**times, "documents": [[int(document) for document, _ in ranking] for ranking in found]})


def timed(call: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Result of a call and its microseconds: ``cpu_us`` of all threads of the process, ``wall_us``."""
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    result = call()
    return result, {"cpu_us": (time.process_time_ns() - cpu) / 1000, "wall_us": (time.perf_counter_ns() - wall) / 1000}


def _open(index: Path, n_threads: int) -> tuple[Any, Any]:
    torch = import_module("torch")
    torch.set_num_threads(n_threads)
    return import_module("fast_plaid.search").FastPlaid(index=str(index), device="cpu"), torch


def _main() -> None:
    tokens, index, n_threads, task = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not stand between replies

    def say(reply: dict[str, Any]) -> None:
        replies.write(json.dumps(reply) + "\n")
        replies.flush()

    if task == "build":
        say(build(tokens, index, n_threads))
    else:
        serve(tokens, index, n_threads, sys.stdin, say)


if __name__ == "__main__":
    _main()
