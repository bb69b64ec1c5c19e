"""`lexmax bench sparse`: engines for learned-sparse retrieval on one collection, one thread, the same impacts and weights.

lexmax's index is built or opened first, and its rows, in its order of documents, are what all other engines index. Every engine
gets the same queries of integer weights 1..32. lexmax refines those to 16 or 32-bit sums by its own rule, so it is judged by
the weights it makes of them; the terms are the same.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ...index.arrays import Int64s
from ...index.errors import DatasetError, MissingDependencyError
from ...index.representations.sparse import SparseVectors
from ...index.sparse.field import SparseField
from ...index.sparse.vocabulary import Vocabulary
from .build import BuildFacts, build_apart
from .engines import LEXMAX, Opened, open_lexmax
from .fields import only_field
from .generator import Recipe, generate_documents, generate_queries
from .judge import Judge
from .peers import ENGINES
from .report import Report, Row, make_row, mark_best
from .timing import interleave
from .token_worker import timed
from .workload import Query, Rows, integer_queries, number_terms, read_index_rows, read_npz, read_query_vectors, sample_queries

Say = Callable[[str], None]
FAMILIES = {"bmp": 0.0, "seismic": 0.99}
"""Engines with several rows, and the recall@k from which a row can be the best one: BMP means to be exact."""


@dataclass(frozen=True, kw_only=True)
class SparseBench:
    """What to compare.

    Attributes
    ----------
    n_docs, seed : int
        Of the generated collection, when neither ``index`` nor ``vectors`` is given.
    n_queries : int
        Of each kind, at most.
    ks : sequence of int
        Depths of the answers.
    index, vectors : str or None
        A lexmax index, or an NPZ of document vectors, to take the collection from.
    query_vectors : str or None
        A file of query vectors; None: generated ones, or documents drawn at random.
    n_passes : int
    engines : sequence of str or None
        Names from ``ENGINES``; lexmax is always among them. None: all that are installed.
    reorder : bool
        Put documents in the order of graph bisection, for every engine.
    n_threads : int
        Above 1: beside one thread, lexmax answers each query with so many, and all queries with so many.
    """

    n_docs: int = 100_000
    n_queries: int = 100
    seed: int = 0
    ks: Sequence[int] = (10, 100, 1000)
    index: str | None = None
    vectors: str | None = None
    query_vectors: str | None = None
    n_passes: int = 3
    engines: Sequence[str] | None = None
    reorder: bool = False
    n_threads: int = 1

    def __post_init__(self) -> None:
        if self.index and (self.vectors or self.reorder):
            raise ValueError("an index is taken as it is: give no vectors and no reordering beside it")
        if not self.ks or min(*self.ks, self.n_queries, self.n_passes, self.n_docs, self.n_threads) < 1:
            raise ValueError("documents, queries, passes, threads and every k must be at least 1")
        unknown = sorted(set(self.engines or ()) - set(ENGINES))
        if unknown:
            raise ValueError(f"unknown engine {', '.join(unknown)}; there are {', '.join(ENGINES)}")

    @property
    def recipe(self) -> Recipe:
        """Of the generated collection."""
        return Recipe(n_docs=self.n_docs, n_queries=self.n_queries, seed=self.seed)


def run_sparse_bench(bench: SparseBench, say: Say = lambda message: None) -> Report:
    """Build every index, time every engine and judge its answers.

    Parameters
    ----------
    bench : SparseBench
    say : callable
        Gets a line for each step, and for each engine that is left out.

    Raises
    ------
    DatasetError
        Malformed vectors, or no query with a term of the collection.
    RepresentationError
        The index has deleted documents.
    """
    names = _installed(bench.engines, say)
    with tempfile.TemporaryDirectory(prefix="lexmax-bench-") as folder:
        work = Path(folder)
        opened, facts, rows = _indexes(bench, names, work, say)
        queries, source = _queries(bench, rows)
        found = [row for kind, asked in queries.items() for row in _compare(bench, opened, rows, kind, asked, say)]
        for row in found:
            cost = facts.get(row["index"])
            row["build_s"] = None if cost is None else round(cost.build_s, 2)
            row["peak_mb"] = None if cost is None else round(cost.peak_mb, 1)
            row["bytes_per_posting"] = None if cost is None else round(cost.n_bytes / max(1, rows.n_postings), 2)
        return Report(rows=found, setup=_setup(bench, names, rows, queries, source))


def _installed(engines: Sequence[str] | None, say: Say) -> list[str]:
    names = [name for name in ENGINES if engines is None or name in engines or name == LEXMAX]
    for name in [*names]:
        package = ENGINES[name].package
        if package is not None and find_spec(package) is None:
            names.remove(name)
            say(f"{name} is left out: {MissingDependencyError(package, 'bench', 'comparing it')}")
    return names


def _indexes(
    bench: SparseBench, names: Sequence[str], work: Path, say: Say
) -> tuple[dict[str, Opened], dict[str, BuildFacts], Rows]:
    """Build and open every index; the rows are those of lexmax's, in its order."""
    facts: dict[str, BuildFacts] = {}
    folder = Path(bench.index) if bench.index else work / LEXMAX
    if bench.index is None:
        say(f"reading {bench.vectors}" if bench.vectors else f"generating {bench.n_docs:,} documents")
        (read_npz(bench.vectors) if bench.vectors else Rows(*generate_documents(bench.recipe))).save(work / "rows")
        facts[LEXMAX] = _build(LEXMAX, work, say, reorder=bench.reorder)
    read_index_rows(folder).save(work / "rows")
    rows = Rows.load(work / "rows")
    if not rows.n_postings:
        raise DatasetError("there is not a single posting to search", path=bench.index or bench.vectors)
    for name in names:
        if name != LEXMAX:
            facts[name] = _build(name, work, say)
    opened = {name: ENGINES[name].open(work / name) for name in names if name != LEXMAX}
    return {LEXMAX: open_lexmax(folder, n_threads=bench.n_threads), **opened}, facts, rows


