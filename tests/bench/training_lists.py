"""Makes training lists by the recipe of the shipped heads, and prints what they are made of.

    python tests/bench/training_lists.py --questions real-questions.jsonl.gz --passages passages-open.jsonl.gz \
        --pairs medquad-train=5000 debian=2000 tldr=1500 wikivital=1500 foldoc=500 --folder TRAIN --out lists.jsonl

Questions are drawn at random; of each one's 50 best passages by BM25 eight are kept, the first four or five and others at
random, with BM25's scores. `lexmax score` adds the other teachers. The lists behind the shipped heads were drawn by a script
that was not kept, so these are lists of the same kind, not the same lists: retrieval/models/README.md.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lexmax import Retriever, build_index
from lexmax.retrieval.results import Result
from lexmax.retrieval.training.data import writing_records

N_QUESTIONS, DEPTH, N_KEPT, QUERIES_AT_ONCE = 10_000, 50, 8, 256
LEFT_OUT = ("msmarco-dev",)  # non-commercial terms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=Path, required=True, help="lines of query and source")
    parser.add_argument("--passages", type=Path, required=True, help="lines of _id, title, text")
    parser.add_argument("--folder", type=Path, required=True, help="where NAME.jsonl.gz of --pairs are")
    parser.add_argument("--pairs", nargs="+", default=[], metavar="NAME=COUNT", help="queries drawn from pairs")
    parser.add_argument("--share", type=float, default=1.0, help="of all counts, for a try")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    sources = {str(options.questions): [r["query"] for r in lines(options.questions) if r["source"] not in LEFT_OUT]}
    counts = {str(options.questions): N_QUESTIONS}
    for name, _, count in (pair.partition("=") for pair in options.pairs):
        path = options.folder / f"{name}.jsonl.gz"
        sources[str(path)], counts[str(path)] = [record["query"] for record in lines(path)], int(count)
    queries: list[str] = []
    for name, texts in sources.items():
        distinct = list(dict.fromkeys(texts))
        picks = rng.choice(len(distinct), min(len(distinct), round(options.share * counts[name])), replace=False)
        queries += [distinct[pick] for pick in picks]
        tell(f"{name}: {len(picks):,} of {len(distinct):,}, sha256 {digest(Path(name))}")
    tell(f"{options.passages}: sha256 {digest(options.passages)}")
    with tempfile.TemporaryDirectory() as folder:
        build_index([str(options.passages)], Path(folder) / "idx", encoders=["bm25"])
        with Retriever.open(Path(folder) / "idx") as retriever, writing_records(options.out) as write:
            n_written = 0
            for first in range(0, len(queries), QUERIES_AT_ONCE):
                batch = queries[first : first + QUERIES_AT_ONCE]
                for query, results in zip(batch, retriever.search_batch(batch, DEPTH), strict=True):
                    if len(results) >= N_KEPT:
                        write(list_of(query, results, rng))
                        n_written += 1
    tell(f"{options.out}: {n_written:,} lists, seed {options.seed}, sha256 {digest(options.out)}")


def list_of(query: str, results: Sequence[Result], rng: np.random.Generator) -> dict[str, Any]:
    """A list of eight of the results: the first four or five, and others at random, in their order."""
    n_first = int(rng.integers(4, 6))
    others = n_first + np.sort(rng.choice(len(results) - n_first, N_KEPT - n_first, replace=False))
    kept = [results[i] for i in (*range(n_first), *others)]
    passages = [f"{result.title} {result.text}".strip() for result in kept]
    return {"query": query, "passages": passages, "scores": {"bm25": [result.score for result in kept]}}


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """Records of a gzipped file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def digest(path: Path) -> str:
    """Hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
