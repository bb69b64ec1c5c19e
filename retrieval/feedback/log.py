"""Click logs: which documents were shown for a query, at which ranks, and which of them were clicked.

A log is one file, apart from any index. It names documents by doc_id, so it outlives rebuilds, and several indexes can read it.
It holds the texts of queries and no times, addresses or users.

::

    3d1f9a02 {"format": "lexmax-clicks", "version": 1, "id": "5f0c..."}
    8a3f01c2 [["how do vaccines work", 1, [["d7", 1, 1, 0], ["d2", 2, 1, 1]]]]

Each line begins with the CRC-32 of the rest. A line is one call of `ClickLog.add`: records of a query, how often it was asked,
and of each document at each rank how often it was shown and clicked. `add` returns when the line is on the disk, and the next
line is written after that, so a crash can tear the last line alone, which nobody was told is safe. Readers leave a torn last
line out (one without an end, or with zeros in it), and the next writer removes it. Any other line that does not fit its
checksum is damage, and an error.

Writers exclude each other, and readers, by a lock on the file; `ClickLog.compact` replaces the file, whose new id tells readers
to begin again.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from ...index.arguments import path_of
from ...index.errors import DatasetError, IndexFormatError, StorageError
from ...index.refusals import storage_errors
from ...index.storage import sync_folder
from .clicks import MAX_RANK, Impression, LoggedQuery, merge

FORMAT, VERSION = "lexmax-clicks", 1
ADVICE = "restore it from a copy, or remove the line if its clicks can be spared"


class Position(NamedTuple):
    """How far a log was read: the file's id, and the byte and the line that come next."""

    id: str = ""
    offset: int = 0
    line: int = 1


@dataclass(frozen=True)
class News:
    """What a log has after a position, by query; ``restarted``: it is the whole log, since the file is another one."""

    queries: dict[str, LoggedQuery]
    position: Position
    restarted: bool


