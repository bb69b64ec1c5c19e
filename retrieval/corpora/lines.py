"""Records from lines (JSON lines, TSV, CSV) and from JSON arrays, in bounded memory.

Every reader yields ``(line, item)``: the line where a record begins, from 1, and the record, a `Document`, a `Columns` (a
header, before the first record), or a ValueError with the reason why the record is malformed.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ...index.documents import Document
from ...index.errors import DatasetError
from .records import ID_KEYS, TEXT_KEYS, TITLE_KEYS, Fields

MAX_LINE_BYTES = 64 << 20  # a line or record longer than this is a file of another kind, and would fill the memory
CHUNK_BYTES = 1 << 20


class Columns(tuple[str, ...]):
    """Names of the columns that all records have."""


Item = Mapping[str, Any] | Document | Columns | ValueError
Items = Iterator[tuple[int, Item]]


def kind_of(path: Path) -> str:
    """The suffix that says what a file holds, ``.gz`` aside."""
    return Path(path.name.removesuffix(".gz")).suffix


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file of bytes, gzipped or not."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        yield file  # type: ignore[misc]


def raw_lines(readline: Callable[[int], bytes]) -> Iterator[bytes]:
    """Yield lines, cut at ``MAX_LINE_BYTES + 1``; the rest of an overlong line is skipped."""
    line = readline(MAX_LINE_BYTES + 1).removeprefix(codecs.BOM_UTF8)
    while line:
        yield line
        while len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            line = readline(MAX_LINE_BYTES + 1)
        line = readline(MAX_LINE_BYTES + 1)


def decoded(line: bytes) -> str:
    """Decode a line; raises ValueError when it is overlong or not UTF-8."""
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"the line is longer than {MAX_LINE_BYTES >> 20} MiB: one record per line is expected")
    try:
        return str(line, "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start + 1} of the line") from error


# --- JSON ---


def _not_json(constant: str) -> None:
    raise ValueError(f"not JSON: {constant} is no number in JSON")


_decoder = json.JSONDecoder(parse_constant=_not_json)
_scan = _decoder.scan_once  # type: ignore[attr-defined]  # what `raw_decode` calls, which takes as long again
_surrogate_escape = re.compile(r"\\u[dD][89a-fA-F]").search


def json_lines(path: Path, after: int = 0) -> Items:
    """Read JSON lines from a file, those after the line ``after``."""
    with opened(path) as file:
        yield from json_stream(file.readline, after)


def json_stream(readline: Callable[[int], bytes], after: int = 0) -> Items:
    """Read JSON lines; blank lines are skipped, and lines up to ``after`` are not parsed."""
    for number, line in enumerate(raw_lines(readline), 1):
        if number <= after:
            continue
        try:
            record = _json_object(decoded(line))
        except ValueError as error:
            yield number, error
            continue
        if record is not None:
            yield number, record


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        record, end = _scan(text, 0) if text.startswith("{") else (None, 0)
        if not end or text[end:] not in ("", "\n"):
            record = _decoder.decode(text)
        if "\\u" in text:
            _check_surrogates(text, record)
    except StopIteration as error:
        raise ValueError(f"not JSON: Expecting value at column {error.value + 1}") from error
    except json.JSONDecodeError as error:
        if not text.strip():
            return None
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise ValueError("not JSON that can be read: nested too deeply") from error
    if not isinstance(record, dict):
        raise ValueError(f"a JSON object is expected, found {text[:40].strip()}")
    return record


def _check_surrogates(text: str, record: Any) -> None:
    if not _surrogate_escape(text):
        return
    try:  # halves of a pair survive json and fail when the text is stored
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("not Unicode: half of a surrogate pair stands alone") from error


def json_file(path: Path) -> Items:
    """Read a ``.json`` file: an array of objects when its first character is ``[``, else JSON lines."""
    with opened(path) as file:
        head = file.read(1 << 16).removeprefix(codecs.BOM_UTF8).lstrip()
    return (yield from json_array(path) if head.startswith(b"[") else json_lines(path))


def json_array(path: Path) -> Items:
    """Read an array of objects, decoded one object at a time; one object has at most ``MAX_LINE_BYTES`` characters.

    A syntax error ends reading, for it is not known where the next object begins.
    """
    with opened(path) as file:
        yield from _Array(path, file)


class _Array:
    """A window on the text of a JSON array."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.text, self.at, self.line, self.ended = "", 0, 1, False

    def __iter__(self) -> Items:
        self._expect("[")
        first = True
        while self._peek() != "]" or not first:
            line = self.line
            record, text = self._value()
            try:
                if not isinstance(record, dict):
                    raise ValueError(f"a JSON object is expected, found {str(record)[:40]}")
                _check_surrogates(text, record)
                yield line, record
            except ValueError as error:
                yield line, error
            first = False
            if self._peek() == "]":
                break
            self._expect(",")
            self._peek()
        self._expect("]")
        if self._peek():
            raise self._error("there is text after the end of the array")

    def _more(self) -> bool:
        """Read more text, twice as much as is waiting; drop what was consumed."""
        if self.ended:
            return False
        self.text, self.at = self.text[self.at :], 0
        if len(self.text) > MAX_LINE_BYTES:
            raise self._error(f"an object is longer than {MAX_LINE_BYTES >> 20} MiB, or a bracket or quote is missing")
        data = self.file.read(max(CHUNK_BYTES, len(self.text)))
        self.ended = not data
        try:
            self.text += self.decoder.decode(data, final=self.ended)
        except UnicodeDecodeError as error:
            raise self._error("not UTF-8 at this line or after it") from error
        return True

    def _peek(self) -> str:
        """Skip white space and return the next character; empty at the end."""
        while True:
            start = self.at
            while self.at < len(self.text) and self.text[self.at] in " \t\r\n":
                self.at += 1
            self.line += self.text.count("\n", start, self.at)
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._more():
                return ""

    def _expect(self, character: str) -> None:
        found = self._peek()
        if found != character:
            raise self._error(f"not JSON: {character!r} is expected, found {repr(found) if found else 'the end of the file'}")
        self.at += 1

    def _value(self) -> tuple[Any, str]:
        """Decode the value that begins here; return it and its text."""
        self._peek()
        while True:
            try:
                value, end = _decoder.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                # Text that is cut off fails at its end, or at the start of a string without an end.
                if (error.msg.startswith("Unterminated") or error.pos > len(self.text) - 16) and self._more():
                    continue
                line = self.line + self.text.count("\n", self.at, error.pos)
                raise DatasetError(f"not JSON: {error.msg}", path=self.path, line=line) from error
            except RecursionError as error:
                raise self._error("not JSON that can be read: nested too deeply") from error
            except ValueError as error:
                raise self._error(str(error)) from error
            if end == len(self.text) and self._more():  # a number may go on
                continue
            self.line += self.text.count("\n", self.at, end)
            text, self.at = self.text[self.at : end], end
            return value, text

    def _error(self, message: str) -> DatasetError:
        return DatasetError(message, path=self.path, line=self.line)


# --- TSV and CSV ---

_HEADER_IDS = {*ID_KEYS, "docno", "pid", "did", "passage_id", "passageid", "documentid", "query_id", "qid", "queryid"}
_WORD = re.compile(r"[A-Za-z_]+").fullmatch


def is_header(cells: Sequence[str], ids: Sequence[str], texts: Sequence[str]) -> bool:
    """Whether the first line of a TSV file names its columns.

    Raises
    ------
    ValueError
        It looks like a header, but which column is the id or the text is not known.
    """
    if any(cell in ids for cell in cells) and any(cell in texts for cell in cells):
        return True
    known = {*_HEADER_IDS, *ids, *texts}
    lower = [cell.strip().lower() for cell in cells]
    named = len(cells) > 1 and (lower[0] in _HEADER_IDS or (_WORD(lower[0]) and all(cell in known for cell in lower[1:])))
    if named:
        raise ValueError(
            f"the first line looks like a header ({', '.join(map(repr, cells))[:80]}): name its columns with --id-field and "
            "--text-field, or remove the line"
        )
    return False


def tsv(path: Path, fields: Fields | None = None) -> Items:
    """Read ``id TAB text`` or ``id TAB title TAB text``, or the columns that a header line names; no quoting."""
    fields = fields or Fields()
    ids = ID_KEYS if fields.id is None else (fields.id,)
    texts = (*TEXT_KEYS, *TITLE_KEYS) if fields.text is None else (*fields.text, *(fields.title or ()))
    for number, cells in tsv_cells(path, ids, texts):
        if isinstance(cells, ValueError | Columns | Mapping):
            yield number, cells
        else:
            yield number, Document(doc_id=cells[0], title="" if len(cells) == 2 else cells[1], text=cells[-1])


def tsv_cells(
    path: Path, ids: Sequence[str], texts: Sequence[str], widths: tuple[int, ...] = (2, 3)
) -> Iterator[tuple[int, list[str] | Mapping[str, str] | Columns | ValueError]]:
    """Read lines of a TSV file: records below a header, else lists of cells with an id; all lines have equally many cells."""
    header: list[str] | None = None
    first = True
    with opened(path) as file:
        for number, line in enumerate(raw_lines(file.readline), 1):
            try:
                cells = decoded(line).rstrip("\r\n").split("\t")
            except ValueError as error:
                yield number, error
                continue
            if cells == [""]:
                continue
            if first:
                first = False
                try:
                    named = is_header(cells, ids, texts)
                except ValueError as error:
                    raise DatasetError(str(error), path=path, line=number) from error
                if named:
                    header, widths = _header(cells, path, number), (len(cells),)
                    yield number, Columns(header)
                    continue
            if len(cells) not in widths:
                yield number, ValueError(f"{' or '.join(map(str, widths))} columns are expected, found {len(cells)}")
            elif header is not None:
                yield number, dict(zip(header, cells, strict=True))
            elif not cells[0]:
                yield number, ValueError("the id (first column) is empty")
            else:
                widths = (len(cells),)
                yield number, cells


def _header(cells: list[str], path: Path, line: int) -> list[str]:
    twice = sorted({cell for cell in cells if cells.count(cell) > 1})
    if twice:
        raise DatasetError(f"the header names {', '.join(map(repr, twice))} twice", path=path, line=line)
    return cells


class _Decoded:
    """Decoded lines with their number; a line that cannot be decoded raises, and the next one follows."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self.lines, self.number = lines, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self.lines)
        self.number += 1
        return decoded(line)


def csv_rows(path: Path) -> Items:
    """Read CSV (RFC 4180: commas, quotes, line breaks in quoted cells); the first row names the columns.

    Values are strings; an empty cell is an absent value.
    """
    with opened(path) as file:
        lines = _Decoded(raw_lines(file.readline))
        rows = csv.reader(lines, strict=True)
        header: list[str] | None = None
        while True:
            start = lines.number + 1
            try:
                row = _next_row(rows)
            except StopIteration:
                break
            except (csv.Error, ValueError) as error:
                problem = ValueError(f"not CSV: {error}" if isinstance(error, csv.Error) else str(error))
                if header is None:
                    raise DatasetError(str(problem), path=path, line=start) from error
                yield start, problem
                continue
            if not row:
                continue
            if header is None:
                header = _header([cell.strip() for cell in row], path, start)
                if len(header) == 1 and re.search(r"[;\t|]", header[0]):
                    message = "the header has one column: cells must be separated by commas (use .tsv for tabs)"
                    raise DatasetError(message, path=path, line=start)
                yield start, Columns(header)
            elif len(row) != len(header):
                yield start, ValueError(f"{len(header)} cells are expected, as in the header, found {len(row)}")
            else:
                yield start, {name: cell for name, cell in zip(header, row, strict=True) if cell}
    if header is None:
        raise DatasetError("the file is empty: a header line that names the columns is expected", path=path, line=1)


def _next_row(rows: Iterator[list[str]]) -> list[str]:
    before = csv.field_size_limit(MAX_LINE_BYTES)  # the default, 128 KiB, is less than long texts have
    try:
        return next(rows)
    finally:
        csv.field_size_limit(before)


KEYED: Mapping[str, Callable[[Path], Items]] = {
    ".jsonl": json_lines, ".ndjson": json_lines, ".json": json_file, ".csv": csv_rows,
}  # fmt: skip
"""Readers of the kinds of files whose records name their values."""
