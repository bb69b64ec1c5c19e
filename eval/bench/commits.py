"""`lexmax bench commits`: what a commit costs in indexes of different sizes, and the memory of writing and merging.

Every size is measured in a process of its own, whose documents are generated term counts of a BM25 field::

    python -m lexmax.eval.bench.commits JSON

A commit is timed from opening the collection for writing to closing it, as `lexmax add` pays it, and from `add` to the end of
`commit` in a process that keeps the collection open.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...index.collection import BufferLimits, Collection, NewField
from ...index.documents import Document
from ...index.manifest import EncoderRecord
from ...index.multivector.config import MultiVectorConfig
from ...index.representations import MultiVectors, SparseVectors, Vectors
from ..tables import markdown_table
from . import ONE_THREAD
from .build import peak_mb
from .fields import without_text
from .report import Report, Row

N_TERMS, TERMS_PER_DOC = 30_000, 60
BATCH_DOCS = 20_000
TOKEN_DIM, TOKENS_PER_DOC = 128, 60
MEMORY = ("merge_bytes_per_unit", "merge_private_bytes_per_unit")
BM25 = EncoderRecord(kind="bm25", fingerprint="bench:0000000000000000", settings={})
TOKENS = EncoderRecord(kind="colbert", fingerprint="bench:0000000000000001", settings={})


@dataclass(frozen=True, kw_only=True)
class CommitBench:
    """What to measure.

    Attributes
    ----------
    sizes : sequence of int
        Documents of the indexes of BM25 counts that commits go into.
    n_added, n_commits : int
        Documents per commit, and commits per index.
    token_docs : int
        Documents of an index of token vectors whose merge is measured; 0: none.
    seed : int
    """

    sizes: Sequence[int] = (10_000, 100_000, 1_000_000)
    n_added: int = 100
    n_commits: int = 24
    token_docs: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.sizes or min(*self.sizes, self.n_added, self.n_commits) < 1 or self.token_docs < 0:
            raise ValueError("every size, the documents per commit and the commits must be at least 1")


class CommitReport(Report):
    """One row per index: commit times in milliseconds, segments and file descriptors after the last commit, and memory.

    ``merge_bytes_per_unit`` is the growth of the process's peak memory while `Collection.compact` merges all segments, by
    postings or tokens merged; None where the peak did not rise. ``merge_private_bytes_per_unit`` is that of its private
    memory alone, sampled: without the pages of the mapped segments, which the system can drop.
    """

    def to_markdown(self) -> str:
        """Return the rows as a table and the setup as a list."""
        head = ["index", "documents", "commit p50 ms", "p99 ms", "with open and close p50 ms", "segments", "descriptors",
                "compact s", "merge bytes", "private", "per"]  # fmt: skip
        table = [head]
        for row in self.rows:
            times = [f"{row[name]:.1f}" for name in ("p50_ms", "p99_ms", "reopened_p50_ms")]
            memory = ["" if row[name] is None else f"{row[name]:.1f}" for name in MEMORY]
            counts = [str(row["n_segments"]), str(row["n_descriptors"]), f"{row['compact_s']:.2f}"]
            table.append([row["engine"], f"{row['n_docs']:,}", *times, *counts, *memory, row["unit"]])
        return "\n".join([*markdown_table(table), "", *(f"- {name}: {value}" for name, value in self.setup.items())]) + "\n"


def run_commit_bench(bench: CommitBench, say: Callable[[str], None] = lambda message: None) -> CommitReport:
    """Measure every index in a process of its own.

    Raises
    ------
    RuntimeError
        A process failed; the end of what it wrote is in the message.
    """
    jobs = [("sparse", n_docs) for n_docs in bench.sizes]
    jobs += [("tokens", bench.token_docs)] if bench.token_docs else []
    rows = []
    for representation, n_docs in jobs:
        say(f"{n_docs:,} documents of {representation} vectors")
        rows.append(_measure_apart(bench, representation, n_docs))
    setup = {
        "documents": f"generated, seed {bench.seed}", "added per commit": bench.n_added, "commits": bench.n_commits,
        "threads": 1, "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
    }  # fmt: skip
    return CommitReport(rows=rows, setup=setup)


def _measure_apart(bench: CommitBench, representation: str, n_docs: int) -> Row:
    request = json.dumps({**asdict(bench), "representation": representation, "n_docs": n_docs})
    command = [sys.executable, "-m", __name__, request]
    done = subprocess.run(command, env=os.environ | ONE_THREAD, capture_output=True, text=True, errors="replace")  # noqa: S603
    if done.returncode != 0:
        raise RuntimeError(f"commits into {n_docs:,} documents could not be measured:\n{done.stderr[-2000:]}")
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def measure(bench: CommitBench, representation: str, n_docs: int, folder: Path) -> Row:
    """Build an index in ``folder``, commit into it, then merge it, all in this process."""
    rng = np.random.default_rng(bench.seed)
    sparse = representation == "sparse"
    make = _counts if sparse else _tokens
    _fill(folder / "warm-up", make, sparse, 200, rng)  # compiles kernels
    with Collection.open(folder / "warm-up") as collection:
        collection.compact()
    _fill(folder / "index", make, sparse, n_docs, rng)
    times, end = [], n_docs
    with Collection.open(folder / "index", limits=_limits(sparse)) as collection:
        for _ in range(bench.n_commits):
            documents, vectors = _batch(make, end, bench.n_added, rng)
            start = time.perf_counter()
            collection.add(documents, vectors)
            collection.commit()
            times.append(time.perf_counter() - start)
            end += bench.n_added
        n_segments = len(collection.manifest.segments)
        n_descriptors = _n_descriptors()
    reopened = []
    for _ in range(bench.n_commits):
        documents, vectors = _batch(make, end, bench.n_added, rng)
        start = time.perf_counter()
        with Collection.open(folder / "index", limits=_limits(sparse)) as collection:
            collection.add(documents, vectors)
            collection.commit()
        reopened.append(time.perf_counter() - start)
        end += bench.n_added
    n_units, compact_s, grown, private = _compact(folder / "index")
    times_ms, reopened_ms = np.array(times) * 1000, np.array(reopened) * 1000
    return {
        "engine": f"lexmax-{representation}", "n_docs": n_docs, "n_units": n_units,
        "unit": "posting" if sparse else "token",
        "p50_ms": round(float(np.percentile(times_ms, 50)), 2), "p99_ms": round(float(np.percentile(times_ms, 99)), 2),
        "reopened_p50_ms": round(float(np.percentile(reopened_ms, 50)), 2),
        "n_segments": n_segments, "n_descriptors": n_descriptors, "compact_s": round(compact_s, 2),
        "merge_bytes_per_unit": round(grown / max(1, n_units), 1) if grown > 0 else None,
        "merge_private_bytes_per_unit": round(private / max(1, n_units), 1) if private > 0 else None,
    }  # fmt: skip


def _compact(path: Path) -> tuple[int, float, float, float]:
    """Merge all segments: postings or tokens merged, seconds, and by how many bytes resident and private memory rose."""
    with Collection.open(path) as collection:
        records = [part for segment in collection.manifest.segments for part in segment.parts.values()]
        n_units = sum(part.n_tokens or part.n_postings for part in records)
        held = _reset_peak()
        with _PrivatePeak() as private:
            start = time.perf_counter()
            collection.compact(reorder=False)
            elapsed = time.perf_counter() - start
        grown = (peak_mb() - held) * (1 << 20)
        collection.commit()
    return n_units, elapsed, grown, private.grown


class _PrivatePeak:
    """Samples this process's anonymous memory: what it holds without the pages of mapped files, which the system can drop."""

    def __init__(self) -> None:
        self.grown = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> _PrivatePeak:
        self._before = _private_bytes()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(0.002):
            self.grown = max(self.grown, _private_bytes() - self._before)


