"""`lexmax bench nets`: queries that are networks, over generated vectors: exhaustive, along the graph, and beside a flat scan.

The flat scan is faiss's, of inner products over the same vectors: what one vector per query would cost. Vectors lie around
topics, along a few directions of each topic, as embeddings of texts do; networks are random. One thread, one interleaved run.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ...index.arrays import Floats
from ...index.collection import Collection, NewField
from ...index.manifest import EncoderRecord
from ...index.nets.config import NetFieldConfig
from ...index.nets.neighbours import faiss
from ...index.representations.dense import DenseVectors
from ...index.representations.nets import QueryNets, check_sizes, n_numbers
from ...index.snapshot import Snapshot
from ...retrieval.searchers.registry import field_searcher, make_options
from ..tables import markdown_table
from .engines import ADD_DOCS
from .fields import without_text
from .report import Report, Row
from .timing import Search, Stream, interleave

ENCODER = EncoderRecord(kind="hypencoder", fingerprint="hypencoder:bench", settings={})
EXHAUSTIVE, GRAPH, FLAT = "lexmax (exhaustive)", "lexmax (graph)", "faiss (flat, inner products)"
N_TOPICS, N_DIRECTIONS = 200, 12
ALONG, BESIDE = 0.8, 0.2
"""Lengths of what a vector has along its topic's directions, and beside them."""


@dataclass(frozen=True, kw_only=True)
class NetBench:
    """What to time.

    Attributes
    ----------
    n_docs, n_queries, seed : int
        Of what is generated.
    sizes : sequence of int
        Numbers of a vector, then of each hidden layer, as `QueryNets.sizes`.
    keep : {"float16", "float32"}
    n_neighbours : int
        Of the graph; 0: no graph.
    n_entry, n_candidates, max_iterations : int or None
        Of walks; None: the searcher's own.
    k, n_passes : int
    """

    n_docs: int = 200_000
    n_queries: int = 30
    seed: int = 0
    sizes: Sequence[int] = (384, 64)
    keep: str = "float16"
    n_neighbours: int = 32
    n_entry: int | None = None
    n_candidates: int | None = None
    max_iterations: int | None = None
    k: int = 10
    n_passes: int = 2

    def __post_init__(self) -> None:
        if min(self.n_docs, self.n_queries, self.k, self.n_passes) < 1:
            raise ValueError("documents, queries, passes and k must be at least 1")
        check_sizes(self.sizes)


class NetReport(Report):
    """Rows of each engine; ``ratio_to_exhaustive`` is the exhaustive search's time by the engine's, the median over queries."""

    def to_markdown(self) -> str:
        """Return the rows as a table and the setup as a list."""
        table = [["engine", "k", "p50 µs", "p99 µs", "speed-up", "recall@10", "documents scored", "multiplications"]]
        for row in self.rows:
            times = (f"{row['p50_us']:.0f}", f"{row['p99_us']:.0f}", f"{row['ratio_to_exhaustive']:.2f}")
            recall = "" if row["recall@10"] is None else f"{row['recall@10']:.4f}"
            work = (f"{row['n_scored']:,.0f}", f"{row['multiplications']:,.0f}")
            table.append([row["engine"], str(row["k"]), *times, recall, *work])
        return "\n".join([*markdown_table(table), "", *(f"- {name}: {value}" for name, value in self.setup.items())]) + "\n"


def run_net_bench(bench: NetBench, say: Callable[[str], None] = lambda message: None) -> NetReport:
    """Time the engines on the same vectors; recall is against the exhaustive search."""
    say(f"generating {bench.n_docs:,} vectors of {bench.sizes[0]} numbers")
    rng = np.random.default_rng(bench.seed)
    documents = embeddings(rng, bench.n_docs, bench.sizes[0])
    queries = [random_net(rng, bench.sizes) for _ in range(bench.n_queries)]
    with tempfile.TemporaryDirectory(prefix="lexmax-bench-") as folder:
        say(f"building, with {bench.n_neighbours} neighbours of each document")
        _build(bench, documents, Path(folder) / "index")
        searcher = field_searcher(Snapshot.open(Path(folder) / "index").field("nets"))
        searcher.warm()
        effort = {name: getattr(bench, name) for name in ("n_entry", "n_candidates", "max_iterations")}
        walk = make_options(searcher, {"algorithm": "graph", **effort})
        searches: dict[str, Search] = {EXHAUSTIVE: lambda query, k: searcher.search(query, k), FLAT: _flat(bench, documents)}
        if bench.n_neighbours:
            searches[GRAPH] = lambda query, k: searcher.search(query, k, options=walk)
        prepared = {**dict.fromkeys(searches, queries), FLAT: list(documents[: bench.n_queries])}
        say(f"timing at k = {bench.k}")
        streams = interleave(searches, prepared, bench.k, bench.n_passes)
    setup = {
        "documents": f"generated, seed {bench.seed}", "n_docs": bench.n_docs, "keep": bench.keep, "queries": bench.n_queries,
        "layers": ", ".join(f"{before} x {width}" for before, width in pairwise((*bench.sizes, 1))),
        "n_neighbours": bench.n_neighbours, **(walk.effort._asdict() if bench.n_neighbours else {}), "passes": bench.n_passes,
        "threads": 1, "times": "CPU of the calling thread", "faiss": faiss().__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
    }  # fmt: skip
    return NetReport(rows=[_row(bench, name, stream, streams[EXHAUSTIVE]) for name, stream in streams.items()], setup=setup)


