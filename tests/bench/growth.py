"""Time of sparse searches against the size of the collection: each way of searching, the choice among them, threads, filters.

    python tests/bench/growth.py build WORK 100000 1000000 4000000
    python tests/bench/growth.py time WORK [--plot growth.png]

``build`` generates collections (some 100 postings a document) and builds an index of each, in a process of its own. ``time``
interleaves the searches, one thread, and prints JSON lines: the best of the passes for each query, as medians and 99th
percentiles of the thread's CPU time, on the wall for two threads; "times filtered" is the median of paired ratios to no filter,
when the filter has its own index. "times memory" is the scan over a reading of the query's postings and columns as fast
as this machine reads 256 MiB. It ends when two ways find different documents.
"""

import argparse
import json
import time
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lexmax.eval.bench.build import build_apart
from lexmax.eval.bench.engines import LEXMAX
from lexmax.eval.bench.fields import only_field
from lexmax.eval.bench.generator import Recipe, generate_documents, generate_queries
from lexmax.eval.bench.timing import interleave
from lexmax.eval.bench.workload import Rows, integer_queries
from lexmax.index.kernels import read_only
from lexmax.index.representations.sparse import SparseVectors
from lexmax.index.sparse.field import SparseField
from lexmax.retrieval.searchers.blockmax import BlockMaxSearcher, SparseOptions

WAYS = ("auto", "blockmax", "scan")
KEPT = {"1 % kept": 0.01, "0.1 % kept": 0.001}
KS = (10, 100, 1000)


def build(work: Path, sizes: list[int]) -> None:
    """Generate and build, one size after the other; rows that are there are used, and removed when the index is there."""
    for n_docs in sizes:
        folder = work / str(n_docs)
        if not (folder / "rows" / "impacts.npy").exists():
            Rows(*generate_documents(Recipe(n_docs=n_docs))).save(folder / "rows")
        facts = build_apart(LEXMAX, folder / "rows", folder / "index")
        for file in (folder / "rows").iterdir():
            file.unlink()
        row = {"documents": n_docs, "build_s": round(facts.build_s, 1), "peak_mb": round(facts.peak_mb), "bytes": facts.n_bytes}
        (folder / "facts.json").write_text(json.dumps(row))
        print(json.dumps(row), flush=True)


def timed(work: Path, n_queries: int, n_passes: int, ks: list[int]) -> list[dict]:
    """Time all that was built; a row for each size, kind of queries, k and way."""
    rows = []
    for folder in sorted((each.parent for each in work.glob("*/facts.json")), key=lambda each: int(each.name)):
        only_field(folder / "index", SparseField, "sparse vectors")  # loads kernels
        n_docs, begun = int(folder.name), time.perf_counter()
        field = only_field(folder / "index", SparseField, "sparse vectors")
        opened = time.perf_counter() - begun
        print(json.dumps({**json.loads((folder / "facts.json").read_text()), "open_s": round(opened, 3)}), flush=True)
        searcher, frequencies = BlockMaxSearcher(field), field.document_frequencies(np.arange(30_522, dtype=np.int32))
        for kind, vectors in generate_queries(Recipe(n_docs=n_docs, n_queries=n_queries)).items():
            asked = [
                SparseVectors(np.array([0, len(query.terms)], np.int64), query.terms, query.weights.astype(np.float32))
                for query in integer_queries(vectors, frequencies, n_queries)
            ]
            for k in ks:
                found = compare(field, searcher, asked, k, n_passes)
                rows += [{"documents": n_docs, "queries": kind, "k": k, **row} for row in found]
                for row in rows[-len(found) :]:
                    print(json.dumps(row), flush=True)
    return rows


def read_bytes(field: SparseField, asked: list[SparseVectors]) -> npt.NDArray[np.float64]:
    """Bytes of postings and columns that a scan reads for each query."""
    totals = []
    for query in asked:
        total = 0
        for segment in field.segments:
            arrays, ranks = segment.inverted.arrays, segment.inverted.ranks(query.terms)
            ranks = ranks[ranks >= 0]
            listed = ranks[arrays.column_of[ranks] < 0]
            total += arrays.columns.shape[1] * (len(ranks) - len(listed))
            total += 3 * int((arrays.starts[listed + 1] - arrays.starts[listed]).sum())
        totals.append(total)
    return np.array(totals, np.float64)


@cache
def stream_bytes_per_us() -> float:
    """How fast one thread reads 256 MiB from end to end."""
    import numba

    @numba.njit(nogil=True, fastmath=True)
    def total(values):
        found = np.uint64(0)
        for i in range(len(values)):
            found += values[i]
        return found

    values, best = np.ones(1 << 25, np.uint64), 0.0
    for _ in range(6):
        begun = time.perf_counter()
        total(values)
        best = max(best, values.nbytes / (time.perf_counter() - begun) / 1e6)
    return best