class ClickLog:
    """A click log; safe to use from many threads and processes.

    Parameters
    ----------
    path : Path or str
    create : bool
        Make an empty log where there is no file.
    max_bytes : int or None
        `add` refuses to let the file grow further; None: no limit.

    Raises
    ------
    DatasetError
        There is no file.
    IndexFormatError
        The file is no click log, or of another version.
    StorageError
        The system refuses something.
    """

    def __init__(self, path: Path | str, *, create: bool = False, max_bytes: int | None = None) -> None:
        self.path, self.max_bytes = path_of(path), max_bytes
        self._seen = Position()  # all before it is sound
        with storage_errors(self.path):
            if create and not self.path.exists():
                self._create()
            with self._locked(fcntl.LOCK_SH) as file:
                _header(self.path, file)

    def add(self, impressions: Iterable[Impression]) -> None:
        """Log impressions, all or none; they are on the disk when this returns.

        Raises
        ------
        TypeError
            Something else than impressions.
        StorageError
            The log is full, or the system refuses; nothing was logged.
        IndexFormatError
            The log is damaged.
        """
        self.add_records([LoggedQuery.of(_checked(each)) for each in impressions])

    def add_records(self, records: Sequence[LoggedQuery]) -> None:
        """Log what was counted elsewhere; otherwise as `add`."""
        if not records:
            return
        line = _line([_json(record) for record in records])
        with storage_errors(self.path), self._locked(fcntl.LOCK_EX) as file:
            end = self._sound_end(file)
            if self.max_bytes is not None and end + len(line) > self.max_bytes:
                advice = f"`lexmax feedback compact {self.path}` makes room"
                raise StorageError(f"{self.path}: the click log is full, at {end:,} of {self.max_bytes:,} bytes: {advice}")
            try:
                file.truncate(end)
                file.seek(end)
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                with suppress(OSError):
                    os.ftruncate(file.fileno(), end)  # what was not acknowledged is not there
                raise
            self._seen = Position(self._seen.id, end + len(line), self._seen.line + 1)

    def read(self, since: Position | None = None) -> News:
        """Read what was logged after a position, by default everything.

        Raises
        ------
        IndexFormatError
            A line is damaged.
        DatasetError, StorageError
            The file is gone, or cannot be read.
        """
        queries: dict[str, LoggedQuery] = {}
        with storage_errors(self.path), self._locked(fcntl.LOCK_SH) as file:
            identity = _header(self.path, file)
            start = since if since is not None and since.id == identity else Position(identity, file.tell(), 2)
            end = start
            for position, records in _lines(self.path, file, start):
                merge(queries, records)
                end = position
        return News(queries, end, restarted=start != since)

    def compact(self) -> tuple[int, int]:
        """Write the log again with one record for each query, and no count lost; returns its bytes before and after.

        Raises as `read` does.
        """
        with storage_errors(self.path), self._locked(fcntl.LOCK_EX) as file:
            _header(self.path, file)
            queries: dict[str, LoggedQuery] = {}
            for _, records in _lines(self.path, file, Position("", file.tell(), 2)):
                merge(queries, records)
            temporary = self._temporary(_line([_json(record)]) for record in queries.values())
            try:
                before, after = os.fstat(file.fileno()).st_size, temporary.stat().st_size
                temporary.replace(self.path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            sync_folder(self.path.parent)
        return before, after

    def _create(self) -> None:
        temporary = self._temporary(())
        try:
            with suppress(FileExistsError):  # another process was first
                os.link(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(self.path.parent)

    def _temporary(self, lines: Iterable[bytes]) -> Path:
        """Write a new file beside the log, synced; returns its path."""
        identity = uuid.uuid4().hex
        path = self.path.with_name(f"{self.path.name}.{identity[:8]}.tmp")
        try:
            with path.open("xb") as out:
                out.write(_line({"format": FORMAT, "version": VERSION, "id": identity}))
                out.writelines(lines)
                out.flush()
                os.fsync(out.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path

    @contextmanager
    def _locked(self, how: int) -> Iterator[BinaryIO]:
        """Open the file that the path names and hold its lock: a compaction may have replaced the one that was opened."""
        while True:
            with self._opened("r+b" if how == fcntl.LOCK_EX else "rb") as file:
                fcntl.flock(file, how)
                if self.path.exists() and os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                    yield file
                    return

    def _opened(self, mode: str) -> BinaryIO:
        try:
            return cast(BinaryIO, self.path.open(mode))
        except FileNotFoundError:
            advice = "`lexmax feedback add LOG FILE` and `lexmax serve IDX --feedback LOG` make one"
            raise DatasetError(f"there is no click log here: {advice}", path=self.path) from None

    def _sound_end(self, file: BinaryIO) -> int:
        """Byte after the last sound line."""
        identity = _header(self.path, file)
        if self._seen.id != identity:
            self._seen = Position(identity, file.tell(), 2)
        for position, _ in _lines(self.path, file, self._seen):
            self._seen = position
        return self._seen.offset


def _checked(impression: object) -> Impression:
    if not isinstance(impression, Impression):
        raise TypeError(f"a click log takes impressions, not {type(impression).__name__}")
    return impression


def _json(record: LoggedQuery) -> list[Any]:
    return [record.query, record.n_times, [[*place, *counts] for place, counts in record.counts.items()]]


def _line(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _value(line: bytes) -> Any:
    """Value of a line; raises ValueError where it is not whole."""
    if line[8:9] != b" " or line[-1:] != b"\n" or int(line[:8], 16) != zlib.crc32(line[9:-1]):
        raise ValueError("a line that does not fit its checksum")
    return json.loads(line[9:-1])


def _header(path: Path, file: BinaryIO) -> str:
    """Read the first line; returns the file's id."""
    file.seek(0)
    try:
        header = _value(file.readline(1000))
        sound = isinstance(header, dict) and header.get("format") == FORMAT and isinstance(header.get("id"), str)
    except ValueError:
        sound = False
    if not sound:
        raise IndexFormatError(path, expected="a click log", found="another file", advice="name another file")
    if header.get("version") != VERSION:
        raise IndexFormatError(path, expected=f"version {VERSION}", found=header.get("version"), advice="upgrade lexmax")
    return str(header["id"])


def _lines(path: Path, file: BinaryIO, start: Position) -> Iterator[tuple[Position, list[LoggedQuery]]]:
    """Records of each line from a position on, and where the next one begins; a torn last line is left out."""
    file.seek(start.offset)
    offset, line = start.offset, start.line
    for data in file:
        try:
            records = _records(_value(data))
        except (ValueError, TypeError, RecursionError) as problem:
            if not file.read(1) and (not data.endswith(b"\n") or b"\0" in data):
                return  # torn
            raise IndexFormatError(path, expected=f"a sound line {line}", found=problem, advice=ADVICE) from None
        offset, line = offset + len(data), line + 1
        yield Position(start.id, offset, line), records


def _records(value: Any) -> list[LoggedQuery]:
    """Records of a line's value; raises ValueError or TypeError for what no line says."""
    if not isinstance(value, list):
        raise ValueError("no list of records")
    return [_record(*each) for each in value]


def _record(query: Any, n_times: Any, documents: Any) -> LoggedQuery:
    record = LoggedQuery(query, n_times)
    for doc_id, rank, shown, clicked in documents:
        numbers = type(rank) is type(shown) is type(clicked) is int
        if not (isinstance(doc_id, str) and numbers and 1 <= rank <= MAX_RANK and 0 <= clicked <= shown <= n_times):
            raise ValueError(f"the document {str(doc_id)[:40]!r} at rank {str(rank)[:20]}")
        record.counts[doc_id, rank] = (shown, clicked)
    if not (isinstance(query, str) and type(n_times) is int and n_times >= 1):
        raise ValueError(f"the query {str(query)[:40]!r}")
    return record
