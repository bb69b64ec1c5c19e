"""`lexmax bench ssd`: reranking from disk beside the same from memory, on the same candidates, interleaved query by query.

Token vectors are generated; the field's own centroids find candidates. Before each query the pages of the store are
dropped, so whatever is not in the process's memory is read. A child process for each place tells what it holds in memory.
With a memory cap, whatever reads is in a memory group, and the twin that has all in memory outside of it.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from ...index.arrays import Floats
from ...index.collection import Collection, NewField
from ...index.errors import StorageError
from ...index.manifest import EncoderRecord
from ...index.multivector.config import MultiVectorConfig
from ...index.multivector.field import TokenField
from ...index.multivector.placement import PLACES
from ...index.representations.multivectors import MultiVectors
from ...index.snapshot import Snapshot
from ...retrieval.hits import ReadCounts
from ...retrieval.searchers.centroid import CentroidOptions, CentroidSearcher
from ...retrieval.searchers.common import parts
from ..tables import markdown_table
from .fields import without_text
from .memory_cap import memory_cap
from .report import Report, Row
from .ssd_worker import Asked, Worker, resident_mb, worker
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
    memory_cap : int or None
        Bytes that the processes which read may have, with what the system caches for them; None: no cap.
    work : str or None
        Where the index is kept, and taken from when it is there; None: nowhere.
    """

    n_docs: int = 200_000
    n_queries: int = 40
    seed: int = 0
    dim: int = 128
    widths: tuple[int, int] = (60, 180)
    nbits: int = 8
    n_candidates: Sequence[int] = (1000, 128)
    places: Sequence[str] | None = None
    n_clients: Sequence[int] = (1, 8)
    n_passes: int = 2
    memory_cap: int | None = None
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
    ValueError
        The folder has an index of other documents.
    """
    with ExitStack() as stack:
        folder = Path(bench.work or stack.enter_context(TemporaryDirectory(prefix="lexmax-bench-")))
        path = _built(bench, folder, say)
        queries = MultiVectors.of(list(np.load(folder / "queries.npy", allow_pickle=False))[: bench.n_queries], bench.dim)
        asked = {n: _asked(path, queries, n) for n in bench.n_candidates}
        group = stack.enter_context(memory_cap(bench.memory_cap))
        wanted = PLACES[2:] if bench.places is None else bench.places
        twin = stack.enter_context(worker(path, [MEMORY], asked, None))
        reading = stack.enter_context(worker(path, wanted, asked, group))
        for place, reason in reading.left_out.items():
            if bench.places is not None:
                raise StorageError(reason)
            say(f"{place} is left out: {reason}")
        workers = {MEMORY: twin} | {place: reading for place in wanted if place not in reading.left_out}
        rows = []
        for n in bench.n_candidates:
            say(f"timing {n} candidates: {', '.join(workers)}")
            times = _interleaved(bench, workers, asked[n], n)
            rates = {place: _rates(bench, each, place, n) for place, each in workers.items()}
            memory = {place: resident_mb(path, place, asked[n], None if place == MEMORY else group) for place in workers}
            rows += [_row(n, place, times, asked[n], rates[place], memory[place]) for place in workers]
        return SsdReport(rows=rows, setup=_setup(bench, path, queries))


def _setup(bench: SsdBench, path: Path, queries: MultiVectors) -> dict[str, object]:
    field = Snapshot.open(path).only_field(TokenField, "token vectors")
    n_bytes = sum(field.places().values())
    cap = "none"
    if bench.memory_cap is not None:
        times = f"records are {n_bytes / bench.memory_cap:.1f} times that"
        cap = f"{bench.memory_cap:,} bytes for what reads, the page cache included; {times}"
    return {
        "documents": f"{field.n_docs:,}, generated, of {bench.widths[0]} to {bench.widths[1]} tokens; seed {bench.seed}",
        "tokens per document": round(field.n_tokens / field.n_docs, 1), "bits": bench.nbits,
        "records": f"{n_bytes:,} bytes in {len(field.segments)} segments", "memory cap": cap,
        "directory": f"{sum(s.part.store.directory_bytes for s in field.segments) / field.n_docs:.1f} bytes a document",
        "queries": f"{len(queries)}, {np.diff(queries.offsets).mean():.0f} tokens each", "passes": bench.n_passes,
        "clients": list(bench.n_clients), "threads": "1 a client",
        "cold": "pages of the store are dropped before each query, and before throughput is measured",
        "memory": "resident memory of a process that answers all queries, less that before it opens the index",
        "disk": _disk(field),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
    }  # fmt: skip


def _disk(field: TokenField) -> str:
    """What fio reads from the largest file at random, in reads of about a record."""
    if shutil.which("fio") is None:
        return "fio is not installed"
    store = max((segment.part.store for segment in field.segments), key=lambda store: store.records.nbytes)
    size = max(4096, round(store.records.nbytes / max(1, len(store.slots)) / 4096) * 4096)
    program = [
        "fio", "--name=lexmax", f"--filename={store.file.path}", "--readonly", "--rw=randread", f"--bs={size}", "--direct=1",
        "--ioengine=libaio", "--iodepth=256", "--runtime=3", "--time_based", "--output-format=json",
    ]  # fmt: skip
    done = subprocess.run(program, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        return f"fio failed: {done.stderr.strip()[:200]}"
    read = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]["read"]
    return f"fio: {read['iops']:,.0f} random reads of {size:,} bytes a second, {read['bw_bytes'] / 1e6:,.0f} MB/s"


def _built(bench: SsdBench, folder: Path, say: Say) -> Path:
    """Generate and index documents, or take the index that is there.

    Raises
    ------
    ValueError
        That one has other documents.
    """
    path = folder / "index"
    if path.exists():
        say(f"taking the index from {folder}")
        field = Snapshot.open(path).only_field(TokenField, "token vectors")
        wanted, found = (bench.n_docs, bench.config), (field.n_docs, field.config)
        if found != wanted:
            raise ValueError(f"{path} has (documents, tokens) {found}, and {wanted} are asked for: name another folder")
        return path
    say(f"generating and indexing {bench.n_docs:,} documents")
    folder.mkdir(parents=True, exist_ok=True)
    queries: list[Floats] = []
    made = NewField(encoder=ENCODER, representation="tokens", options=asdict(bench.config))
    with Collection.create(path, {"tokens": made}) as collection:
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


def _asked(path: Path, queries: MultiVectors, n: int) -> Asked:
    """The n candidates of each query, by the field's centroids and codes."""
    field = Snapshot.open(path).only_field(TokenField, "token vectors")
    hits = CentroidSearcher(field).search(queries, n, options=CentroidOptions(n_gathered=2 * n, n_candidates=n, n_exact=0))
    candidates = [np.random.default_rng(i).permutation(hits.query(i)[0]) for i in range(len(queries))]
    n_bytes = 0
    for numbers in candidates:
        for segment, positions, _ in parts(field.segments, np.sort(numbers)):
            n_bytes += int(segment.part.store.places(positions).n_tokens.sum()) * segment.part.store.token_bytes
    return Asked(queries, candidates, n_bytes)


