"""Indexing rate, peak memory and bytes a posting of `lexmax build`, and the time to open the index.

    python tests/bench/index_rate.py CORPUS.jsonl [--encoder bm25 ...]
    python tests/bench/index_rate.py CORPUS.jsonl --token-lists

Everything else after the corpus goes to `lexmax build`. ``--token-lists`` starts from a list of words a document, in memory,
and ends with the BM25 index committed; one thread, documents without texts. Prints one JSON object.
"""

from __future__ import annotations

import gc
import json
import resource
import subprocess
import sys
import tempfile
import time
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


def index_token_lists(corpus: str, folder: Path) -> dict[str, object]:
    """Count, add and commit lists of words; a small index before compiles what must be compiled."""
    from lexmax import import_tokens, read_corpus
    from lexmax.retrieval.encoders.words import find_words

    lists = [find_words(document.content) for document in read_corpus([corpus])]
    gc.freeze()  # what the collector takes to look at the lists is not the index's
    for some, name in ((lists[:1000], "small"), (lists, "whole")):
        begun, begun_cpu = time.perf_counter(), time.process_time()
        import_tokens(some, folder / name, encoder="bm25,tokenizer=whitespace,stemmer=none,stop_words=none")
    cpu_s, elapsed = time.process_time() - begun_cpu, time.perf_counter() - begun
    return {"token_lists": len(lists), "words": sum(map(len, lists)), "seconds": round(elapsed, 2), "cpu_s": round(cpu_s, 2),
            "documents_per_s": round(len(lists) / elapsed), "documents_per_cpu_s": round(len(lists) / cpu_s)}  # fmt: skip


def main() -> None:
    """Read the command line."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "idx"
        if sys.argv[2:] == ["--token-lists"]:
            print(json.dumps(index_token_lists(sys.argv[1], index)))
        else:
            print(json.dumps(build(sys.argv[1], sys.argv[2:], index)))


if __name__ == "__main__":
    main()
