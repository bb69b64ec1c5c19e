"""`lexmax bench dense`: searches of a dense field beside faiss called directly, in one interleaved run and one thread.

The vectors are generated, directions around topics, of unit length, as sentence encoders make them; or they come from a file.
faiss answers from an index of its own in memory, of the same structure, codes and effort; lexmax from the files of an index.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ...index.arrays import Floats
from ...index.collection import Collection, NewField
from ...index.dense.config import DenseFieldConfig
from ...index.dense.field import DenseField
from ...index.manifest import EncoderRecord
from ...index.representations.dense import DenseVectors
from ...index.snapshot import Snapshot
from ...retrieval.searchers.common import checked_field
from ...retrieval.searchers.dense import DenseOptions, DenseSearcher
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
    storage : mapping
        Settings of the field, as `DenseFieldConfig` has them.
    options : mapping
        Of the search, as `DenseOptions` has them.
    ks : sequence of int
    n_passes : int
    """

    n_docs: int = 100_000
    dim: int = 384
    n_queries: int = 100
    seed: int = 0
    storage: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    ks: Sequence[int] = (10, 100)
    n_passes: int = 3

    def __post_init__(self) -> None:
        if not self.ks or min(*self.ks, self.n_docs, self.dim, self.n_queries, self.n_passes) < 1:
            raise ValueError("documents, dim, queries, passes and every k must be at least 1")
        _ = self.config, DenseOptions(**self.options)

    @property
    def config(self) -> DenseFieldConfig:
        """How the field keeps and searches its vectors."""
        return DenseFieldConfig(dim=self.dim, **self.storage)


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
        dense = checked_field(Snapshot.open(Path(folder) / "index").field("dense"), DenseField, "dense vectors")
        searcher, every, options = DenseSearcher(dense), DenseOptions(algorithm="exhaustive"), DenseOptions(**bench.options)
        searcher.warm()
        say("building the index of faiss")
        searches: dict[str, Search] = {
            LEXMAX: lambda query, k: searcher.search(query, k, options=options).doc_nums,
            "faiss": _faiss(bench, searcher.field, documents),
        }
        for k in (min(k, bench.n_docs) for k in bench.ks):
            say(f"timing at k = {k}")
            oracle = [searcher.search(query, k, options=every).doc_nums for query in asked]
            streams = interleave(searches, dict.fromkeys(searches, asked), k, bench.n_passes)
            rows += [_row(name, k, stream, streams["faiss"], oracle) for name, stream in streams.items()]
    setup = {
        "documents": f"generated, seed {bench.seed}", "n_docs": bench.n_docs, "dim": bench.dim,
        **bench.storage, **bench.options, "queries": bench.n_queries, "passes": bench.n_passes, "threads": 1,
        "times": "CPU of the calling thread",
        "faiss": import_module("faiss").__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
    }  # fmt: skip
    return DenseReport(rows=rows, setup=setup)


def _faiss(bench: DenseBench, field: DenseField, documents: Floats) -> Search:
    """Build what faiss calls the same; where lexmax scores candidates again, so does faiss, from 32-bit floats."""
    faiss: Any = import_module("faiss")
    config, options, n_lists = bench.config, DenseOptions(**bench.options), field.quantiser.n_lists if field.quantiser else 0
    kept = {"float16": "SQfp16", "float32": "Flat", "int8": "SQ8"}[config.keep]
    codes = {"none": kept, "int8": "SQ8", "pq": f"PQ{config.code_bytes}x8np", "opq": f"PQ{config.code_bytes}x8np"}[
        config.quantise
    ]
    text = codes
    if field.segments[0].part.structure == "hnsw":
        text = f"HNSW{config.n_links}_{codes}"
    elif n_lists > 1:
        text = f"IVF{n_lists},{codes}"
    if config.quantise == "opq":
        text = f"OPQ{config.code_bytes},{text}"
    text += ",RFlat" if config.quantise != "none" else ""
    index = faiss.index_factory(bench.dim, text, faiss.METRIC_INNER_PRODUCT)
    index.train(documents)
    index.add(documents)
    faiss.omp_set_num_threads(1)  # else it shares a scan among threads, of which one is timed
    space, used = faiss.ParameterSpace(), {"nprobe": "IVF" in text, "k_factor_rf": "RFlat" in text, "efSearch": "HNSW" in text}
    set_for = 0

    def search(query: DenseVectors, k: int) -> Any:
        nonlocal set_for
        if k != set_for:  # to set it takes as long as some searches
            efforts = {"nprobe": options.probes(n_lists), "k_factor_rf": options.depth(field, k) / k, "efSearch": options.ef(k)}
            given = ",".join(f"{name}={efforts[name]}" for name, is_used in used.items() if is_used)
            if given:
                space.set_index_parameters(index, given)
            set_for = k
        return index.search(query.vectors, k)[1][0]

    return search


def _build(bench: DenseBench, documents: Floats, path: Path) -> None:
    options = bench.config.options()
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