def compare(field: SparseField, searcher: BlockMaxSearcher, asked: list[SparseVectors], k: int, n_passes: int) -> list[dict]:
    """Interleave all searches of one kind of queries and one k."""
    searches = {way: way_of(searcher, way) for way in WAYS}
    searches["2 threads"] = lambda query, k: searcher.search(query, k, n_threads=2)
    rng = np.random.default_rng(0)
    for name, share in KEPT.items():
        masks = [read_only(rng.random(segment.n_docs) < share) for segment in field.segments]
        searches[name] = lambda query, k, masks=masks: searcher.search(query, k, masks)
        for query in asked * 50:  # until searches with the filter have paid for its index
            if searches[name](query, k) and searcher._filtered.of(searcher._counted(masks)) is not None:
                break
    streams = interleave(searches, dict.fromkeys(searches, asked), k, n_passes)
    found = []
    for name, stream in streams.items():
        if name not in KEPT:
            for own, other in zip(stream.answers, streams["scan"].answers, strict=True):
                if not (np.array_equal(own.doc_nums, other.doc_nums) and np.array_equal(own.scores, other.scores)):
                    raise SystemExit(f"{name} and scan find different documents at k = {k}")
        us = stream.wall_us if name == "2 threads" else stream.cpu_us
        p50, p99 = np.percentile(us, [50, 99])
        row = {"way": name, "p50_us": round(p50, 1), "p99_us": round(p99, 1)}
        if name == "scan":
            row["times memory"] = round(float(np.median(us * stream_bytes_per_us() / read_bytes(field, asked))), 2)
        if name in KEPT:
            row["times filtered"] = round(float(np.median(streams["auto"].cpu_us / us)), 2)
        if name == "2 threads":
            row["times one"] = round(float(np.median(streams["auto"].wall_us / us)), 2)
        found.append(row)
    together = SparseVectors.from_rows([each.row(0) for each in asked])
    for n_threads in (1, 2):
        spans = []
        for _ in range(n_passes):
            begun = time.perf_counter()
            searcher.search(together, k, n_threads=n_threads)
            spans.append((time.perf_counter() - begun) / len(asked) * 1e6)
        found.append({"way": f"batch, {n_threads} threads", "p50_us": round(min(spans), 1)})
    return found


def way_of(searcher: BlockMaxSearcher, way: str):
    """One algorithm as a function of query and k."""
    options = SparseOptions(algorithm=way)
    return lambda query, k: searcher.search(query, k, options=options)


def plot(rows: list[dict], path: str) -> None:
    """Write a PNG: time against size, a panel for each kind of queries and k; solid medians, dotted 99th percentiles."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kinds, ks = (list(dict.fromkeys(row[name] for row in rows)) for name in ("queries", "k"))
    figure = Figure(figsize=(4.2 * len(ks), 3.4 * len(kinds)), layout="constrained")
    FigureCanvasAgg(figure)
    for line, kind in zip(figure.subplots(len(kinds), len(ks), squeeze=False, sharex=True), kinds, strict=True):
        for axes, k in zip(line, ks, strict=True):
            for way, color in zip(("auto", "blockmax", "scan"), ("black", "tab:red", "tab:blue"), strict=True):
                points = [row for row in rows if (row["queries"], row["k"], row["way"]) == (kind, k, way)]
                sizes = [row["documents"] for row in points]
                label, width = ("the choice", 2.5) if way == "auto" else (way, 1.2)
                axes.plot(
                    sizes, [row["p50_us"] for row in points], "o-", color=color, linewidth=width, markersize=3, label=label
                )
                axes.plot(sizes, [row["p99_us"] for row in points], ":", color=color, linewidth=1)
            axes.set(xscale="log", yscale="log", title=f"{kind} queries, k = {k}")
            axes.grid(alpha=0.3)
        line[0].set_ylabel("µs a query, one thread")
    for axes in figure.axes[-len(ks) :]:
        axes.set_xlabel("documents")
    figure.axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("build", "time"))
    parser.add_argument("work", type=Path)
    parser.add_argument("sizes", type=int, nargs="*")
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--k", type=int, nargs="+", default=list(KS))
    parser.add_argument("--plot")
    args = parser.parse_args()
    if args.step == "build":
        build(args.work, args.sizes)
        return
    rows = timed(args.work, args.queries, args.passes, args.k)
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
