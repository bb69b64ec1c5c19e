"""Indexing rate, peak memory and bytes a posting of `lexmax build`, and the time to open the index.

    python tests/bench/index_rate.py CORPUS.jsonl [--encoder bm25 ...]

Everything after the corpus goes to `lexmax build`. Prints one JSON object.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        index = str(Path(folder) / "idx")
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "lexmax", "build", sys.argv[1], "--out", index, *(sys.argv[2:] or ["--encoder", "bm25"])],
            check=True,
        )
        elapsed = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        info = json.loads(subprocess.check_output([sys.executable, "-m", "lexmax", "info", index, "--json"]))
        from lexmax import Retriever

        start = time.perf_counter()
        Retriever.open(index)
        opened = time.perf_counter() - start
    row = {"documents": info["n_docs"], "seconds": round(elapsed, 1), "documents_per_s": round(info["n_docs"] / elapsed),
           "peak_mb": round(peak), "postings": info["n_postings"], "bytes": info["n_bytes"], "open_s": round(opened, 3),
           "inverted_bytes_per_posting": info["inverted_bytes_per_posting"]}  # fmt: skip
    print(json.dumps(row))


if __name__ == "__main__":
    main()
