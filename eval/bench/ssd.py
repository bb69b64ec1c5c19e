"""`lexmax bench ssd`: reranking from disk beside the same from memory, on the same candidates, interleaved query by query.

Token vectors are generated; the field's own centroids find candidates. Before each query the pages of the store are
dropped, so whatever is not in the process's memory is read. A child process for each place tells what it holds in memory.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from ...index.arrays import Floats, Int32s
from ...index.collection import Collection, NewField
from ...index.errors import StorageError
from ...index.manifest import EncoderRecord
from ...index.multivector.config import MultiVectorConfig
from ...index.multivector.field import TokenField
from ...index.multivector.placement import PLACES, TokenStorage
from ...index.representations.multivectors import MultiVectors
from ...index.snapshot import Snapshot
from ...retrieval.hits import ReadCounts, Scores
from ...retrieval.searchers.centroid import CentroidOptions, CentroidSearcher
from ...retrieval.searchers.common import parts, single
from ..tables import markdown_table
from .fields import without_text
from .report import Report, Row
from .token_generator import TokenRecipe, generate_tokens

ENCODER = EncoderRecord(kind="colbert", fingerprint="colbert:bench", settings={})
MEMORY = "memory"
PART_DOCS = 20_000
"""Documents that are generated at once."""
Say = Callable[[str], None]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SsdBench:
    """What to time.

    Attributes
    ----------
    n_docs, n_queries, seed, dim : int
        Of what is generated.
    widths : (int, int)
        Fewest and most tokens of a document.
    nbits : int
        Of the records: 8, or fewer.
    n_candidates : sequence of int
        Documents that are reranked.
    places : sequence of str or None
        Places beside memory; None: all that work here.
    n_clients : sequence of int
        Threads that ask at once, for throughput.
    n_passes : int
        The best of these counts for each query.
    work : str or None
        Where the index is kept, and taken from when it is there; None: nowhere.
    """

    n_docs: int = 100_000
    n_queries: int = 40
    seed: int = 0
    dim: int = 128
    widths: tuple[int, int] = (60, 180)
    nbits: int = 8
    n_candidates: Sequence[int] = (1000, 128)
    places: Sequence[str] | None = None
    n_clients: Sequence[int] = (1, 8)
    n_passes: int = 2
    work: str | None = None

    def __post_init__(self) -> None:
        if min(self.n_docs, self.n_queries, self.n_passes, *self.n_candidates, *self.n_clients) < 1:
            raise ValueError("documents, queries, passes, candidates and clients must be at least 1")
        unknown = [place for place in self.places or () if place not in PLACES or place in ("auto", MEMORY)]
        if unknown:
            raise ValueError(f"unknown place {unknown[0]!r}: there are {', '.join(PLACES[2:])}")

    @property
    def config(self) -> MultiVectorConfig:
        """How tokens are kept."""
        return MultiVectorConfig(
            dim=self.dim, nbits=min(self.nbits, 2) if self.nbits == 8 else self.nbits, exact=self.nbits == 8
        )


class SsdReport(Report):
    """One row for each number of candidates and place; ``ratio`` is a place's time by memory's, the median over queries."""

    def to_markdown(self) -> str:
        """Return the rows as a table and the setup as a list."""
        rates = [f"{n} clients, queries/s" for n in self.setup["clients"]]
        columns = ["p50 ms", "p90", "p99", "× memory", "CPU × memory", "reads per candidate", "bytes × records"]
        table = [["candidates", "place", *columns, *rates, "memory MB"]]
        for row in self.rows:
            times = [f"{row[name]:.2f}" for name in ("p50_ms", "p90_ms", "p99_ms", "ratio", "cpu_ratio")]
            reads = [f"{row['reads_per_candidate']:.2f}", f"{row['bytes_ratio']:.2f}"]
            rates = [f"{rate:.0f}" for rate in row["queries_per_s"].values()]
            table.append([str(row["n_candidates"]), row["place"], *times, *reads, *rates, f"{row['memory_mb']:.0f}"])
        return "\n".join([*markdown_table(table), "", *(f"- {name}: {value}" for name, value in self.setup.items())]) + "\n"


@dataclass(frozen=True, eq=False)
class _Asked:
    """Queries and their candidates, and the bytes of those documents' records."""

    queries: MultiVectors
    candidates: list[Int32s]
    n_bytes: int


