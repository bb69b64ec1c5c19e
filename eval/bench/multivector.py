"""`lexmax bench multivector`: engines for late interaction on the same token vectors and queries, judged by exact MaxSim.

Every engine builds its own index from the same 16-bit tokens. Times are of one query at a time in one thread, passes of the
engines interleaved; fast-plaid's are taken inside its worker process. A last pass lets several threads share all queries.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ...index.arrays import Floats, Int64s
from .report import Report
from .timing import Stream, interleave
from .token_engines import ENGINES, OpenedTokens, Oracle, TokenEngine
from .token_generator import TokenRecipe, generate_tokens
from .token_peers import FAST_PLAID, FastPlaidTokens, fast_plaid
from .token_report import Answers, TokenReport, make_rows
from .token_sets import TokenSet, read_index, read_npz, read_queries

Say = Callable[[str], None]
LEXMAX = "lexmax"
JUDGED_DOCS = 512


@dataclass(frozen=True, kw_only=True)
class MultiVectorBench:
    """What to compare.

    Attributes
    ----------
    n_docs, seed, dim : int
        Of the generated collection, when neither ``index`` nor ``npz`` is given.
    n_queries, n_slow_queries : int
        Queries, at most; engines that take long get the first ``n_slow_queries`` of them.
    ks : sequence of int
        Depths of the answers.
    index, queries : str or None
        A lexmax index of token vectors whose documents are decoded, and an NPZ of queries for it.
    npz : str or None
        A file as `token_sets.read_npz` takes it.
    n_passes, n_threads : int
        The best of the passes counts; threads of the last pass.
    engines : sequence of str or None
        Names; lexmax is always among them. None: all that are installed.
    fast_plaid_python : str or None
        The interpreter of an environment with fast-plaid.
    work : str or None
        Where indexes are kept, and taken from when they are there; None: nowhere.
    """

    n_docs: int = 10_000
    seed: int = 0
    dim: int = 128
    n_queries: int = 100
    n_slow_queries: int = 20
    ks: Sequence[int] = (10, 100)
    index: str | None = None
    queries: str | None = None
    npz: str | None = None
    n_passes: int = 3
    n_threads: int = 2
    engines: Sequence[str] | None = None
    fast_plaid_python: str | None = None
    work: str | None = None

    def __post_init__(self) -> None:
        numbers = (self.n_docs, self.n_queries, self.n_slow_queries, self.n_passes, self.n_threads, self.dim)
        if not self.ks or min(*self.ks, *numbers) < 1:
            raise ValueError("documents, queries, passes, threads and every k must be at least 1")
        if self.index and self.npz:
            raise ValueError("give an index or an NPZ, not both")
        if bool(self.index) != bool(self.queries):
            raise ValueError("an index needs a file of queries, and a file of queries an index")
        unknown = sorted(set(self.engines or ()) - {*ENGINES, FAST_PLAID})
        if unknown:
            raise ValueError(f"unknown engine {', '.join(unknown)}; there are {', '.join(ENGINES)}, {FAST_PLAID}")
        if FAST_PLAID in (self.engines or ()) and not self.fast_plaid_python:
            raise ValueError("fast-plaid needs an environment of its own: make peers, then --fast-plaid-python")

    @property
    def recipe(self) -> TokenRecipe:
        """Of the generated collection."""
        return TokenRecipe(n_docs=self.n_docs, n_queries=self.n_queries, seed=self.seed, dim=self.dim)

    @property
    def source(self) -> str:
        """Where the documents come from."""
        return self.index or self.npz or f"generated: {asdict(self.recipe)}"


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """Indexes by name, what each cost, and the versions of what answers."""

    indexes: Mapping[str, OpenedTokens]
    costs: Mapping[str, Mapping[str, float]]
    versions: Mapping[str, str]


def run_multivector_bench(bench: MultiVectorBench, say: Say = lambda message: None) -> Report:
    """Build every index, time every engine at all its settings and judge its answers.

    Parameters
    ----------
    bench : MultiVectorBench
    say : callable
        Gets a line for each step, and for each engine that is left out.

    Raises
    ------
    DatasetError
        A malformed file.
    RepresentationError
        The index holds no token vectors, or deleted documents.
    ValueError
        ``work`` holds indexes of other documents.
    """
    say(f"reading {bench.source}" if bench.index or bench.npz else f"generating {bench.n_docs:,} documents")
    tokens = _read(bench)
    with ExitStack() as stack:
        work = Path(bench.work or stack.enter_context(tempfile.TemporaryDirectory(prefix="lexmax-bench-")))
        tokens.save(work / "tokens")
        opened = _open(bench, tokens, work, say)
        for index in opened.indexes.values():
            if isinstance(index, FastPlaidTokens):
                stack.callback(index.close)
        say(f"scoring {len(tokens):,} documents for {len(tokens.queries)} queries")
        scores = exact_scores(tokens)
        rows = []
        for k in sorted({min(k, len(tokens)) for k in bench.ks}):
            say(f"timing at k = {k}: {', '.join(opened.indexes)}")
            rows += make_rows(_answers(bench, opened, tokens, k), scores, k, bench.n_threads)
        return TokenReport(rows=rows, setup=_setup(bench, tokens, opened.versions))


def exact_scores(tokens: TokenSet) -> Floats:
    """MaxSim of every query with every document, (n_queries, n_docs), in float32."""
    queries = tokens.queries
    scores = np.zeros((len(queries), len(tokens)), np.float32)
    for number in range(0, len(tokens), JUDGED_DOCS):
        documents = tokens.rows(number, min(number + JUDGED_DOCS, len(tokens)))
        filled = np.flatnonzero(np.diff(documents.offsets) > 0)
        if len(filled):
            products = documents.tokens @ queries.tokens.T
            maxima = np.maximum.reduceat(products, documents.offsets[filled], axis=0)  # (filled, all query tokens)
            for query in range(len(queries)):
                span = slice(int(queries.offsets[query]), int(queries.offsets[query + 1]))
                scores[query, number + filled] = maxima[:, span].sum(axis=1)
    return scores


def _read(bench: MultiVectorBench) -> TokenSet:
    if bench.npz:
        return read_npz(bench.npz, bench.n_queries)
    if bench.index and bench.queries:
        return read_index(bench.index, read_queries(bench.queries, bench.n_queries))
    return generate_tokens(bench.recipe)


def _engines(bench: MultiVectorBench, tokens: TokenSet, say: Say) -> dict[str, TokenEngine]:
    """Engines to compare; says why others are left out."""
    known = dict(ENGINES)
    if bench.fast_plaid_python:
        known[FAST_PLAID] = fast_plaid(bench.fast_plaid_python)
    elif bench.engines is None:
        say("fast-plaid is left out: make peers, and name its interpreter with --fast-plaid-python")
    chosen = {}
    for name, engine in known.items():
        if not (bench.engines is None or name in bench.engines or name == LEXMAX):
            continue
        if engine.package is not None and find_spec(engine.package) is None:
            say(f"{name} is left out: it is not installed (`pip install {' '.join(engine.distributions)}`)")
        elif engine.needs_token_ids and tokens.token_ids is None:
            say(f"{name} is left out: it needs the token ids, which these vectors do not have")
        else:
            chosen[name] = engine
    return chosen


def _open(bench: MultiVectorBench, tokens: TokenSet, work: Path, say: Say) -> _Opened:
    indexes: dict[str, OpenedTokens] = {}
    costs: dict[str, Mapping[str, float]] = {}
    versions: dict[str, str] = {}
    for name, engine in _engines(bench, tokens, say).items():
        index = work / name
        costs[name] = _build(bench.source, engine, work, name, say)
        n_bytes = sum(path.stat().st_size for path in index.rglob("*") if path.is_file())
        costs[name] = {**costs[name], "bytes_per_token": n_bytes / max(1, len(tokens.tokens))}
        indexes[name] = found = engine.open(work / "tokens", index)
        versions |= {package: _version(package) for package in engine.distributions}
        if isinstance(found, FastPlaidTokens):
            versions |= found.versions
        if name == LEXMAX:
            oracle = Oracle(work / "tokens", index)
            indexes |= dict.fromkeys(oracle.rows, oracle)
            costs |= dict.fromkeys(oracle.rows, costs[name])
    return _Opened(indexes=indexes, costs=costs, versions=versions)


def _build(source: str, engine: TokenEngine, work: Path, name: str, say: Say) -> Mapping[str, float]:
    """Build an index, or take one of the same source; returns seconds of CPU time and of the clock."""
    facts = work / f"{name}.json"
    if facts.is_file():
        found = json.loads(facts.read_text())
        if found["source"] != source:
            raise ValueError(f"{facts} is of {found['source']}, not of {source}: choose another folder")
        say(f"taking {name} from {work}")
    else:
        say(f"building {name}")
        (work / name).mkdir(parents=True, exist_ok=True)
        found = {"source": source, **engine.build(work / "tokens", work / name)}
        facts.write_text(json.dumps(found))
    return {key: found[key] for key in ("build_cpu_s", "build_wall_s")}


def _answers(bench: MultiVectorBench, opened: _Opened, tokens: TokenSet, k: int) -> list[Answers]:
    """Time every row of every index at one k."""
    searches: dict[str, Callable[[Any, int], Int64s]] = {}
    prepared: dict[str, list[Any]] = {}
    for index in opened.indexes.values():
        n_asked = min(len(tokens.queries), bench.n_slow_queries if index.slow else bench.n_queries)
        asked = [index.prepare(number, tokens.queries.row(number)) for number in range(n_asked)]
        for row in index.rows:
            searches[row], prepared[row] = partial(index.search, row), asked
    streams = interleave(searches, prepared, k, bench.n_passes)
    answers = []
    for name, index in opened.indexes.items():
        for row, curve in index.rows.items():
            stream, asked = streams[row], prepared[row]
            if isinstance(index, FastPlaidTokens):
                cpu, wall = index.take_times(row, len(asked))
                stream = Stream(cpu, wall, stream.answers, 0.0)
            together = None
            if bench.n_threads > 1:
                index.search_all(row, asked[: 2 * bench.n_threads], k, bench.n_threads)  # threads start, and touch their memory
                together = index.search_all(row, asked, k, bench.n_threads)
            answers.append(Answers(row, name, curve, stream, together, opened.costs[name]))
    return answers


def _setup(bench: MultiVectorBench, tokens: TokenSet, versions: Mapping[str, str]) -> dict[str, Any]:
    return {
        "documents": bench.source,
        "n_docs": len(tokens),
        "n_tokens": len(tokens.tokens),
        "dim": tokens.queries.dim,
        "queries": len(tokens.queries),
        "query_tokens": round(tokens.queries.n_tokens / max(1, len(tokens.queries)), 1),
        "passes": bench.n_passes,
        "threads": f"1, and {bench.n_threads} that share all queries",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "python": sys.version.split()[0],
        "versions": dict(versions),
    }


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"
