"""The processes that `lexmax bench ssd` times: one holds the records in memory, one reads them, under a memory cap if any."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from ...index.arrays import Int32s
from ...index.errors import StorageError
from ...index.multivector.field import TokenField
from ...index.multivector.placement import TokenStorage
from ...index.representations.multivectors import MultiVectors
from ...index.snapshot import Snapshot
from ...retrieval.hits import ReadCounts, Scores
from ...retrieval.searchers.centroid import CentroidSearcher
from ...retrieval.searchers.common import single
from .memory_cap import join


@dataclass(frozen=True, eq=False)
class Asked:
    """Queries and their candidates, and the bytes of those documents' records."""

    queries: MultiVectors
    candidates: list[Int32s]
    n_bytes: int


class Timed(NamedTuple):
    """One query: seconds of wall and of the process's CPU, scores, and what was read."""

    wall: float
    cpu: float
    scores: bytes
    reads: ReadCounts


class Worker:
    """A process that scores candidates from some places; made by `worker`.

    Attributes
    ----------
    left_out : mapping of str to str
        Place -> why it does not work here.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.left_out: dict[str, str] = self._answer()

    def score(self, place: str, n: int, number: int) -> Timed:
        """Score the n candidates of a query, cold."""
        self._pipe.send((place, n, number, 0))
        found: Timed = self._answer()
        return found

    def rate(self, place: str, n: int, n_clients: int) -> float:
        """Queries a second when ``n_clients`` threads ask, cold at the beginning."""
        self._pipe.send((place, n, 0, n_clients))
        return float(self._answer())

    def _answer(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError:
            raise StorageError("a process of the benchmark has ended: the memory cap is too low for it") from None


@contextmanager
def worker(path: Path, places: Sequence[str], asked: Mapping[int, Asked], group: Path | None) -> Iterator[Worker]:
    """Start a process for some places, in a memory group if one is given."""
    here, there = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=_serve, args=(there, path, places, asked, group))
    process.start()
    there.close()
    try:
        yield Worker(here)
        here.send(None)
    finally:
        here.close()
        process.join(10)
        if process.is_alive():
            process.kill()
            process.join()


def _serve(pipe: Connection, path: Path, places: Sequence[str], asked: Mapping[int, Asked], group: Path | None) -> None:
    join(group)
    searchers, left_out = {}, {}
    for place in places:
        try:
            searchers[place] = _searcher(path, place)
            searchers[place].warm()
        except StorageError as failure:
            left_out[place] = str(failure)
    pipe.send(left_out)
    while (task := pipe.recv()) is not None:
        place, n, number, n_clients = task
        drop_pages(searchers.values())
        if n_clients:
            pipe.send(_rate(searchers[place], asked[n], n_clients))
        else:
            pipe.send(_timed(searchers[place], asked[n], number))


def resident_mb(path: Path, place: str, asked: Asked, group: Path | None) -> float:
    """Megabytes that a process of its own holds more after all queries than before it opened the index."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_resident, (path, place, asked, group))


def _resident(path: Path, place: str, asked: Asked, group: Path | None) -> float:
    join(group)
    _searcher(path, "mmap").warm()  # code and kernels are no memory of the index
    before = _resident_mb()
    searcher = _searcher(path, place)
    for number in range(len(asked.candidates)):
        _score(searcher, asked, number)
    return _resident_mb() - before


def _resident_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1000


def _searcher(path: Path, place: str) -> CentroidSearcher:
    snapshot = Snapshot.open(path, storage=TokenStorage(place=place))
    return CentroidSearcher(snapshot.only_field(TokenField, "token vectors"))


def _score(searcher: CentroidSearcher, asked: Asked, number: int) -> Scores:
    return searcher.score(single(asked.queries, number), [asked.candidates[number]])


def _timed(searcher: CentroidSearcher, asked: Asked, number: int) -> Timed:
    wall, cpu = time.perf_counter(), time.process_time()
    scores = _score(searcher, asked, number)
    return Timed(time.perf_counter() - wall, time.process_time() - cpu, scores[0].tobytes(), scores.reads)


def _rate(searcher: CentroidSearcher, asked: Asked, n_clients: int) -> float:
    with ThreadPoolExecutor(n_clients) as pool:
        start = time.perf_counter()
        list(pool.map(lambda number: _score(searcher, asked, number), range(len(asked.candidates))))
        return len(asked.candidates) / (time.perf_counter() - start)


def drop_pages(searchers: Iterable[CentroidSearcher]) -> None:
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
