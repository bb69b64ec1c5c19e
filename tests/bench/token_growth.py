"""Recall and time of token search against the size of the collection, at several depths.

    python tests/bench/token_growth.py build WORK 30000 100000 300000
    python tests/bench/token_growth.py time WORK

``build`` generates collections of some 45 tokens a document, kept in 2 bits. ``time`` prints a JSON line for each size, k and
depth: recall of the k best by MaxSim over the same codes, and the median CPU time of a query, one thread.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from lexmax.eval.bench.fields import only_field, without_text
from lexmax.eval.bench.token_generator import TokenRecipe, token_chunks, token_queries
from lexmax.index.collection import Collection, NewField
from lexmax.index.manifest import EncoderRecord
from lexmax.index.multivector.config import MultiVectorConfig
from lexmax.index.multivector.field import TokenField
from lexmax.index.representations import MultiVectors
from lexmax.retrieval.searchers.centroid import CentroidOptions, CentroidSearcher
from lexmax.retrieval.searchers.maxsim import MaxSimSearcher

ENCODER = EncoderRecord(kind="colbert", fingerprint="bench:0000000000000000", settings={})
TOKENS, N_QUERIES, KS = 45.0, 40, (10, 100)


def recipe_of(n_docs: int) -> TokenRecipe:
    """What is generated."""
    return TokenRecipe(n_docs=n_docs, tokens=TOKENS, n_queries=N_QUERIES)


def build(work: Path, sizes: list[int]) -> None:
    """Generate and build, one size after the other."""
    config = MultiVectorConfig(dim=recipe_of(1).dim, nbits=2, exact=False)
    for n_docs in sizes:
        cpu_s, first = 0.0, 0
        field = NewField(encoder=ENCODER, representation="tokens", options=asdict(config))
        with Collection.create(work / str(n_docs), {"tokens": field}) as collection:
            for chunk in token_chunks(recipe_of(n_docs)):
                begun = time.process_time()
                collection.add(without_text(first, first + len(chunk)), {"tokens": chunk})
                first, cpu_s = first + len(chunk), cpu_s + time.process_time() - begun
            begun = time.process_time()
            collection.commit()
            cpu_s += time.process_time() - begun
        print(json.dumps({"documents": n_docs, "build_cpu_s": round(cpu_s, 1)}), flush=True)


def timed(work: Path, factors: list[float]) -> None:
    """Search every collection with the default depths, and with so many times as many."""
    for folder in sorted(work.iterdir(), key=lambda each: int(each.name)):
        field = only_field(folder, TokenField, "token vectors")
        recipe, searcher, oracle = recipe_of(field.n_docs), CentroidSearcher(field), MaxSimSearcher(field)
        queries = token_queries(recipe, next(token_chunks(recipe)))
        asked = [MultiVectors.of([queries.row(i)], recipe.dim) for i in range(len(queries))]
        answers = [oracle.search(query, max(KS)).doc_nums for query in asked]
        for k in KS:
            best = [set(answer[:k].tolist()) for answer in answers]
            _, n_candidates, n_exact = CentroidOptions().depths(k)
            for factor in (None, *factors):
                options = CentroidOptions() if factor is None else CentroidOptions(
                    n_gathered=int(2 * n_candidates * factor), n_candidates=int(n_candidates * factor), n_exact=n_exact
                )  # fmt: skip
                recalls, cpu_us = [], []
                searcher.search(asked[0], k, None, options)
                for query, wanted in zip(asked, best, strict=True):
                    begun = time.thread_time_ns()
                    found = searcher.search(query, k, None, options)
                    cpu_us.append((time.thread_time_ns() - begun) / 1000)
                    recalls.append(len(wanted & set(found.doc_nums.tolist())) / len(wanted))
                measured = {"recall": round(float(np.mean(recalls)), 3), "p50_ms": round(float(np.median(cpu_us)) / 1000, 2)}
                row = {"documents": field.n_docs, "k": k, "depth": factor or "default", **measured}
                print(json.dumps(row), flush=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("build", "time"))
    parser.add_argument("work", type=Path)
    parser.add_argument("sizes", type=int, nargs="*")
    parser.add_argument("--factors", type=float, nargs="+", default=[0.5, 1, 2, 4])
    args = parser.parse_args()
    if args.step == "build":
        build(args.work, args.sizes)
    else:
        timed(args.work, args.factors)


if __name__ == "__main__":
    main()
