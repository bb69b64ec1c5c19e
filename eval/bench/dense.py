"""`lexmax bench dense`: searches of a dense field beside faiss called directly, in one interleaved run and one thread.

The vectors are generated: directions around topics, of unit length, as sentence encoders make them. faiss answers from an
index of its own in memory, of the same precision; lexmax from the files of an index.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ...index.arrays import Floats
from ...index.collection import Collection, NewField
from ...index.dense.config import PRECISIONS, DenseFieldConfig
from ...index.manifest import EncoderRecord
from ...index.representations.dense import DenseVectors
from ...index.snapshot import Snapshot
from ...retrieval.searchers.registry import field_searcher, make_options
from ..tables import markdown_table
from .engines import ADD_DOCS
from .fields import without_text
from .report import Report, Row
from .timing import Search, Stream, interleave

LEXMAX = "lexmax"
ENCODER = EncoderRecord(kind="vectors", fingerprint="vectors:bench", settings={})
N_TOPICS = 200
SPREAD = 0.8
"""Length of what a vector has beside its topic."""


@dataclass(frozen=True, kw_only=True)
class DenseBench:
    """What to time.

    Attributes
    ----------
    n_docs, dim, n_queries, seed : int
        Of the generated vectors.
    keep : {"float16", "float32"}
    ks : sequence of int
    n_passes : int
    """

    n_docs: int = 100_000
    dim: int = 384
    n_queries: int = 100
    seed: int = 0
    keep: str = "float16"
    ks: Sequence[int] = (10, 100)
    n_passes: int = 3

    def __post_init__(self) -> None:
        if not self.ks or min(*self.ks, self.n_docs, self.dim, self.n_queries, self.n_passes) < 1:
            raise ValueError("documents, dim, queries, passes and every k must be at least 1")
        if self.keep not in PRECISIONS:
            raise ValueError(f"keep is {self.keep!r}: it must be {' or '.join(PRECISIONS)}")


class DenseReport(Report):
    """Rows of lexmax and of faiss; ``ratio_to_faiss`` is the median over queries of lexmax's time by faiss's."""

    def to_markdown(self) -> str:
        """Return the rows as a table and the setup as a list."""
        table = [["k", "engine", "p50 µs", "p99 µs", "× faiss", "recall@10", "recall@k"]]
        for row in self.rows:
            ratio = "" if row["ratio_to_faiss"] is None else f"{row['ratio_to_faiss']:.2f}"
            recalls = [f"{row['recall@10']:.4f}", f"{row['recall@k']:.4f}"]
            table.append([str(row["k"]), row["engine"], f"{row['p50_us']:.0f}", f"{row['p99_us']:.0f}", ratio, *recalls])
        return "\n".join([*markdown_table(table), "", *(f"- {name}: {value}" for name, value in self.setup.items())]) + "\n"


def run_dense_bench(bench: DenseBench, say: Callable[[str], None] = lambda message: None) -> DenseReport:
    """Time lexmax and faiss on the same vectors; recall is against lexmax's oracle, which scores every document."""
    say(f"generating {bench.n_docs:,} vectors of {bench.dim} numbers")
    rng = np.random.default_rng(bench.seed)
    topics = _unit(rng.standard_normal((N_TOPICS, bench.dim)))
    documents, queries = (_around(rng, topics, n) for n in (bench.n_docs, bench.n_queries))
    asked = [DenseVectors(query[None]) for query in queries]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="lexmax-bench-") as folder:
        _build(bench, documents, Path(folder) / "index")
        searcher = field_searcher(Snapshot.open(Path(folder) / "index").field("dense"))
        searcher.warm()
        every = make_options(searcher, {"algorithm": "exhaustive"})
        searches: dict[str, Search] = {
            LEXMAX: lambda query, k: searcher.search(query, k).doc_nums,
            "faiss": _faiss(bench, documents),
        }
        for k in (min(k, bench.n_docs) for k in bench.ks):
            say(f"timing at k = {k}")
            oracle = [searcher.search(query, k, options=every).doc_nums for query in asked]
            streams = interleave(searches, dict.fromkeys(searches, asked), k, bench.n_passes)
            rows += [_row(name, k, stream, streams["faiss"], oracle) for name, stream in streams.items()]
    setup = {
        "documents": f"generated, seed {bench.seed}", "n_docs": bench.n_docs, "dim": bench.dim, "keep": bench.keep,
        "queries": bench.n_queries, "passes": bench.n_passes, "threads": 1, "times": "CPU of the calling thread",
        "faiss": import_module("faiss").__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
    }  # fmt: skip
    return DenseReport(rows=rows, setup=setup)


def _faiss(bench: DenseBench, documents: Floats) -> Search:
    faiss: Any = import_module("faiss")
    if bench.keep == "float32":
        index = faiss.IndexFlatIP(bench.dim)
    else:
        index = faiss.IndexScalarQuantizer(bench.dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    index.add(documents)
    return lambda query, k: index.search(query.vectors, k)[1][0]


def _build(bench: DenseBench, documents: Floats, path: Path) -> None:
    options = DenseFieldConfig(dim=bench.dim, keep=bench.keep).options()
    with Collection.create(path, {"dense": NewField(encoder=ENCODER, representation="dense", options=options)}) as collection:
        for first in range(0, bench.n_docs, ADD_DOCS):
            last = min(first + ADD_DOCS, bench.n_docs)
            collection.add(without_text(first, last), {"dense": DenseVectors(documents[first:last])})
        collection.compact()
        collection.commit()


def _row(engine: str, k: int, stream: Stream, faiss: Stream, oracle: Sequence[Any]) -> Row:
    def recall(depth: int) -> float:
        pairs = zip(stream.answers, oracle, strict=True)
        return round(float(np.mean([len(np.intersect1d(found[:depth], best[:depth])) / depth for found, best in pairs])), 4)

    return {
        "engine": engine, "k": k, "p50_us": round(float(np.percentile(stream.cpu_us, 50)), 1),
        "p99_us": round(float(np.percentile(stream.cpu_us, 99)), 1), "recall@10": recall(min(10, k)), "recall@k": recall(k),
        "ratio_to_faiss": round(float(np.median(stream.cpu_us / faiss.cpu_us)), 3) if engine == LEXMAX else None,
    }  # fmt: skip


def _around(rng: np.random.Generator, topics: Floats, n: int) -> Floats:
    """Vectors around topics, (n, dim) float32 of unit length."""
    noise = _unit(rng.standard_normal((n, topics.shape[1]), np.float32)) * np.float32(SPREAD)
    return _unit(topics[rng.integers(0, len(topics), n)] + noise)


def _unit(matrix: Any) -> Floats:
    unit: Floats = (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)
    return unit
