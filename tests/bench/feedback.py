"""What feedback gains by simulated clicks, as in the paper on Counterfactual Rocchio (SIGIR 2022).

    python tests/bench/feedback.py COLLECTION INDEX [--fields dense fde] [--log-split train]

COLLECTION is a BEIR folder, INDEX an index of all of it. Each field answers the queries of the split alone; users see its ten
best documents, look at rank r with probability r^-eta, and click what they look at with a probability that depends on its
relevance. Each query is asked --times times; binomial numbers stand for the single users. Prints nDCG@10 without feedback and
with the log of those clicks:

    logged queries      those of --split themselves, whose judgments made the clicks: what the paper's first tables show
    unlogged queries    those of --split, with the clicks of --log-split's queries

Of binary judgments relevant counts as the highest level.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from lexmax import Retriever
from lexmax.eval.datasets import load_dataset
from lexmax.eval.evaluate import without_query
from lexmax.eval.measures import evaluate_queries, paired_randomisation
from lexmax.retrieval.feedback.clicks import LoggedQuery
from lexmax.retrieval.feedback.log import ClickLog

CLICKS = {"perfect": (0.0, 0.0, 1.0, 1.0), "noisy": (0.2, 0.4, 0.8, 0.9)}
"""Probability of a click on a document of relevance 0 to 3 that was looked at; the paper's."""
SHOWN = 10
ETA = 1.0


class Bench:
    """One field of an index and one collection."""

    def __init__(self, path, field, times, seed):
        self.path, self.field, self.times, self.rng = path, field, times, np.random.default_rng(seed)
        self.retriever = Retriever.open(path, search=field)
        self.encoders = self.retriever.encoders([field])
        self.known = {}

    def rankings(self, dataset, retriever=None, feedback=None, k=SHOWN):
        """The k best documents of each query."""
        texts = list(dataset.queries.values())
        if dataset.name not in self.known:
            self.known[dataset.name] = self.retriever.encode(texts)
        found = (retriever or self.retriever).search_vectors(self.known[dataset.name], texts, k + 1, feedback=feedback)
        pairs = zip(dataset.queries, found, strict=True)
        runs = {query_id: [(each.doc_id, each.score) for each in results] for query_id, results in pairs}
        return {query_id: without_query(run, query_id, dataset.qrels)[:k] for query_id, run in runs.items()}

    def log(self, dataset, rankings, clicked, eta):
        """Records of simulated users; ``clicked`` None: they click all that is shown."""
        highest = max(relevance for row in dataset.qrels.values() for relevance in row.values())
        records = {}
        for query_id, text in dataset.queries.items():
            record = records.setdefault(text.strip(), LoggedQuery(text.strip()))
            judged, counts = dataset.qrels[query_id], {}
            for rank, (doc_id, _) in enumerate(rankings[query_id], 1):
                level = round(3 * judged.get(doc_id, 0) / highest)
                chance = 1.0 if clicked is None else clicked[level] * rank**-eta
                counts[doc_id, rank] = (self.times, int(self.rng.binomial(self.times, chance)))
            record.add(LoggedQuery(text.strip(), self.times, counts))
        return list(records.values())

    def with_clicks(self, records, folder):
        """A retriever that has the records in its log."""
        log = ClickLog(Path(folder) / f"{self.rng.integers(1 << 60)}.log", create=True)
        log.add_records(records)
        return Retriever.open(self.path, search=self.field, encoders=self.encoders, clicks=log)


def measure(dataset, rankings, base=None):
    """nDCG@10, and where it is beside a base the p of a randomisation test."""
    values = evaluate_queries(dataset.qrels, rankings, ["nDCG@10"])["nDCG@10"]
    mean = float(np.mean(list(values.values())))
    p = None if base is None else paired_randomisation(base, values)
    return values, f"{mean:.4f}" + ("" if p is None else f"  p {p:.3f}")


def main():
    """Print a line for each field and setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection")
    parser.add_argument("index")
    parser.add_argument("--fields", nargs="+", default=["dense", "fde", "splade", "bm25"])
    parser.add_argument("--split", default="test")
    parser.add_argument("--log-split", help="queries that were logged when those of --split are not")
    parser.add_argument("--min-similarity", type=float, nargs="+", default=[0.8])
    parser.add_argument("--times", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=313)
    options = parser.parse_args()
    asked = load_dataset(options.collection, options.split)
    others = load_dataset(options.collection, options.log_split) if options.log_split else None
    for field in options.fields:
        bench = Bench(options.index, field, options.times, options.seed)
        shown = bench.rankings(asked)
        base, told = measure(asked, shown)
        print(f"{asked.name} {field}: {len(asked.queries)} queries, no feedback {told}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            logged(bench, asked, shown, base, folder)
            if others is not None:
                unlogged(bench, asked, others, base, folder, options.min_similarity)


def logged(bench, asked, shown, base, folder):
    """Feedback for the queries that were logged."""
    settings = [("all ten clicked", None, 0.0, 0.0)]
    for name, clicked in CLICKS.items():
        settings += [(f"{name}, all looked at", clicked, 0.0, 0.0), (f"{name}, position bias", clicked, ETA, 0.0),
                     (f"{name}, position bias, eta 1", clicked, ETA, ETA)]  # fmt: skip
    for name, clicked, bias, eta in settings:
        retriever = bench.with_clicks(bench.log(asked, shown, clicked, bias), folder)
        _, told = measure(asked, bench.rankings(asked, retriever, {"eta": eta}), base)
        print(f"  logged, {name}: {told}", flush=True)


def unlogged(bench, asked, others, base, folder, similarities):
    """Feedback for queries that were not logged, by those of another split."""
    for name, clicked in CLICKS.items():
        retriever = bench.with_clicks(bench.log(others, bench.rankings(others), clicked, ETA), folder)
        for least in similarities:
            feedback = {"eta": ETA, "min_similarity": least}
            _, told = measure(asked, bench.rankings(asked, retriever, feedback), base)
            print(f"  unlogged, {len(others.queries)} logged, {name}, min_similarity {least}: {told}", flush=True)


if __name__ == "__main__":
    main()
