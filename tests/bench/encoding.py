"""Time the shipped encoders in float32, bfloat16 and int8: passages of 128 tokens a second, and one query at a time.

    python tests/bench/encoding.py [THREADS [N_PASSAGES]]      # 2 threads, 64 passages

Passages are SciFact abstracts, long enough to fill 128 tokens; queries are its claims. Every round runs each precision once;
the best of the rounds counts. Prints JSON rows: passages a second on the wall, milliseconds of a query at the median and the
99th percentile, and the ratio of each to bfloat16's.
"""

import os
import sys

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), sys.argv[1] if len(sys.argv) > 1 else "2")

import gzip
import json
import time
from pathlib import Path

import numpy as np
import torch

from lexmax import load_encoder

THREADS = int(os.environ["OMP_NUM_THREADS"])
N_PASSAGES = int(sys.argv[2]) if len(sys.argv) > 2 else 64
ROUNDS, N_QUERIES = 3, 40
DTYPES = ("float32", "bfloat16", "int8")
LENGTHS = {"lexmax-splade": "document_max_length", "lexmax-colbert": "document_length"}
SCIFACT = Path(__file__).resolve().parents[2] / "eval" / "collections" / "scifact"


def main() -> None:
    torch.set_num_threads(THREADS)
    with gzip.open(SCIFACT / "corpus.jsonl.gz", "rt", encoding="utf-8") as file:
        documents = [json.loads(line)["text"] for line in file]
    passages = [text for text in documents if len(text.split()) > 130][:N_PASSAGES]
    queries = [json.loads(line)["text"] for line in (SCIFACT / "queries.jsonl").read_text().splitlines()][:N_QUERIES]
    rows = []
    for model, length in LENGTHS.items():
        encoders = {dtype: load_encoder(model=model, dtype=dtype, **{length: 128}) for dtype in DTYPES}
        seconds = {dtype: [] for dtype in DTYPES}
        times = {dtype: [] for dtype in DTYPES}
        for number in range(ROUNDS + 1):
            for dtype, encoder in encoders.items():
                found = _timed(lambda encoder=encoder: encoder.encode_documents(passages))
                each = [_timed(lambda query=query, encoder=encoder: encoder.encode_queries([query])) for query in queries]
                if number:  # the first round loads and compiles
                    seconds[dtype].append(found)
                    times[dtype].append(each)
        for dtype in DTYPES:
            rate, best = len(passages) / min(seconds[dtype]), 1e3 * np.min(times[dtype], axis=0)
            rows.append({
                "engine": f"{model} {dtype}", "threads": THREADS, "passages_per_s": round(rate, 1),
                "query_p50_ms": round(float(np.median(best)), 2), "query_p99_ms": round(float(np.percentile(best, 99)), 2),
                "ratio_to_bfloat16": round(rate * min(seconds["bfloat16"]) / len(passages), 2),
            })  # fmt: skip
    print(json.dumps({"rows": rows}, indent=1))


def _timed(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