def _private_bytes() -> int:
    """``RssAnon`` of this process; 0 where the system does not say."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


def _reset_peak() -> float:
    """Start the peak of this process's memory again where Linux allows it; returns the peak from which it rises, in MiB."""
    with suppress(OSError):  # without it the peak counts from what building took
        Path("/proc/self/clear_refs").write_text("5")
    return peak_mb()


def _fill(path: Path, make: Callable[..., Vectors], sparse: bool, n_docs: int, rng: np.random.Generator) -> None:
    """Build an index in one commit."""
    with Collection.create(path, {"field": _field(sparse)}, limits=_limits(sparse)) as collection:
        for first in range(0, n_docs, BATCH_DOCS):
            collection.add(*_batch(make, first, min(BATCH_DOCS, n_docs - first), rng))
        collection.commit()


def _field(sparse: bool) -> NewField:
    if sparse:
        vocabulary = [f"term{number}" for number in range(N_TERMS)]
        return NewField(encoder=BM25, options={"bm25": {"k1": 0.9, "b": 0.4}}, vocabulary=vocabulary)
    return NewField(encoder=TOKENS, representation="tokens", options=asdict(MultiVectorConfig(dim=TOKEN_DIM)))


def _limits(sparse: bool) -> BufferLimits:
    """The defaults for counts; for tokens so few that building leaves segments to merge."""
    return BufferLimits() if sparse else BufferLimits(n_tokens=BATCH_DOCS * TOKENS_PER_DOC // 8)


def _batch(
    make: Callable[..., Vectors], first: int, n: int, rng: np.random.Generator
) -> tuple[list[Document], dict[str, Vectors]]:
    return without_text(first, first + n), {"field": make(n, rng)}


def _counts(n: int, rng: np.random.Generator) -> SparseVectors:
    """Counts of terms that are frequent by Zipf's law, ascending in a row."""
    drawn = np.minimum(N_TERMS ** rng.random((n, TERMS_PER_DOC)), N_TERMS - 1).astype(np.int32)
    drawn.sort(axis=1)
    fresh = np.ones(drawn.shape, np.bool_)
    fresh[:, 1:] = drawn[:, 1:] != drawn[:, :-1]
    starts = np.flatnonzero(fresh.ravel())
    counts = np.diff(np.append(starts, drawn.size)).astype(np.float32)
    indptr = np.concatenate([[0], np.cumsum(fresh.sum(axis=1))]).astype(np.int64)
    return SparseVectors(indptr, drawn.ravel()[starts], counts, [f"term{number}" for number in range(N_TERMS)])


def _tokens(n: int, rng: np.random.Generator) -> MultiVectors:
    """Token vectors of unit length."""
    tokens = rng.standard_normal((n * TOKENS_PER_DOC, TOKEN_DIM), np.float32)
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    return MultiVectors(np.arange(n + 1, dtype=np.int64) * TOKENS_PER_DOC, tokens)


def _n_descriptors() -> int | None:
    """Open file descriptors of this process; None where the system does not list them."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else None


def _main() -> None:
    request: dict[str, Any] = json.loads(sys.argv[1])
    representation, n_docs = request.pop("representation"), request.pop("n_docs")
    with tempfile.TemporaryDirectory(prefix="lexmax-bench-") as folder:
        row = measure(CommitBench(**request), representation, n_docs, Path(folder))
    sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    _main()
