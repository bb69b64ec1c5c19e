"""`lexmax bench fde`: what encoding a document and a query costs, beside other packages, interleaved, in one thread.

Token vectors are generated. Packages that are installed take part, with the settings of the paper's encoding here:
muvera-python (a Rust extension), pymuvera, and muvera-fde, which binds Google's C++ reference. Documents are encoded in one
batch, queries one by one, as a search does. What the interfaces take is made outside the timing.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module, metadata
from typing import Any

import numpy as np

from ...index.fde.config import FdeConfig
from ...index.fde.encoding import Encoding, train_encoding
from ...index.representations.multivectors import MultiVectors
from ..tables import markdown_table
from .report import Report, Row

PAPER = "lexmax-simhash"
LEARNT = {"lexmax-mean": {"values": "mean"}, "lexmax-fitted": {"values": "fitted"}}
Matrices = Sequence[Any]
Work = tuple[Callable[[], object], list[Callable[[], object]]]
"""What encodes all documents, and what encodes each query."""


@dataclass(frozen=True, kw_only=True)
class FdeBench:
    """What to time.

    Attributes
    ----------
    n_docs, n_queries : int
    document_tokens, query_tokens, dim : int
        Of each text.
    n_repetitions, n_planes, inner_dim : int
        Of the paper's encoding; learnt cells are as many as fit into as many numbers.
    n_passes, seed : int
    """

    n_docs: int = 64
    n_queries: int = 64
    document_tokens: int = 100
    query_tokens: int = 32
    dim: int = 128
    n_repetitions: int = 20
    n_planes: int = 4
    inner_dim: int = 8
    n_passes: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.n_docs, self.n_queries, self.document_tokens, self.query_tokens, self.dim, self.n_passes) < 1:
            raise ValueError("documents, queries, tokens, dim and passes must be at least 1")
        _ = self.paper

    @property
    def paper(self) -> FdeConfig:
        """The paper's encoding."""
        settings: dict[str, Any] = {"n_repetitions": self.n_repetitions, "n_planes": self.n_planes, "inner_dim": self.inner_dim}
        return FdeConfig(of="tokens", token_dim=self.dim, cells="simhash", **settings)


class FdeReport(Report):
    """One row per engine; ``ratio_to_lexmax`` is its time per document by that of the same encoding here."""

    def to_markdown(self) -> str:
        """Return the rows as a table and the setup as a list."""
        table = [["engine", "dim", "µs per document", "µs per query", "× lexmax, document", "× lexmax, query"]]
        for row in self.rows:
            ratios = [f"{row[name]:.2f}" for name in ("ratio_to_lexmax", "query_ratio_to_lexmax")]
            times = [f"{row['document_us']:.1f}", f"{row['query_us']:.1f}"]
            table.append([row["engine"], str(row["dim"]), *times, *ratios])
        return "\n".join([*markdown_table(table), "", *(f"- {name}: {value}" for name, value in self.setup.items())]) + "\n"


