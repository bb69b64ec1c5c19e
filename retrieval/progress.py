"""Progress of long jobs: how many records there are, and a one-line bar for terminals."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TextIO

Progress = Callable[[int], None]
"""Called with the number of records done so far."""

WIDTH = 24
INTERVAL_S = 0.1


def count_records(sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> int | None:
    """Count the records of files, at reading speed; None when a source cannot be counted beforehand.

    An estimate: blank and malformed lines count too.
    """
    if isinstance(sources, str | os.PathLike):
        sources = [sources]
    total = 0
    for source in sources:
        try:
            n_records = _count(Path(source))
        except (OSError, EOFError, zlib.error):
            return None
        if n_records is None:
            return None
        total += n_records
    return total


def _count(path: Path) -> int | None:
    from .corpora.folders import beir_corpus, text_files
    from .corpora.lines import kind_of, opened

    if path.is_dir():
        beir = beir_corpus(path)
        if beir is None:
            return len(text_files(path)[0])
        path = beir
    if not path.is_file():
        return None
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            n_rows: int = pq.read_metadata(path).num_rows
        except pa.ArrowException:
            return None
        return n_rows
    with opened(path) as file:
        kind = kind_of(path)
        chunks = iter(partial(file.read, 1 << 22), b"")
        if kind == ".csv":
            return _count_csv(chunks)
        n_lines = 0
        first, last = True, b"\n"
        for chunk in chunks:
            if first and kind == ".json" and chunk.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
                return None  # an array: its objects need not be on lines of their own
            first, last = False, chunk[-1:]
            n_lines += chunk.count(b"\n")
        return n_lines + (last != b"\n")


def _count_csv(chunks: Iterator[bytes]) -> int:
    """Count rows below the header: line breaks with an even number of quotes before them."""
    n_rows, inside, last = 0, 0, b"\n"
    for chunk in chunks:
        for number, part in enumerate(chunk.split(b'"')):
            inside ^= number > 0
            if not inside:
                n_rows += part.count(b"\n")
        last = chunk[-1:]
    return max(0, n_rows + (last != b"\n") - 1)


def shown_rate(per_s: float) -> str:
    """Return a rate as text: whole numbers, or one digit more where few are done in a second."""
    return f"{per_s:,.0f}/s" if per_s >= 10 else f"{per_s:.2g}/s"


class Bar:
    """A progress bar with rate and time left; writes at most ten times a second.

    The first call is where counting begins: its number of records and its time are no part of the rate, for a resumed
    build begins above zero, and a first batch of thousands of records may come after a model was loaded.
    """

    def __init__(self, stream: TextIO, unit: str, total: int | None) -> None:
        self._stream, self._unit, self._total = stream, unit, total
        self._start = self._last = time.monotonic()
        self._first: int | None = None

    def __call__(self, done: int) -> None:
        """Show ``done`` records."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._start = done, now
        if now - self._last >= INTERVAL_S:
            self._last = now
            self._stream.write("\r" + self.line(done, now - self._start) + "\x1b[K")
            self._stream.flush()

    def line(self, done: int, elapsed_s: float) -> str:
        """Return the bar as text; without a rate where nothing is known of it yet."""
        counted = done - (self._first or 0)
        rate = counted / elapsed_s if counted > 0 and elapsed_s > 0 else None
        speed = "" if rate is None else f"  {shown_rate(rate)}"
        if not self._total:
            return f"{done:,} {self._unit}{speed}"
        share = min(1.0, done / self._total)
        filled = int(share * WIDTH)
        left = 0 if rate is None else max(0, int((self._total - done) / rate))
        clock = "" if rate is None else f"  {left // 60}:{left % 60:02d} left"
        return f"[{'#' * filled}{'.' * (WIDTH - filled)}] {share:4.0%}  {done:,} {self._unit}{speed}{clock}"

    def close(self) -> None:
        """Remove the bar."""
        self._stream.write("\r\x1b[K")
        self._stream.flush()