def embeddings(rng: np.random.Generator, n: int, dim: int) -> Floats:
    """Vectors (n, dim) float32 of unit length around topics, most of them along a few directions of the topic's own."""
    topics = _unit(rng.standard_normal((N_TOPICS, dim)))
    directions = _unit(rng.standard_normal((N_TOPICS, N_DIRECTIONS, dim)))
    owners = rng.integers(0, N_TOPICS, n)
    vectors = BESIDE * _unit(rng.standard_normal((n, dim), np.float32))
    for topic in range(N_TOPICS):
        (own,) = np.nonzero(owners == topic)
        along = rng.standard_normal((len(own), N_DIRECTIONS)) / N_DIRECTIONS**0.5
        vectors[own] += (topics[topic] + ALONG * along @ directions[topic]).astype(np.float32)
    return _unit(vectors)


def random_net(rng: np.random.Generator, sizes: Sequence[int]) -> QueryNets:
    """One query: a network with weights as they are usually initialised."""
    pairs = list(pairwise(sizes))
    weights = [rng.standard_normal((1, width, before), np.float32) * (2 / before) ** 0.5 for before, width in pairs]
    biases = [rng.standard_normal((1, width), np.float32) * 0.1 for _, width in pairs]
    return QueryNets.of(weights, biases, rng.standard_normal((1, sizes[-1]), np.float32))


def _flat(bench: NetBench, documents: Floats) -> Search:
    if bench.keep == "float32":
        index = faiss().IndexFlatIP(bench.sizes[0])
    else:
        index = faiss().IndexScalarQuantizer(bench.sizes[0], faiss().ScalarQuantizer.QT_fp16, faiss().METRIC_INNER_PRODUCT)
    index.add(documents)
    return lambda query, k: index.search(query[None], k)[1]


def _build(bench: NetBench, documents: Floats, path: Path) -> None:
    options = asdict(NetFieldConfig(dim=bench.sizes[0], keep=bench.keep, n_neighbours=bench.n_neighbours))
    with Collection.create(path, {"nets": NewField(encoder=ENCODER, representation="nets", options=options)}) as collection:
        for first in range(0, bench.n_docs, ADD_DOCS):
            last = min(first + ADD_DOCS, bench.n_docs)
            collection.add(without_text(first, last), {"nets": DenseVectors(documents[first:last])})
        collection.compact()
        collection.commit()


def _row(bench: NetBench, engine: str, stream: Stream, oracle: Stream) -> Row:
    """One engine's row; faiss answers another question, so it has no recall."""
    recall, n_scored, per_document = None, float(bench.n_docs), bench.sizes[0]
    if engine != FLAT:
        depth, per_document = min(10, bench.k), n_numbers(bench.sizes)
        found, best = ([hits.doc_nums[:depth] for hits in each.answers] for each in (stream, oracle))
        shares = [len(np.intersect1d(*pair)) / depth for pair in zip(found, best, strict=True)]
        recall = round(float(np.mean(shares)), 4)
    if engine == GRAPH:
        n_scored = float(np.mean([hits.n_scored[0] for hits in stream.answers]))
    return {
        "engine": engine, "k": bench.k, "p50_us": round(float(np.percentile(stream.cpu_us, 50)), 1),
        "p99_us": round(float(np.percentile(stream.cpu_us, 99)), 1), "recall@10": recall, "n_scored": n_scored,
        "multiplications": n_scored * per_document,
        "ratio_to_exhaustive": round(float(np.median(oracle.cpu_us / stream.cpu_us)), 2),
    }  # fmt: skip


def _unit(matrix: Any) -> Floats:
    unit: Floats = (matrix / np.linalg.norm(matrix, axis=-1, keepdims=True)).astype(np.float32)
    return unit
