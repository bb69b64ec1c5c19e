"""What a query bank gains: QB-Norm (CVPR 2022) on text, where the paper has text and images, video or sound.

    python tests/bench/query_bank.py COLLECTION INDEX [--fields dense fde] [--bank-split train | --bank-queries FILE]

COLLECTION is a BEIR folder, INDEX an index of all of it, whose fields get the queries of another split, or of a file, as their
banks. Prints, for the queries of --split without and with the dynamic inverted softmax: the share of queries with a relevant
document among the first 1, 5 and 10, nDCG@10 with the p of a randomisation test, how many queries the bank was active for, and
the skewness of the distribution of how often a document is among the ten best: hubs make it large.
"""

import argparse

import numpy as np

from lexmax import Retriever
from lexmax.eval.datasets import load_dataset
from lexmax.eval.evaluate import without_query
from lexmax.eval.measures import evaluate_queries, paired_randomisation
from lexmax.retrieval.corpora.queries import read_queries
from lexmax.retrieval.fields import set_query_bank

CUTS = (1, 5, 10)


def skewness(rankings, n_docs):
    """Third standardised moment of the number of rankings that a document is in."""
    counts = {}
    for ranking in rankings:
        for doc_id, _ in ranking:
            counts[doc_id] = counts.get(doc_id, 0) + 1
    numbers = np.zeros(n_docs)
    numbers[: len(counts)] = list(counts.values())
    centred = numbers - numbers.mean()
    return float((centred**3).mean() / (centred**2).mean() ** 1.5)


def measured(retriever, dataset, queries, options, base):
    """Search, and print a line; returns nDCG@10 by query and the rankings."""
    field = retriever.default_search
    found = retriever.search_vectors(queries, list(dataset.queries.values()), 11, options={field: options})
    rankings = {
        query_id: without_query([(each.doc_id, each.score) for each in results], query_id, dataset.qrels)[:10]
        for query_id, results in zip(dataset.queries, found, strict=True)
    }
    values = evaluate_queries(dataset.qrels, rankings, ["nDCG@10"])["nDCG@10"]
    relevant = {query_id: {doc for doc, level in row.items() if level > 0} for query_id, row in dataset.qrels.items()}
    shares = [
        np.mean([any(doc in relevant[query_id] for doc, _ in run[:cut]) for query_id, run in rankings.items()]) for cut in CUTS
    ]
    told = "  ".join(f"@{cut} {share:.4f}" for cut, share in zip(CUTS, shares, strict=True))
    p = "" if base is None else f"  p {paired_randomisation(base[0], values):.3f}"
    changed = "" if base is None else f"  reordered {sum(scores(rankings[q]) != scores(base[1][q]) for q in rankings)}"
    skew = skewness(rankings.values(), len(retriever))
    what = ", ".join(f"{name} {value:g}" for name, value in options.items()) or "as it is"
    print(f"  {what}: {told}  nDCG@10 {np.mean(list(values.values())):.4f}{p}  skewness {skew:.2f}{changed}", flush=True)
    return values, rankings


def scores(ranking):
    """Scores alone."""
    return [score for _, score in ranking]


def main():
    """Print a line for each field and setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection")
    parser.add_argument("index")
    parser.add_argument("--fields", nargs="+", default=["dense", "fde"])
    parser.add_argument("--split", default="test")
    parser.add_argument("--bank-split")
    parser.add_argument("--bank-queries")
    parser.add_argument("--most", type=int, default=1000, help="queries of the bank, the first ones (default 1000)")
    parser.add_argument("--beta", type=float, nargs="+", default=[20.0])
    parser.add_argument("--bank-k", type=int, nargs="+", default=[1])
    options = parser.parse_args()
    dataset = load_dataset(options.collection, options.split)
    if options.bank_split:
        bank = list(load_dataset(options.collection, options.bank_split).queries.values())
    else:
        bank = [query.text for query in read_queries(options.bank_queries)]
    bank = [text for text in bank if text not in set(dataset.queries.values())][: options.most]
    for field in options.fields:
        with Retriever.open(options.index, search=field) as retriever:
            set_query_bank(options.index, field, bank, encoder=retriever.encoders()[field])
            retriever.reload()
            print(f"{dataset.name} {field}: {len(dataset.queries)} queries, a bank of {len(bank)}", flush=True)
            queries = retriever.encode(list(dataset.queries.values()))
            base = measured(retriever, dataset, queries, {}, None)
            for beta in options.beta:
                for k in options.bank_k:
                    measured(retriever, dataset, queries, {"bank_beta": beta, "bank_k": k}, base)


if __name__ == "__main__":
    main()