def _interleaved(bench: SsdBench, workers: Mapping[str, Worker], asked: Asked, n: int) -> dict[str, _Times]:
    """Time every place on one query after another, in an order by chance: what ran before leaves caches cold."""
    shape = (bench.n_passes, len(asked.candidates))
    times = {place: _Times(np.zeros(shape), np.zeros(shape), [], ReadCounts()) for place in workers}
    rng, places = np.random.default_rng(bench.seed), list(workers)
    for number in range(len(asked.candidates)):
        for i in range(bench.n_passes):
            for place in (places[each] for each in rng.permutation(len(places))):
                found = workers[place].score(place, n, number)
                times[place].wall[i, number], times[place].cpu[i, number] = found.wall, found.cpu
                if i == 0:
                    times[place].scores.append(found.scores)
                    times[place].reads.add(found.reads)
    for place, timed in times.items():
        if timed.scores != times[MEMORY].scores:
            raise RuntimeError(f"scores from {place} differ from those from memory")
    return times


def _rates(bench: SsdBench, process: Worker, place: str, n: int) -> dict[str, float]:
    """Queries a second, by the number of clients that ask at once."""
    return {str(n_clients): round(process.rate(place, n, n_clients), 1) for n_clients in bench.n_clients}


def _row(n: int, place: str, times: Mapping[str, _Times], asked: Asked, rates: dict[str, float], memory_mb: float) -> Row:
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


def plot_ssd(report: Report, path: Path | str) -> None:
    """Write a picture: p50 and p90 of each place, a panel for each number of candidates."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    depths = list(dict.fromkeys(row["n_candidates"] for row in report.rows))
    figure = Figure(figsize=(6.0 * len(depths), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for n, axes in zip(depths, figure.subplots(1, len(depths), squeeze=False)[0], strict=True):
        rows = [row for row in report.rows if row["n_candidates"] == n][::-1]
        places = [f"{row['place']}, {row['memory_mb']:.0f} MB" for row in rows]
        axes.barh(places, [row["p90_ms"] for row in rows], color="C0", alpha=0.35, label="p90")
        axes.barh(places, [row["p50_ms"] for row in rows], color="C0", label="p50")
        axes.set_xscale("log")
        axes.set_xlabel("ms a query", fontsize=9)
        axes.set_title(f"{n} candidates", fontsize=10)
        axes.grid(alpha=0.3, axis="x", which="both")
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)
