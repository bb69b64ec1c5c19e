"""`lexmax bench pipeline`: what a search expression costs beyond its stages, in one interleaved run.

The stages are the first-stage search of every field at the depth that the expression takes from it, and the scoring of a
reranker's candidates by each of its fields. Their sum is taken query by query and compared with the whole expression.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...index.arrays import Int32s
from ...index.collection import Collection, NewField
from ...index.errors import DatasetError
from ...index.representations import SparseVectors, Vectors
from ...index.snapshot import Snapshot
from ...retrieval.fields import index_encoder
from ...retrieval.pipelines.expression import Search, parse
from ...retrieval.pipelines.pipeline import DEPTH, Pipeline, depth_of, field_alone
from ...retrieval.searchers.registry import FieldSearcher, field_searcher
from ..tables import markdown_table
from .engines import ADD_DOCS, ENCODER
from .fields import without_text
from .generator import Recipe, generate_documents, generate_queries
from .report import Report, Row
from .timing import Search as Timed
from .timing import interleave
from .workload import Rows

GENERATED_SEARCH = "(a + b) > 0.5*a + 0.5*b"
Ready = Mapping[str, Vectors]


@dataclass(frozen=True, kw_only=True)
class PipelineBench:
    """What to time.

    Attributes
    ----------
    search : str or None
        None: the default of the index, or `GENERATED_SEARCH` over the two fields of a generated index.
    index, queries : str or None
        A lexmax index and a text file of queries, one per line; None: a generated index with sparse fields ``a`` and ``b``.
    n_docs, n_queries, seed : int
        Of the generated index; ``n_queries`` also limits the queries of a file.
    ks : sequence of int
    n_passes : int
    """

    search: str | None = None
    index: str | None = None
    queries: str | None = None
    n_docs: int = 20_000
    n_queries: int = 100
    seed: int = 0
    ks: Sequence[int] = (10,)
    n_passes: int = 3

    def __post_init__(self) -> None:
        if not self.ks or min(*self.ks, self.n_docs, self.n_queries, self.n_passes) < 1:
            raise ValueError("documents, queries, passes and every k must be at least 1")
        if bool(self.index) != bool(self.queries):
            raise ValueError("an index needs a file of queries, and a file of queries an index")


class PipelineReport(Report):
    """Row ``lexmax`` is the whole expression, ``lexmax-stages`` the sum of its stages query by query, the others are stages.

    ``overhead_p50_us`` is the p50 of the whole minus the p50 of that sum, on the row ``lexmax`` alone. Recalls are those
    against the expression's own answers: 1 for it, None for stages, which answer something else.
    """

    def to_markdown(self) -> str:
        """Return the rows as a table and the setup as a list."""
        table = [["k", "stage", "p50 µs", "p99 µs", "overhead p50 µs"]]
        for row in self.rows:
            overhead = "" if row["overhead_p50_us"] is None else f"{row['overhead_p50_us']:.1f}"
            table.append([str(row["k"]), row["stage"], f"{row['p50_us']:.1f}", f"{row['p99_us']:.1f}", overhead])
        return "\n".join([*markdown_table(table), "", *(f"- {name}: {value}" for name, value in self.setup.items())]) + "\n"


def run_pipeline_bench(bench: PipelineBench, say: Callable[[str], None] = lambda message: None) -> PipelineReport:
    """Time an expression and its stages, query by query, passes interleaved, one thread.

    Raises
    ------
    DatasetError
        The file of queries is empty.
    RepresentationError
        The expression names a field that the index does not have.
    """
    with ExitStack() as stack:
        if bench.index and bench.queries:
            snapshot, text = Snapshot.open(bench.index), bench.search
            search = parse(text or snapshot.manifest.search or next(iter(snapshot.fields)))
            searchers, queries = _opened(snapshot, search, _read(bench.queries, bench.n_queries))
        else:
            say(f"generating {bench.n_docs:,} documents")
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lexmax-bench-"))) / "index"
            queries_by_field = _generate(bench, folder)
            snapshot, search = Snapshot.open(folder), parse(bench.search or GENERATED_SEARCH)
            searchers = {name: field_searcher(snapshot.field(name), None) for name in search.fields}
            queries = _each({name: searchers[name].vectors(queries_by_field[name]) for name in search.fields})
        pipeline = Pipeline(search, searchers)
        rows = []
        for k in bench.ks:
            say(f"timing {search} at k = {k}")
            rows += _time(pipeline, queries, k, bench.n_passes)
        return PipelineReport(rows=rows, setup=_setup(bench, snapshot, search, len(queries)))


def _time(pipeline: Pipeline, queries: Sequence[Ready], k: int, n_passes: int) -> list[Row]:
    stages = _stages(pipeline, queries, k)
    searches: dict[str, Timed] = {"lexmax": lambda query, k: pipeline.run(query, k)}
    prepared: dict[str, Sequence[Any]] = {"lexmax": queries}
    for name, (stage, asked) in stages.items():
        searches[name], prepared[name] = stage, asked
    streams = interleave(searches, prepared, k, n_passes)
    whole = streams["lexmax"].wall_us
    total = np.sum([streams[name].wall_us for name in stages], axis=0)
    overhead = round(float(np.percentile(whole, 50) - np.percentile(total, 50)), 1)
    rows = [_row("lexmax", str(pipeline.search), k, whole, overhead), _row("lexmax-stages", "sum of stages", k, total, None)]
    return [*rows, *(_row(f"lexmax-{name}", name, k, streams[name].wall_us, None) for name in stages)]


def _row(engine: str, stage: str, k: int, wall_us: npt.NDArray[np.float64], overhead: float | None) -> Row:
    return {
        "engine": engine, "stage": stage, "k": k,
        "p50_us": round(float(np.percentile(wall_us, 50)), 1), "p99_us": round(float(np.percentile(wall_us, 99)), 1),
        "recall@10": 1.0 if overhead is not None else None, "overhead_p50_us": overhead,
    }  # fmt: skip


def _stages(pipeline: Pipeline, queries: Sequence[Ready], k: int) -> dict[str, tuple[Timed, list[Any]]]:
    """Return every distinct stage with what it is asked: a first stage its queries, a scoring its queries and candidates."""
    stages: dict[str, tuple[Timed, list[Any]]] = {}
    for name, depth in dict.fromkeys(_first_stages(pipeline.search, k, top=True)):
        stages[f"{name}:{depth}"] = (_searching(pipeline.searchers[name], depth), [query[name] for query in queries])
    for number, (left, n_best, names) in enumerate(_scorings(pipeline.search), 1):
        candidates = [_candidates(pipeline, query, left, k)[:n_best] for query in queries]
        for name in names:
            asked = [(query[name], [found]) for query, found in zip(queries, candidates, strict=True)]
            stages[f"> {name} ({number})"] = (_scoring(pipeline.searchers[name]), asked)
    return stages


def _first_stages(search: Search, k: int, *, top: bool) -> list[tuple[str, int]]:
    """(field, depth) of every first stage, as the executor takes them."""
    alone = field_alone(search) if top else None
    if alone is not None:
        term, name = alone
        return [(name, min(k, term.depth or k))]
    found = []
    for term in search.first.terms:
        if isinstance(term.source, str):
            found.append((term.source, depth_of(term, k)))
        else:
            found += _first_stages(term.source, k, top=False)
    return found


def _scorings(search: Search) -> list[tuple[Search, int | None, tuple[str, ...]]]:
    """(what is before it, depth, fields) of every reranker, inner ones first."""
    inner = [term.source for term in search.first.terms if not isinstance(term.source, str)]
    found = [each for source in inner for each in _scorings(source)]
    for number, reranker in enumerate(search.rerankers):
        names = tuple(str(term.source) for term in reranker.fused.terms)
        found.append((Search(search.first, search.rerankers[:number]), reranker.depth, names))
    return found


def _candidates(pipeline: Pipeline, query: Ready, left: Search, k: int) -> Int32s:
    """Documents that a reranker gets: all that its left side found, which the traced stage holds uncut."""
    term = left.first.terms[0]
    depth = depth_of(term, k)
    only = len(left.first.terms) == 1 and not left.rerankers
    answer = Pipeline(left, pipeline.searchers).run(
        {name: query[name] for name in left.fields}, depth if only else max(DEPTH, k), trace=True
    )
    found = answer.trace[-1].rankings[0].doc_nums
    return found[:depth] if only else found


def _searching(searcher: FieldSearcher, depth: int) -> Timed:
    return lambda queries, k: searcher.search(queries, depth)


def _scoring(searcher: FieldSearcher) -> Timed:
    return lambda asked, k: searcher.score(*asked)


def _generate(bench: PipelineBench, folder: Path) -> dict[str, SparseVectors]:
    """Build an index of two sparse fields over the same documents; returns queries by field."""
    recipes = {
        name: Recipe(n_docs=bench.n_docs, n_queries=bench.n_queries, seed=bench.seed + number)
        for number, name in enumerate("ab")
    }
    made = {name: Rows(*generate_documents(recipe)) for name, recipe in recipes.items()}
    with Collection.create(folder, {name: NewField(encoder=ENCODER) for name in made}, search=GENERATED_SEARCH) as collection:
        for first in range(0, bench.n_docs, ADD_DOCS):
            last = min(first + ADD_DOCS, bench.n_docs)
            vectors = {name: rows.vectors(first, last) for name, rows in made.items()}
            collection.add(without_text(first, last), vectors)
        collection.commit()
    return {name: generate_queries(recipe)["expanded"] for name, recipe in recipes.items()}


def _opened(snapshot: Snapshot, search: Search, texts: list[str]) -> tuple[dict[str, FieldSearcher], list[Ready]]:
    """Searchers of the expression's fields, and the queries as they take them."""
    searchers, ready = {}, {}
    for name in search.fields:
        field = snapshot.field(name)
        encoder = index_encoder(field.record)
        searchers[name] = field_searcher(field, encoder)
        ready[name] = searchers[name].vectors(encoder.encode_queries(texts))
    return searchers, _each(ready)


def _each(vectors: Mapping[str, Vectors]) -> list[Ready]:
    """One mapping of field to vectors for each query."""
    n_queries = len(next(iter(vectors.values())))
    return [{name: rows.select(np.array([i])) for name, rows in vectors.items()} for i in range(n_queries)]


def _read(path: str, n_queries: int) -> list[str]:
    texts = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    if not texts:
        raise DatasetError("there is no query", path=path)
    return texts[:n_queries]


def _setup(bench: PipelineBench, snapshot: Snapshot, search: Search, n_queries: int) -> dict[str, Any]:
    return {
        "documents": bench.index or f"generated, seed {bench.seed}", "n_docs": snapshot.n_docs, "search": str(search),
        "queries": n_queries, "passes": bench.n_passes, "threads": 1, "times": "on the wall, from vectors to hits",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
    }  # fmt: skip