@dataclass(eq=False)
class _Times:
    """Of one place: wall and CPU seconds (n_passes, n_queries), scores of the first pass, and what it read."""

    wall: Doubles
    cpu: Doubles
    scores: list[bytes]
    reads: ReadCounts


def run_ssd_bench(bench: SsdBench, say: Say = lambda message: None) -> SsdReport:
    """Build the index, and time reranking from every place.

    Raises
    ------
    StorageError
        A place that was asked for does not work here.
    RuntimeError
        Scores of a place differ from those of memory.
    """
    with ExitStack() as stack:
        folder = Path(bench.work or stack.enter_context(TemporaryDirectory(prefix="lexmax-bench-")))
        path = _built(bench, folder, say)
        queries = MultiVectors.of(list(np.load(folder / "queries.npy", allow_pickle=False)), bench.dim)
        searchers = _searchers(path, bench.places, say)
        rows = []
        for n in bench.n_candidates:
            asked = _asked(path, queries, n)
            say(f"timing {n} candidates: {', '.join(searchers)}")
            times = _interleaved(bench, searchers, asked)
            rates = {place: _rates(bench, searchers, place, asked) for place in searchers}
            memory = {place: _memory(path, place, asked) for place in searchers}
            rows += [_row(n, place, times, asked, rates[place], memory[place]) for place in searchers]
        field = searchers[MEMORY].field
        setup = {
            "documents": f"{field.n_docs:,}, generated, of {bench.widths[0]} to {bench.widths[1]} tokens; seed {bench.seed}",
            "tokens per document": round(field.n_tokens / field.n_docs, 1), "bits": bench.nbits,
            "records": f"{sum(field.places().values()):,} bytes",
            "directory": f"{sum(s.part.store.directory_bytes for s in field.segments) / field.n_docs:.1f} bytes a document",
            "queries": f"{bench.n_queries}, {np.diff(queries.offsets).mean():.0f} tokens each", "passes": bench.n_passes,
            "clients": list(bench.n_clients), "threads": "1 a client",
            "cold": "pages of the store are dropped before each query, and before throughput is measured",
            "memory": "resident memory of a process that answers all queries, less that before it opens the index",
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        }  # fmt: skip
        return SsdReport(rows=rows, setup=setup)


def _built(bench: SsdBench, folder: Path, say: Say) -> Path:
    """Generate and index documents, or take the index that is there."""
    path = folder / "index"
    if path.exists():
        say(f"taking the index from {folder}")
        return path
    say(f"generating and indexing {bench.n_docs:,} documents")
    folder.mkdir(parents=True, exist_ok=True)
    queries: list[Floats] = []
    field = NewField(encoder=ENCODER, representation="tokens", options=asdict(bench.config))
    with Collection.create(path, {"tokens": field}) as collection:
        for recipe, first in _parts(bench):
            tokens = generate_tokens(recipe)
            queries += [tokens.queries.row(i) for i in range(len(tokens.queries))]
            collection.add(without_text(first, first + len(tokens)), {"tokens": tokens.rows(0, len(tokens))})
        collection.commit()
    np.save(folder / "queries.npy", np.stack(queries[: bench.n_queries]))
    return path


