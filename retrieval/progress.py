"""Progress of long jobs: how many records there are, and a one-line bar for terminals."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

Progress = Callable[[int], None]
"""Called with the number of records done so far."""

WIDTH = 24
INTERVAL_S = 0.1


def count_records(sources: Sequence[str]) -> int | None:
    """Count the lines or rows of files, at reading speed; None when a source cannot be counted beforehand."""
    total = 0
    for source in sources:
        path = Path(source)
        if path.is_dir():
            path = next((path / name for name in ("corpus.jsonl", "corpus.jsonl.gz") if (path / name).is_file()), path)
        if not path.is_file():
            return None
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            total += pq.read_metadata(path).num_rows
            continue
        try:
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                while chunk := file.read(1 << 22):
                    total += chunk.count(b"\n")
        except (OSError, EOFError):
            return None
    return total


class Bar:
    """A progress bar with rate and time left; writes at most ten times a second."""

    def __init__(self, stream: TextIO, unit: str, total: int | None) -> None:
        self._stream, self._unit, self._total = stream, unit, total
        self._start = self._last = time.monotonic()
        self._first: int | None = None

    def __call__(self, done: int) -> None:
        """Show ``done`` records."""
        now = time.monotonic()
        if self._first is None:
            self._first = done  # a resumed build starts above zero, which is no speed
        if now - self._last >= INTERVAL_S:
            self._last = now
            self._stream.write("\r" + self.line(done, now - self._start) + "\x1b[K")
            self._stream.flush()

    def line(self, done: int, elapsed_s: float) -> str:
        """Return the bar as text."""
        rate = (done - (self._first or 0)) / max(elapsed_s, 1e-9)
        if not self._total:
            return f"{done:,} {self._unit}  {rate:,.0f}/s"
        share = min(1.0, done / self._total)
        filled = int(share * WIDTH)
        left = (self._total - done) / rate if rate > 0 else 0.0
        clock = f"{int(left) // 60}:{int(left) % 60:02d}"
        return f"[{'#' * filled}{'.' * (WIDTH - filled)}] {share:4.0%}  {done:,} {self._unit}  {rate:,.0f}/s  {clock} left"

    def close(self) -> None:
        """Remove the bar."""
        self._stream.write("\r\x1b[K")
        self._stream.flush()
