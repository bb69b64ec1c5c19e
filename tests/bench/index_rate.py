"""Indexing rate, peak memory and bytes a posting of `lexmax build`, and the time to open the index.

    python tests/bench/index_rate.py CORPUS.jsonl [--encoder bm25 ...]
    python tests/bench/index_rate.py CORPUS.jsonl --token-lists [--peers]

Everything else after the corpus goes to `lexmax build`. ``--token-lists`` starts from a list of words a document, in memory,
and ends with the BM25 index committed; one thread, documents without texts. ``--peers`` indexes the same lists with bm25s and
bm25q, in memory, in turns, three times each. Prints JSON objects.
"""

from __future__ import annotations

import gc
import importlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path


def build(corpus: str, options: list[str], index: Path) -> dict[str, object]:
    """Run `lexmax build` on a corpus and open what it made."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "lexmax", "build", corpus, "--out", str(index), *(options or ["--encoder", "bm25"])]
    subprocess.run(command, check=True)
    elapsed = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    info = json.loads(subprocess.check_output([sys.executable, "-m", "lexmax", "info", str(index), "--json"]))
    from lexmax import Retriever

    start = time.perf_counter()
    Retriever.open(index)
    opened = time.perf_counter() - start
    return {"documents": info["n_docs"], "seconds": round(elapsed, 1), "documents_per_s": round(info["n_docs"] / elapsed),
            "cpu_s": round(used.ru_utime + used.ru_stime, 1), "peak_mb": round(used.ru_maxrss / 1024),
            "bytes": info["n_bytes"], "open_s": round(opened, 3),
            "postings": {name: field.get("n_postings") for name, field in info["fields"].items()}}  # fmt: skip


def index_token_lists(lists: list[list[str]], folder: Path) -> None:
    """Count, add and commit lists of words."""
    from lexmax import import_tokens

    with tempfile.TemporaryDirectory(dir=folder) as place:
        import_tokens(lists, Path(place) / "idx", encoder="bm25,tokenizer=whitespace,stemmer=none,stop_words=none")


def index_with_peer(package: str, lists: list[list[str]], folder: Path) -> None:
    """Index the same lists in memory."""
    engine = importlib.import_module(package).BM25(method="lucene", k1=1.2, b=0.75, backend="numba")
    engine.index(lists, show_progress=False)


def time_token_lists(corpus: str, folder: Path, peers: bool) -> None:
    """Print the rates of engines; 1,000 lists before compile what must be compiled."""
    from lexmax import read_corpus
    from lexmax.retrieval.encoders.words import find_words

    lists = [find_words(document.content) for document in read_corpus([corpus])]
    gc.freeze()  # what the collector takes to look at the lists is not the index's
    engines = {"lexmax": index_token_lists}
    if peers:
        engines |= {package: partial(index_with_peer, package) for package in ("bm25s", "bm25q")}
    for index in engines.values():
        index(lists[:1000], folder)
    for name, index in list(engines.items()) * 3:
        begun, begun_cpu = time.perf_counter(), time.process_time()
        index(lists, folder)
        cpu_s, elapsed = time.process_time() - begun_cpu, time.perf_counter() - begun
        print(json.dumps({
            "engine": name, "token_lists": len(lists), "words": sum(map(len, lists)), "seconds": round(elapsed, 2),
            "cpu_s": round(cpu_s, 2), "documents_per_s": round(len(lists) / elapsed),
            "documents_per_cpu_s": round(len(lists) / cpu_s),
        }), flush=True)  # fmt: skip


def main() -> None:
    """Read the command line."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "idx"
        if sys.argv[2:3] == ["--token-lists"]:
            time_token_lists(sys.argv[1], Path(folder), peers=sys.argv[3:] == ["--peers"])
        else:
            print(json.dumps(build(sys.argv[1], sys.argv[2:], index)))


if __name__ == "__main__":
    main()
