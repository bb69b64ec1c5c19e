"""Searches whose first stage is in memory and whose token vectors are on disk, from the first stage to the answer.

    python tests/bench/ssd_pipeline.py INDEX QUERIES.npy [--search "fde:1000 > tokens"] [--places io_uring libaio]

INDEX has a token field and one of encodings (`lexmax bench ssd --work W`, then `lexmax field add W/index
fde=muvera,of=tokens,quantise=opq,pq_bytes=64,structure=ivf`), QUERIES.npy their token vectors (n, tokens, dim): W/queries.npy.
Places are interleaved query by query, with and without reads during the first stage. Prints milliseconds, ratios to memory,
hits and waste of early reads; recall@10 against exact MaxSim; and bytes a document that a process holds after all queries.
"""

import argparse
import time
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from lexmax import TokenStorage
from lexmax.eval.bench.ssd_worker import _resident_mb
from lexmax.index.representations.multivectors import MultiVectors
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.hits import ReadCounts
from lexmax.retrieval.pipelines.expression import parse
from lexmax.retrieval.pipelines.pipeline import Pipeline
from lexmax.retrieval.searchers.early_reads import EarlyReads
from lexmax.retrieval.searchers.maxsim import MaxSimSearcher
from lexmax.retrieval.searchers.registry import field_searcher

K = 10
GUESS = EarlyReads.guess


def opened(given, place):
    snapshot = Snapshot.open(given.index, storage=TokenStorage(place=place))
    search = parse(given.search)
    pipeline = Pipeline(search, {name: field_searcher(snapshot.field(name)) for name in search.fields})
    queries = MultiVectors.of(list(np.load(given.queries, allow_pickle=False)[: given.n]), given.dim)
    return pipeline, [{name: each.vectors(queries.select(np.array([i]))) for name, each in pipeline.searchers.items()}
                      for i in range(len(queries))]  # fmt: skip


def answered(given, pipeline, query):
    options = {given.first: {"n_candidates": 0, **({"n_probe": given.n_probe} if given.n_probe else {})}}
    return pipeline.run(query, K, options=options)


def resident(given, place):
    """Bytes a document that a process holds more after all queries than before it opened the index."""
    pipeline, queries = opened(given, "mmap")
    answered(given, pipeline, queries[0])  # code and kernels are no memory of the index
    n_docs = pipeline.searchers[given.first].field.n_docs
    del pipeline
    before = _resident_mb()
    pipeline, queries = opened(given, place)
    for query in queries:
        answered(given, pipeline, query)
    return 1e6 * (_resident_mb() - before) / n_docs


def exact(given, tokens):
    """doc_nums of the best by MaxSim over all documents, for the first queries."""
    field = Snapshot.open(given.index).field(tokens)
    queries = MultiVectors.of(list(np.load(given.queries, allow_pickle=False)[: given.exact]), given.dim)
    found = MaxSimSearcher(field).search(queries, K)
    return [found.query(i)[0].tolist() for i in range(len(found))]


def timed(given):
    ways = [("memory", False), *((place, early) for place in given.places for early in (False, True))]
    runs = {place: opened(given, place) for place in ("memory", *given.places)}
    shape = (given.passes, len(runs["memory"][1]))
    first, whole = ({way: np.zeros(shape) for way in ways} for _ in range(2))
    counts = {way: ReadCounts() for way in ways}
    answers = {}
    for number in range(shape[1]):
        for i in range(shape[0]):
            for way in ways:
                EarlyReads.guess = GUESS if way[1] else lambda *ignored: None
                pipeline, queries = runs[way[0]]
                start = time.perf_counter()
                answer = answered(given, pipeline, queries[number])
                whole[way][i, number] = time.perf_counter() - start
                first[way][i, number] = next(iter(answer.timings_ms.values()))
                for each in answer.reads.values():
                    counts[way].add(replace(each))
                found = answer.hits.query(0)[0].tolist(), answer.hits.query(0)[1].tobytes()
                assert answers.setdefault(number, found) == found, way
    return ways, first, whole, counts, answers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("queries", type=Path)
    parser.add_argument("--search", default="fde:1000 > tokens")
    parser.add_argument("--places", nargs="+", default=["io_uring", "libaio"])
    parser.add_argument("--n-probe", type=int, help="lists of the first stage (default: the field's)")
    for name, default in (("n", 40), ("passes", 3), ("dim", 128), ("exact", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    search = parse(given.search)
    given.first = search.fields[0]
    ways, first, whole, counts, answers = timed(given)
    print(
        "| place | early | first ms | p50 ms | p90 | p99 | x memory | hit | waste | reads a candidate |\n" + "|---" * 10 + "|"
    )
    for way in ways:
        best, count = 1000 * whole[way].min(axis=0), counts[way]
        ratio = np.median(whole[way].min(axis=0) / whole[ways[0]].min(axis=0))
        p50, p90, p99 = np.percentile(best, (50, 90, 99))
        hit = count.n_hits / count.n_guessed if count.n_guessed else np.nan
        early = f"{count.n_guessed / whole[way].size:.0f}" if way[1] else "no"
        numbers = [np.median(first[way].min(axis=0)), p50, p90, p99, ratio, hit, 1 - hit]
        reads = count.n_reads / max(1, count.n_records)
        print(f"| {way[0]} | {early} | {' | '.join(f'{each:.2f}' for each in [*numbers, reads])} |")
    if given.exact:
        shares = [len(set(best) & set(answers[number][0])) / K for number, best in enumerate(exact(given, search.fields[-1]))]
        print(f"recall@{K} against exact MaxSim, {given.exact} queries: {np.mean(shares):.3f}")
    with get_context("spawn").Pool(1) as pool:
        for place in given.places:
            print(f"{place}: {pool.apply(resident, (given, place)):.0f} bytes a document are resident")


if __name__ == "__main__":
    main()