def _build(name: str, work: Path, say: Say, *, reorder: bool = False) -> BuildFacts:
    say(f"building {name}")
    return build_apart(name, work / "rows", work / name, reorder=reorder)


def _queries(bench: SparseBench, rows: Rows) -> tuple[dict[str, list[Query]], str]:
    """Queries by kind, and where they come from."""
    frequencies = rows.document_frequencies()
    if bench.query_vectors:
        vocabulary: Vocabulary | None = None
        if bench.index:
            vocabulary = only_field(bench.index, SparseField, "sparse vectors").vocabulary
        records = read_query_vectors(bench.query_vectors, bench.n_queries)
        vectors, how = number_terms(records, vocabulary, frequencies)
        kinds, source = {"given": vectors}, f"{bench.query_vectors} ({how})"
    elif bench.index or bench.vectors:
        kinds, source = {"sampled": sample_queries(rows, bench.n_queries, bench.seed)}, "documents drawn at random"
    else:
        kinds, source = generate_queries(bench.recipe), "generated like the documents"
    return {kind: _known(kind, vectors, frequencies, bench.n_queries) for kind, vectors in kinds.items()}, source


def _known(kind: str, vectors: SparseVectors, frequencies: Int64s, n: int) -> list[Query]:
    queries = integer_queries(vectors, frequencies, n)
    if not queries:
        raise DatasetError(f"none of the {kind} queries has a term that a document has")
    return queries


def _compare(
    bench: SparseBench, opened: Mapping[str, Opened], rows: Rows, kind: str, queries: Sequence[Query], say: Say
) -> list[Row]:
    """Rows of one kind of queries: every k, every engine."""
    depth = max(bench.ks)
    say(f"scoring every document for {len(queries)} {kind} queries")
    common = Judge(rows, queries, depth)
    index_of, searches, prepared, judges = {}, {}, {}, {}
    for name, index in opened.items():
        rounded = [index.rounded(query) for query in queries]
        judge = common if all(map(_same, rounded, queries)) else Judge(rows, rounded, depth)
        asked = [index.prepare(query) for query in queries]
        for engine, search in index.searches.items():
            index_of[engine], searches[engine], prepared[engine], judges[engine] = name, search, asked, judge
    found: list[Row] = []
    for k in bench.ks:
        say(f"timing {len(searches)} engines at k = {k}, {kind} queries")
        streams = interleave(searches, prepared, k, bench.n_passes)
        group = []
        for engine, stream in streams.items():
            documents = opened[index_of[engine]].documents
            answers = [documents(answer) for answer in stream.answers]
            if engine in opened[index_of[engine]].threaded:
                stream = replace(stream, cpu_us=stream.wall_us)
            row = make_row(engine, k, stream, streams[LEXMAX], judges[engine].verdict(answers, k))
            row["batch_wall_us"] = _throughput(opened[index_of[engine]], engine, prepared[engine], k, bench)
            n_empty = sum(len(answer) == 0 for answer in answers)  # every query has a document, so these are failures
            group.append({"queries": kind, "index": index_of[engine], **row, "n_empty": n_empty})
        mark_best(group, FAMILIES)
        found += group
    return found


def _throughput(index: Opened, engine: str, asked: Sequence[Any], k: int, bench: SparseBench) -> float | None:
    """Microseconds on the wall a query when all are asked at once, best of the passes; for lexmax, and with threads."""
    if index.batch is None or bench.n_threads == 1 or (engine != LEXMAX and engine not in index.threaded):
        return None
    search, n_threads = index.batch(asked), index.threaded.get(engine, 1)
    best = min(timed(lambda: search(k, n_threads))[1]["wall_us"] for _ in range(bench.n_passes))
    return round(best / len(asked), 1)


def _same(a: Query, b: Query) -> bool:
    return np.array_equal(a.terms, b.terms) and np.array_equal(a.weights, b.weights)


def _setup(
    bench: SparseBench, names: Sequence[str], rows: Rows, queries: Mapping[str, Sequence[Query]], source: str
) -> dict[str, Any]:
    frequencies = rows.document_frequencies()
    return {
        "documents": bench.index or bench.vectors or f"generated: {asdict(bench.recipe)}",
        "n_docs": len(rows),
        "postings_per_doc": round(rows.n_postings / len(rows), 1),
        "reordered": bench.reorder,
        "queries": source,
        **{
            f"{kind}_queries": {
                "n": len(asked),
                "terms": round(float(np.mean([len(query.terms) for query in asked])), 1),
                "postings": round(float(np.mean([frequencies[query.terms].sum() for query in asked]))),
            }
            for kind, asked in queries.items()
        },
        "passes": bench.n_passes,
        "threads": 1 if bench.n_threads == 1 else f"1, and {bench.n_threads} on the wall in rows named so",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "python": sys.version.split()[0],
        "versions": {name: _version(name) for name in dict.fromkeys(d for n in names for d in ENGINES[n].distributions)},
    }


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"