def _parts(bench: SsdBench) -> Iterator[tuple[TokenRecipe, int]]:
    """Parts of the collection, few enough documents each to be in memory, and the number of each part's first document."""
    n_parts = -(-bench.n_docs // PART_DOCS)
    for part in range(n_parts):
        first = part * PART_DOCS
        n_docs = min(PART_DOCS, bench.n_docs - first)
        recipe = TokenRecipe(
            n_docs=n_docs, n_queries=-(-bench.n_queries // n_parts), seed=bench.seed, dim=bench.dim, widths=bench.widths,
            part=part,
        )  # fmt: skip
        yield recipe, first


def _searchers(path: Path, places: Sequence[str] | None, say: Say) -> dict[str, CentroidSearcher]:
    """A searcher of the field in each place, memory first."""
    found = {}
    for place in (MEMORY, *(PLACES[2:] if places is None else places)):
        try:
            field = Snapshot.open(path, storage=TokenStorage(place=place)).only_field(TokenField, "token vectors")
        except StorageError as failure:
            if places is not None:
                raise
            say(f"{place} is left out: {failure}")
            continue
        found[place] = CentroidSearcher(field)
        found[place].warm()
    return found


def _asked(path: Path, queries: MultiVectors, n: int) -> _Asked:
    """The n candidates of each query, by the field's centroids and codes."""
    field = Snapshot.open(path).only_field(TokenField, "token vectors")
    hits = CentroidSearcher(field).search(queries, n, options=CentroidOptions(n_gathered=2 * n, n_candidates=n, n_exact=0))
    candidates = [np.random.default_rng(i).permutation(hits.query(i)[0]) for i in range(len(queries))]
    n_bytes = 0
    for numbers in candidates:
        for segment, positions, _ in parts(field.segments, np.sort(numbers)):
            n_bytes += int(segment.part.store.places(positions).n_tokens.sum()) * segment.part.store.token_bytes
    return _Asked(queries, candidates, n_bytes)


def _score(searcher: CentroidSearcher, asked: _Asked, number: int) -> Scores:
    return searcher.score(single(asked.queries, number), [asked.candidates[number]])


def _drop(searchers: Iterable[CentroidSearcher]) -> None:
    """Take the records out of the page cache, which keeps pages that anybody has mapped."""
    files = [segment.part.store.file for searcher in searchers for segment in searcher.field.segments]
    for file in files:
        file.release()
    for path in {file.path for file in files}:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _interleaved(bench: SsdBench, searchers: Mapping[str, CentroidSearcher], asked: _Asked) -> dict[str, _Times]:
    """Time every place on one query after another."""
    shape = (bench.n_passes, len(asked.candidates))
    times = {place: _Times(np.zeros(shape), np.zeros(shape), [], ReadCounts()) for place in searchers}
    for number in range(len(asked.candidates)):
        for i in range(bench.n_passes):
            for place, searcher in searchers.items():
                _drop(searchers.values())
                wall, cpu = time.perf_counter(), time.process_time()
                scores = _score(searcher, asked, number)
                times[place].cpu[i, number] = time.process_time() - cpu
                times[place].wall[i, number] = time.perf_counter() - wall
                if i == 0:
                    times[place].scores.append(scores[0].tobytes())
                    times[place].reads.add(scores.reads)
    for place, each in times.items():
        if each.scores != times[MEMORY].scores:
            raise RuntimeError(f"scores from {place} differ from those from memory")
    return times


def _rates(bench: SsdBench, searchers: Mapping[str, CentroidSearcher], place: str, asked: _Asked) -> dict[str, float]:
    """Queries a second, by the number of clients that ask at once."""
    rates = {}
    for n_clients in bench.n_clients:
        _drop(searchers.values())
        with ThreadPoolExecutor(n_clients) as pool:
            start = time.perf_counter()
            list(pool.map(lambda number: _score(searchers[place], asked, number), range(len(asked.candidates))))
            rates[str(n_clients)] = round(len(asked.candidates) / (time.perf_counter() - start), 1)
    return rates


def _memory(path: Path, place: str, asked: _Asked) -> float:
    """Megabytes that a process of its own holds more after all queries than before it opened the index."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_resident, (path, place, asked))


def _resident(path: Path, place: str, asked: _Asked) -> float:
    mapped = Snapshot.open(path).only_field(TokenField, "token vectors")
    CentroidSearcher(mapped).warm()  # code and kernels are no memory of the index
    before = _resident_mb()
    searcher = CentroidSearcher(
        Snapshot.open(path, storage=TokenStorage(place=place)).only_field(TokenField, "token vectors")
    )  # fmt: skip
    for number in range(len(asked.candidates)):
        _score(searcher, asked, number)
    return _resident_mb() - before


def _resident_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1000


def _row(n: int, place: str, times: Mapping[str, _Times], asked: _Asked, rates: dict[str, float], memory_mb: float) -> Row:
    wall, cpu = times[place].wall.min(axis=0), times[place].cpu.min(axis=0)
    percentiles = {f"p{q}_ms": round(1000 * float(np.percentile(wall, q)), 3) for q in (50, 90, 99)}
    reads = times[place].reads
    return {
        "n_candidates": n, "place": place, **percentiles,
        "ratio": round(float(np.median(wall / times[MEMORY].wall.min(axis=0))), 3),
        "cpu_ms": round(1000 * float(np.median(cpu)), 3),
        "cpu_ratio": round(float(np.median(cpu / times[MEMORY].cpu.min(axis=0))), 3),
        "reads_per_candidate": round(reads.n_reads / max(1, reads.n_records), 3),
        "bytes_ratio": round(reads.n_bytes / max(1, asked.n_bytes), 3),
        "queries_per_s": rates, "memory_mb": round(memory_mb, 1),
    }  # fmt: skip