def run_fde_bench(bench: FdeBench, say: Callable[[str], None] = lambda message: None) -> FdeReport:
    """Time every engine on the same token vectors."""
    rng = np.random.default_rng(bench.seed)
    documents = [_unit(rng, bench.document_tokens, bench.dim) for _ in range(bench.n_docs)]
    queries = [_unit(rng, bench.query_tokens, bench.dim) for _ in range(bench.n_queries)]
    sample = MultiVectors.of(documents, bench.dim)
    asked = [MultiVectors.of([query], bench.dim) for query in queries]
    engines = {PAPER: _ours(train_encoding(bench.paper, sample, bench.n_docs), sample, asked)}
    n_cells = max(1, bench.paper.dim // bench.dim)
    for name, settings in LEARNT.items():
        config = FdeConfig(of="tokens", token_dim=bench.dim, n_cells=n_cells, **settings)  # type: ignore[arg-type]
        engines[name] = _ours(train_encoding(config, sample, bench.n_docs), sample, asked)
    found, versions = _peers(bench, documents, queries)
    engines |= found
    say(f"timing {', '.join(engines)}")
    dims = {name: n_cells * bench.dim if name in LEARNT else bench.paper.dim for name in engines}
    best = {name: (np.inf, np.full(bench.n_queries, np.inf)) for name in engines}
    for _ in range(bench.n_passes + 1):  # the first pass compiles
        for name, (every_document, each_query) in engines.items():
            took = _cpu_us(every_document) / bench.n_docs
            alone = np.array([_cpu_us(one_query) for one_query in each_query])
            best[name] = min(best[name][0], took), np.minimum(best[name][1], alone)
    times = {name: (took, float(np.median(alone))) for name, (took, alone) in best.items()}
    rows = [_row(name, each, times[PAPER], dims[name]) for name, each in times.items()]
    setup = {
        "n_docs": bench.n_docs, "n_queries": bench.n_queries, "document_tokens": bench.document_tokens,
        "query_tokens": bench.query_tokens, "token_dim": bench.dim, "paper": f"{bench.n_repetitions} repetitions of "
        f"{1 << bench.n_planes} cells, {bench.inner_dim} numbers each", "passes": bench.n_passes, "threads": 1,
        "times": "CPU of the process; of each query, and of all documents, the best pass", **versions,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
    }  # fmt: skip
    return FdeReport(rows=rows, setup=setup)


def _unit(rng: np.random.Generator, n: int, dim: int) -> Any:
    matrix = rng.standard_normal((n, dim))
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


def _ours(encoding: Encoding, documents: MultiVectors, queries: Sequence[MultiVectors]) -> Work:
    return partial(encoding.encode_documents, documents), [partial(encoding.encode_queries, query) for query in queries]


def _peers(bench: FdeBench, documents: Matrices, queries: Matrices) -> tuple[dict[str, Work], dict[str, str]]:
    """What the packages do that are installed, and their versions."""
    found, versions = {}, {}
    for package, make in PEERS.items():
        try:
            found[package] = make(bench, documents, queries)
            versions[package] = metadata.version(package)
        except ImportError:
            continue
    return found, versions


def _settings(bench: FdeBench, package: Any) -> dict[str, Any]:
    """Settings as packages that follow Google's names take them."""
    return {
        "dimension": bench.dim, "num_repetitions": bench.n_repetitions, "num_simhash_projections": bench.n_planes,
        "projection_type": package.ProjectionType.AMS_SKETCH, "projection_dimension": bench.inner_dim, "seed": 42,
    }  # fmt: skip


def _muvera_python(bench: FdeBench, documents: Matrices, queries: Matrices) -> Work:
    encoder = import_module("muvera").Muvera(
        num_repetitions=bench.n_repetitions, num_simhash_projections=bench.n_planes, dimension=bench.dim,
        projection_type="ams_sketch", projection_dimension=bench.inner_dim, seed=42,
    )  # fmt: skip
    return partial(encoder.encode_documents, documents), [partial(encoder.encode_queries, query) for query in queries]


def _pymuvera(bench: FdeBench, documents: Matrices, queries: Matrices) -> Work:
    package = import_module("pymuvera")
    encoder = package.MUVERAEncoder(**_settings(bench, package), fill_empty_partitions=True)
    return partial(encoder.encode_documents_batch, documents), [partial(encoder.encode_query, query) for query in queries]


def _muvera_fde(bench: FdeBench, documents: Matrices, queries: Matrices) -> Work:
    package = import_module("muvera_fde")
    query, document = (
        package.FixedDimensionalEncoder(package.FixedDimensionalEncodingConfig(**_settings(bench, package), **filled))
        for filled in ({}, {"fill_empty_partitions": True})
    )
    return (
        lambda: [document.encode_document(text) for text in documents],
        [partial(query.encode_query, text) for text in queries],
    )


PEERS: Mapping[str, Callable[[FdeBench, Matrices, Matrices], Work]] = {
    "muvera-python": _muvera_python, "pymuvera": _pymuvera, "muvera-fde": _muvera_fde,
}  # fmt: skip


def _cpu_us(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return (time.process_time() - start) * 1e6


def _row(engine: str, took: Sequence[float], ours: Sequence[float], dim: int) -> Row:
    return {
        "engine": engine, "dim": dim, "document_us": round(took[0], 1), "query_us": round(took[1], 1),
        "ratio_to_lexmax": round(took[0] / ours[0], 3), "query_ratio_to_lexmax": round(took[1] / ours[1], 3),
    }  # fmt: skip
