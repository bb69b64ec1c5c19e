"""Time, memory and quality of document reordering on clustered random rows.

    python tests/bench/reorder.py [--documents 100000] [--postings 100] [--terms 30522] [--topics 1000] [--threads 2]

Every document draws half of its terms from one topic and half from the whole vocabulary, both Zipfian, and the documents
come in random order. Prints one JSON object: seconds of the clock and of all CPUs, memory over that of the rows, and for the
order as it comes, the order of the topics and the one computed, bits a posting (mean log2 gap) and (term, block) pairs a
posting.
"""

from __future__ import annotations

import argparse
import json
import resource
import time

import numpy as np

from lexmax.index.sparse.reorder import bisection_order, order_cost

TOPIC_TERMS = 400
CHUNK = 1000


def clustered_rows(n_docs, width, n_terms, n_topics, rng):
    """(indptr, ranks, topic of each document); rows are about ``width`` wide after equal terms are joined."""
    topics = rng.integers(n_topics, size=n_docs)
    topic_terms = rng.integers(n_terms, size=(n_topics, TOPIC_TERMS))
    drawn = width * 5 // 8  # of either kind; more than half, for the terms drawn twice
    ranks, indptr = np.empty(n_docs * 2 * drawn, np.uint32), np.zeros(n_docs + 1, np.int64)  # pages unused are not resident
    for start in range(0, n_docs, CHUNK):
        topic = topics[start : start + CHUNK, None]
        own = topic_terms[topic, (TOPIC_TERMS ** rng.random((len(topic), drawn))).astype(np.int64) - 1]
        common = (n_terms ** rng.random((len(topic), drawn))).astype(np.int64) - 1
        terms = np.sort(np.concatenate([own, common], axis=1), axis=1)
        first = np.diff(terms, axis=1, prepend=-1) > 0
        ends = indptr[start] + np.cumsum(first.sum(axis=1))
        indptr[start + 1 : start + 1 + len(topic)] = ends
        ranks[indptr[start] : ends[-1]] = terms[first]
    return indptr, ranks[: indptr[-1]], topics


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("documents", 100_000), ("postings", 100), ("terms", 30_522), ("topics", 1000), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    bisection_order(*clustered_rows(10_000, 5, 100, 10, rng)[:2], 100, n_threads=arguments.threads)  # compiles
    indptr, ranks, topics = clustered_rows(arguments.documents, arguments.postings, arguments.terms, arguments.topics, rng)
    before, clock, cpu = peak_bytes(), time.perf_counter(), time.process_time()
    order = bisection_order(indptr, ranks, arguments.terms, n_threads=arguments.threads)
    seconds, cpu_seconds = time.perf_counter() - clock, time.process_time() - cpu
    result = {
        "documents": len(topics),
        "postings_per_document": round(len(ranks) / len(topics), 1),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "memory_over_rows": round((peak_bytes() - before) / ranks.nbytes, 2),
    }
    orders = {"random": np.arange(len(topics)), "topics": np.argsort(topics, kind="stable"), "bisection": order}
    for name, candidate in orders.items():
        bits, pairs = order_cost(indptr, ranks, arguments.terms, candidate.astype(np.int32))
        result[name] = {"bits_per_posting": round(bits / len(ranks), 3), "pairs_per_posting": round(pairs / len(ranks), 3)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
