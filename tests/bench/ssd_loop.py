"""Reranking from memory and from disk in one process, asked in a loop: the processor's caches are warm.

    python tests/bench/ssd_loop.py WORK [--candidates 1000] [--places memory io_uring libaio]

WORK is that of `lexmax bench ssd --work`. Prints wall and CPU milliseconds of the median query, the best of some passes each.
Nothing is dropped from the page cache: use it for places that pass it by.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from lexmax import TokenStorage
from lexmax.eval.bench.ssd import _asked
from lexmax.index.multivector.field import TokenField
from lexmax.index.representations.multivectors import MultiVectors
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.searchers.centroid import CentroidSearcher
from lexmax.retrieval.searchers.common import single


def searcher(path, place):
    return CentroidSearcher(Snapshot.open(path, storage=TokenStorage(place=place)).only_field(TokenField, "token vectors"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--places", nargs="+", default=["memory", "io_uring", "libaio"])
    for name, default in (("candidates", 1000), ("queries", 20), ("passes", 6)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    vectors = np.load(given.work / "queries.npy", allow_pickle=False)[: given.queries]
    queries = MultiVectors.of(list(vectors), vectors.shape[2])
    asked = _asked(given.work / "index", queries, given.candidates)
    searchers = {place: searcher(given.work / "index", place) for place in given.places}
    times = {place: np.zeros((2, given.passes, len(queries))) for place in searchers}
    for i in range(given.passes):
        for number in range(len(queries)):
            for place, each in searchers.items():
                wall, cpu = time.perf_counter(), time.process_time()
                each.score(single(queries, number), [asked.candidates[number]])
                times[place][:, i, number] = time.perf_counter() - wall, time.process_time() - cpu
    best = {place: 1000 * found.min(axis=1) for place, found in times.items()}
    print("| place | p50 ms | p90 | p99 | CPU ms | wall and CPU by the first place's |\n|---|---|---|---|---|---|")
    for place, (wall, cpu) in best.items():
        ratios = [np.median(mine) / np.median(first) for mine, first in zip((wall, cpu), best[given.places[0]], strict=True)]
        numbers = [*np.percentile(wall, (50, 90, 99)), np.median(cpu)]
        print(f"| {place} | {' | '.join(f'{each:.2f}' for each in numbers)} | {ratios[0]:.2f}, {ratios[1]:.2f} |")


if __name__ == "__main__":
    main()
