"""How well the candidates of a reranking are known before the first stage has ended (ESPN, arXiv 2312.05417).

    python tests/bench/early_candidates.py COLLECTION INDEX [--lists fdel] [--codes fde] [--sparse splade] [--tokens colbert]

COLLECTION is a BEIR folder, INDEX an index of it. Prints, for each number of candidates K and share of the first stage, the
hit rate (share of the documents read early that are candidates in the end), the waste (1 - hit), and how much of K that is. The
best K / 2 are read, 256 at most:

- lists: a dense or fde field with structure=ivf; the best after a share of its lists;
- codes: the best by codes, before kept vectors score them again;
- tokens: the best of a token field by its 2-bit codes, before tokens at 8 bits score them again;
- sparse: the best after a share of the documents, in the order of the index, that share of K; and the best by the heaviest
  terms of the query with a share of its weight.
"""

import argparse

import numpy as np

from lexmax import Retriever
from lexmax.eval.datasets import load_dataset
from lexmax.index.representations.sparse import SparseVectors
from lexmax.retrieval.searchers import dense_scan
from lexmax.retrieval.searchers.centroid import CentroidOptions
from lexmax.retrieval.searchers.early_reads import MOST_GUESSED

DEPTHS = (128, 1000)
SHARES = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)


def hits(guesses, found):
    """Share of some guesses that are found in the end, and share of those found that were guessed."""
    wanted = set(found.tolist())
    right = sum(number in wanted for number in guesses.tolist())
    return right / max(1, len(guesses)), right / max(1, len(found))


def guessed(k):
    return min(k // 2, MOST_GUESSED)


def announced(searcher, queries, k):
    """What a search by codes announces for each query, and what it finds."""
    told, options = {}, searcher.options_type(n_candidates=0)
    found = searcher.search(queries, k, options=options, announce=lambda number, doc_nums: told.__setitem__(number, doc_nums))
    return [hits(told[i][: guessed(k)], found.query(i)[0]) for i in range(len(found)) if i in told]


def cheaper(searcher, queries, k, options):
    """The best of a search with cheaper options, and of one with its own."""
    guesses, found = searcher.search(queries, k, options=options), searcher.search(queries, k)
    return [hits(guesses.query(i)[0][: guessed(k)], found.query(i)[0]) for i in range(len(found))]


def seen_first(searcher, queries, k, share):
    """The best of the first documents of the index, as many as K spread over all would be."""
    n_docs = searcher.field.n_total
    everything = searcher.search(queries, n_docs)
    rows = []
    for i in range(len(everything)):
        doc_nums, _ = everything.query(i)
        early = doc_nums[doc_nums < share * n_docs][: min(round(share * k), guessed(k))]
        rows.append(hits(early, doc_nums[:k]))
    return rows


def heaviest_terms(searcher, queries, k, share):
    """The best by the heaviest terms of each query, which have a share of its weight."""
    terms, weights, indptr = [], [], [0]
    for i in range(len(queries)):
        row = slice(int(queries.indptr[i]), int(queries.indptr[i + 1]))
        order = np.argsort(-queries.weights[row])
        n = int(np.searchsorted(np.cumsum(queries.weights[row][order]), share * queries.weights[row].sum())) + 1
        kept = np.sort(order[:n])
        terms.append(queries.terms[row][kept])
        weights.append(queries.weights[row][kept])
        indptr.append(indptr[-1] + len(kept))
    cut = SparseVectors(np.array(indptr, np.int64), np.concatenate(terms), np.concatenate(weights), queries.vocabulary)
    best, found = searcher.search(cut, guessed(k)), searcher.search(queries, k)
    return [hits(best.query(i)[0], found.query(i)[0]) for i in range(len(found))]


def told(name, k, share, rows):
    precision, coverage = np.mean(rows, axis=0) if rows else (np.nan, np.nan)
    print(f"| {name} | {k} | {share} | {precision:.3f} | {1 - precision:.3f} | {coverage:.3f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection")
    parser.add_argument("index")
    for name, default in (("lists", "fdel"), ("codes", "fde"), ("sparse", "splade"), ("tokens", "colbert")):
        parser.add_argument(f"--{name}", default=default, metavar="FIELD")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--split", default="test")
    given = parser.parse_args()
    texts = list(load_dataset(given.collection, given.split).queries.values())[: given.queries]
    print("| first stage | K | after | hit | waste | of K |\n|---|---|---|---|---|---|")
    with Retriever.open(given.index, search=f"{given.lists} + {given.codes} + {given.sparse} + {given.tokens}") as retriever:
        encoded = retriever.encode(texts)
        searchers = retriever._pipeline(retriever._current(), None).searchers
    queries = {name: searchers[name].vectors(vectors) for name, vectors in encoded.items()}
    for k in DEPTHS:
        by_codes, by_two_bits = searchers[given.codes].options_type(n_candidates=0), CentroidOptions(n_exact=0)
        for share in SHARES[:4]:
            dense_scan.ANNOUNCED_LISTS = share
            told(f"{given.lists}, lists", k, share, announced(searchers[given.lists], queries[given.lists], k))
        told(f"{given.codes}, codes", k, 1, cheaper(searchers[given.codes], queries[given.codes], k, by_codes))
        told(f"{given.tokens}, 2 bits", k, 1, cheaper(searchers[given.tokens], queries[given.tokens], k, by_two_bits))
        for share in SHARES:
            told(f"{given.sparse}, documents", k, share, seen_first(searchers[given.sparse], queries[given.sparse], k, share))
        for share in SHARES:
            told(f"{given.sparse}, terms", k, share, heaviest_terms(searchers[given.sparse], queries[given.sparse], k, share))


if __name__ == "__main__":
    main()
