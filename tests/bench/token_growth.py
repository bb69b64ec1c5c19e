"""Recall and time of token search against the size of the collection: several depths, filters, deletions.

    python tests/bench/token_growth.py build WORK 30000 100000 300000 1000000
    python tests/bench/token_growth.py time WORK [--plot token-growth.png]

``build`` generates collections of some 45 tokens a document, kept in 2 bits. ``time`` prints a JSON line for each size, k and
depth: recall of the k best by MaxSim of all documents over the same codes, and the median CPU time of a query, one thread. The
best by MaxSim are kept beside the index, since finding them takes minutes. "10 % kept" and so on are searches at the default
depth with a mask of the documents that count.
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
from lexmax.index.kernels import read_only
from lexmax.index.manifest import EncoderRecord
from lexmax.index.multivector.config import MultiVectorConfig
from lexmax.index.multivector.field import TokenField
from lexmax.index.representations import MultiVectors
from lexmax.retrieval.searchers.centroid import CentroidOptions, CentroidSearcher

ENCODER = EncoderRecord(kind="colbert", fingerprint="bench:0000000000000000", settings={})
TOKENS, N_QUERIES, KS, N_BEST = 45.0, 40, (10, 100), 1000
MASKS = {"99 % live": 0.99, "10 % kept": 0.1, "0.1 % kept": 0.001}


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


def timed(work: Path, factors: list[float]) -> list[dict]:
    """Search every collection with the default depths, and with so many times as many; a row for each."""
    rows = []
    for folder in sorted((each for each in work.iterdir() if each.is_dir()), key=lambda each: int(each.name)):
        searcher = CentroidSearcher(only_field(folder, TokenField, "token vectors"))
        field, recipe = searcher.field, recipe_of(searcher.field.n_docs)
        queries = token_queries(recipe, next(token_chunks(recipe)))
        asked = [MultiVectors.of([queries.row(i)], recipe.dim) for i in range(len(queries))]
        best = best_of_all(searcher, asked, work / f"{folder.name}.npy")
        facts = {"documents": field.n_docs, "centroids": field.codec.n_centroids, "segments": len(field.segments)}
        for k in KS:
            found = [compare(searcher, asked, best, k, factor) for factor in (None, *factors)]
            rows += [{**facts, "k": k, **row} for row in (*found, *masked(searcher, asked, best, k))]
            for row in rows[-len(found) - len(MASKS) :]:
                print(json.dumps(row), flush=True)
    return rows


def best_of_all(searcher: CentroidSearcher, asked: list[MultiVectors], kept: Path) -> list:
    """The `N_BEST` documents of each query by MaxSim over the codes, best first."""
    if not kept.is_file():
        every, codes = [np.arange(searcher.field.n_docs, dtype=np.int32)], CentroidOptions(n_exact=0)
        scores = (searcher.score(query, every, codes)[0] for query in asked)
        np.save(kept, [np.argsort(-each, kind="stable")[:N_BEST] for each in scores])
    return list(np.load(kept))


def compare(
    searcher: CentroidSearcher, asked: list[MultiVectors], best: list, k: int, factor: float | None, masks=None
) -> dict:
    """Recall and time of the default depth, or of ``factor`` times 1024 or 20 k documents gathered and half of them scored."""
    options = CentroidOptions()
    if factor is not None:
        options = CentroidOptions(
            n_gathered=int(max(1024, 20 * k) * factor), n_candidates=int(max(512, 10 * k) * factor)
        )  # fmt: skip
    recalls, cpu_ms = [], []
    searcher.search(asked[0], k, masks, options)
    for query, wanted in zip(asked, best, strict=True):
        begun = time.thread_time_ns()
        found = searcher.search(query, k, masks, options)
        cpu_ms.append((time.thread_time_ns() - begun) / 1e6)
        if masks is not None:
            wanted = wanted[np.concatenate(masks)[wanted]]
        if len(wanted) >= k:
            recalls.append(len(set(wanted[:k].tolist()) & set(found.doc_nums.tolist())) / k)
    recall = round(float(np.mean(recalls)), 3) if len(recalls) == len(asked) else None
    return {"depth": factor or "default", "recall": recall, "p50_ms": round(float(np.median(cpu_ms)), 2)}


def masked(searcher: CentroidSearcher, asked: list[MultiVectors], best: list, k: int) -> list[dict]:
    """The default depth, with masks of the documents that may be found."""
    rows, rng = [], np.random.default_rng(0)
    for name, share in MASKS.items():
        masks = [read_only(rng.random(segment.n_docs) < share) for segment in searcher.field.segments]
        rows.append({**compare(searcher, asked, best, k, None, masks), "depth": name})
    return rows


def plot(rows: list[dict], path: str) -> None:
    """Write a PNG: recall and time against size, a line for each depth, a column for each k."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(KS), 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    for column, k in zip(figure.subplots(2, len(KS), sharex=True).T, KS, strict=True):
        for depth in dict.fromkeys(row["depth"] for row in rows if row["depth"] not in MASKS):
            points = [row for row in rows if (row["k"], row["depth"]) == (k, depth)]
            style = {"color": "black", "linewidth": 2.5} if depth == "default" else {"linewidth": 1.2}
            label = depth if depth == "default" else f"{depth:g} times {max(512, 10 * k)} scored"
            for axes, figure_of in zip(column, ("recall", "p50_ms"), strict=True):
                axes.plot([row["documents"] for row in points], [row[figure_of] for row in points], "o-", label=label, **style)
        column[0].set(title=f"k = {k}", xscale="log", ylabel=f"recall@{k}")
        column[1].set(yscale="log", ylabel="ms a query, one thread", xlabel="documents")
        column[0].legend(fontsize=7)
        for axes in column:
            axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("build", "time"))
    parser.add_argument("work", type=Path)
    parser.add_argument("sizes", type=int, nargs="*")
    parser.add_argument("--factors", type=float, nargs="+", default=[0.5, 1, 2, 4])
    parser.add_argument("--plot", metavar="FILE.png")
    args = parser.parse_args()
    if args.step == "build":
        build(args.work, args.sizes)
        return
    rows = timed(args.work, args.factors)
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
