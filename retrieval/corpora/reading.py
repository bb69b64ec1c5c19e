"""Reads corpora record by record, without ever holding a whole file.

A source is named by a string::

    corpus.jsonl, .ndjson   one JSON object a line, BEIR's keys unless Fields says otherwise
    corpus.tsv              id <TAB> text, or id <TAB> title <TAB> text; no header, no quoting
    corpus.parquet          one row a record, columns as the keys of JSON lines
    FOLDER                  a BEIR folder: its corpus.jsonl or corpus.jsonl.gz
    -                       JSON lines on standard input
    ir_datasets:ID          a collection of the ir_datasets package

JSON lines and TSV may be gzipped (``.gz``). They must be UTF-8; blank lines are passed over. Whether an id
comes twice is for the index to say.
"""

from __future__ import annotations

import codecs
import gzip
import json
import math
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, time
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ...index.documents import Document
from ...index.errors import DatasetError, MissingDependencyError

MAX_LINE_BYTES = 64 << 20  # a line longer than this is a file of another kind, and would fill the memory
PARQUET_BATCH_ROWS = 1024

_SCALARS = (str, int, float)  # bool is an int
_Parse = Callable[[Any], Document | None]


@dataclass(frozen=True, kw_only=True)
class Fields:
    """Which keys or columns of a record hold what.

    Attributes
    ----------
    id : str
        The document's id, a string or an integer.
    title, text : tuple of str
        Joined by a space in this order; absent and null ones are passed over.
    metadata : tuple of str or None
        Keys to keep as metadata, from the record or from its ``metadata`` object, whatever their type. None
        keeps the whole ``metadata`` object, and each other key of the record whose value is a scalar.
    """

    id: str = "_id"
    title: tuple[str, ...] = ("title",)
    text: tuple[str, ...] = ("text",)
    metadata: tuple[str, ...] | None = None

    @cached_property
    def named(self) -> frozenset[str]:
        """Keys with a meaning of their own, which are not metadata."""
        return frozenset((self.id, *self.title, *self.text, "metadata"))


class BadRecord(NamedTuple):
    """Where a record was left out (line or row, from 1), and why."""

    path: str
    line: int
    reason: str


@dataclass
class BadRecords:
    """Collects malformed records, so that reading goes on past them.

    Attributes
    ----------
    n_records : int
        How many were left out.
    examples : list of BadRecord
        The first ``max_examples`` of them.
    """

    max_examples: int = 20
    n_records: int = 0
    examples: list[BadRecord] = field(default_factory=list)

    def add(self, path: str, line: int, reason: str) -> None:
        """Count one record, and remember it when it is among the first."""
        self.n_records += 1
        if len(self.examples) < self.max_examples:
            self.examples.append(BadRecord(path, line, reason))


def read_corpus(
    sources: Sequence[str],
    *,
    fields: Fields | None = None,
    bad: BadRecords | None = None,
    stdin: BinaryIO | None = None,
) -> Iterator[Document]:
    """Read documents from sources, one after the other.

    Every source is looked up before the first document is read, so a mistyped name is known at once.

    Parameters
    ----------
    sources : sequence of str
        See the module's table.
    fields : Fields, optional
        Which keys hold what; by default BEIR's ``_id``, ``title``, ``text`` and ``metadata``. TSV columns
        have no names and do not heed it. In ir_datasets the id is always ``doc_id``, and only
        metadata that is named is kept, for other fields there often repeat the text.
    bad : BadRecords, optional
        Takes malformed records; without it the first one raises.
    stdin : binary file, optional
        What ``-`` reads; by default the process's standard input.

    Yields
    ------
    Document

    Raises
    ------
    DatasetError
        A source is missing or of no known kind, a file is damaged, or a record is malformed: path and line.
    MissingDependencyError
        The source is of ir_datasets, which is not installed.
    """
    if isinstance(sources, str):
        raise TypeError(f"sources must be a sequence of strings, not the string {sources!r}")
    readers = [_open_source(source, fields, stdin) for source in sources]
    return (document for path, items, parse in readers for document in _documents(path, items, parse, bad))


def _open_source(source: str, fields: Fields | None, stdin: BinaryIO | None) -> tuple[str, Iterable[Any], _Parse]:
    """Return a source's name in messages, its raw records (read later), and what makes documents of them."""
    if source.startswith("ir_datasets:"):
        fields = fields or Fields()
        fields = replace(fields, id="doc_id", metadata=fields.metadata or ())
        docs = _ir_datasets_docs(source.removeprefix("ir_datasets:"))
        return source, docs, lambda doc: _from_named_tuple(doc, fields)
    fields = fields or Fields()
    if source == "-":
        stream = stdin or sys.stdin.buffer
        return "standard input", _lines(stream.readline), lambda line: _from_json(line, fields)
    path = _corpus_file(Path(source))
    kind = Path(path.name.removesuffix(".gz")).suffix
    if kind in (".jsonl", ".ndjson", ".json"):
        return str(path), _file_lines(path), lambda line: _from_json(line, fields)
    if kind == ".tsv":
        return str(path), _file_lines(path), _TsvParser()
    if path.suffix == ".parquet":
        return str(path), _parquet_rows(path, fields), lambda row: _from_row(row, fields)
    raise DatasetError("unknown kind of corpus; use .jsonl, .tsv (or .gz of them) or .parquet", path=path)


def _corpus_file(path: Path) -> Path:
    if path.is_dir():
        for name in ("corpus.jsonl", "corpus.jsonl.gz"):
            if (path / name).is_file():
                return path / name
        raise DatasetError("the folder has no corpus.jsonl or corpus.jsonl.gz", path=path)
    if not path.exists():
        raise DatasetError("no such file or folder", path=path)
    return path


def _documents(path: str, items: Iterable[Any], parse: _Parse, bad: BadRecords | None) -> Iterator[Document]:
    """Parse raw records; a ValueError of ``parse`` is the reason why a record is malformed."""
    number = 0
    try:
        for number, item in enumerate(items, 1):
            try:
                document = parse(item)
            except ValueError as error:
                if bad is None:
                    raise DatasetError(str(error), path=path, line=number) from error
                bad.add(path, number, str(error))
                continue
            if document is not None:
                yield document
    except (OSError, EOFError, zlib.error) as error:  # a truncated or damaged gzip stream, a failing disk
        raise DatasetError(f"cannot be read on: {error}", path=path, line=number + 1) from error


# --- records ---


def _from_record(record: Mapping[str, Any], fields: Fields) -> Document:
    doc_id = record.get(fields.id)
    if type(doc_id) is int:  # not bool
        doc_id = str(doc_id)
    if not isinstance(doc_id, str) or not doc_id:
        found = "nothing" if doc_id is None else repr(doc_id)[:40]
        raise ValueError(f"{fields.id!r} must be a string or an integer as id, found {found}")
    title, text = _joined(record, fields.title), _joined(record, fields.text)
    if title is None and text is None:
        raise ValueError(f"no text: none of the keys {', '.join(map(repr, fields.title + fields.text))} is there")
    return Document(doc_id=doc_id, title=title or "", text=text or "", metadata=_metadata(record, fields))


def _joined(record: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    joined = None
    for name in names:
        value = record.get(name)
        if value is None:
            continue
        if not isinstance(value, str):
            raise ValueError(f"{name!r} must be a string, found {repr(value)[:40]}")
        joined = f"{joined} {value}" if joined else value
    return joined


def _metadata(record: Mapping[str, Any], fields: Fields) -> dict[str, Any]:
    inner = record.get("metadata") or {}
    if not isinstance(inner, dict):
        raise ValueError(f"'metadata' must be an object, found {repr(inner)[:40]}")
    if fields.metadata is None:
        chosen = {k: v for k, v in record.items() if k not in fields.named and isinstance(v, _SCALARS)}
        chosen.update(inner)
    else:
        chosen = {name: record.get(name, inner.get(name)) for name in fields.metadata}
    for name, value in chosen.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"metadata {name!r} is {value}: use null for what is unknown")
    return {name: value for name, value in chosen.items() if value is not None} if chosen else chosen


# --- lines ---


def _file_lines(path: Path) -> Iterator[bytes]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        yield from _lines(file.readline)


def _lines(readline: Callable[[int], bytes]) -> Iterator[bytes]:
    """Yield lines, cut at ``MAX_LINE_BYTES + 1``; the rest of an overlong line is read past."""
    line = readline(MAX_LINE_BYTES + 1).removeprefix(codecs.BOM_UTF8)
    while line:
        yield line
        while len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            line = readline(MAX_LINE_BYTES + 1)
        line = readline(MAX_LINE_BYTES + 1)


def _decoded(line: bytes) -> str:
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"the line is longer than {MAX_LINE_BYTES >> 20} MiB: one record a line is expected")
    try:
        return str(line, "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start + 1} of the line") from error


def _not_json(constant: str) -> None:
    raise ValueError(f"not JSON: {constant} is no number in JSON")


_decode_json = json.JSONDecoder(parse_constant=_not_json).decode
_surrogate_escape = re.compile(r"\\u[dD][89a-fA-F]").search


def _from_json(line: bytes, fields: Fields) -> Document | None:
    text = _decoded(line)
    try:
        record = _decode_json(text)
        if _surrogate_escape(text):  # halves of a pair survive json and fail when the text is stored
            json.dumps(record, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        if not text.strip():
            return None
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from error
    except UnicodeEncodeError as error:
        raise ValueError("not Unicode: half of a surrogate pair stands alone") from error
    except RecursionError as error:
        raise ValueError("not JSON that can be read: nested too deeply") from error
    if not isinstance(record, dict):
        raise ValueError(f"a JSON object is expected, found {text[:40].strip()}")
    return _from_record(record, fields)


class _TsvParser:
    """Holds every line to the number of columns of the first good one, so that a stray tab is noticed."""

    def __init__(self) -> None:
        self.n_columns = 0

    def __call__(self, line: bytes) -> Document | None:
        columns = _decoded(line).rstrip("\r\n").split("\t")
        if columns == [""]:
            return None
        expected = (self.n_columns,) if self.n_columns else (2, 3)
        if len(columns) not in expected:
            raise ValueError(f"{' or '.join(map(str, expected))} columns are expected, found {len(columns)}")
        if not columns[0]:
            raise ValueError("the id (first column) is empty")
        self.n_columns = len(columns)
        return Document(doc_id=columns[0], title="" if len(columns) == 2 else columns[1], text=columns[-1])


# --- tables and packages ---


def _parquet_rows(path: Path, fields: Fields) -> Iterator[Any]:
    """Yield rows as dicts; as record batches of one row where a batch holds a string that is not UTF-8."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Without these two a whole row group is fetched at once.
        with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            columns = _parquet_columns(path, file.schema_arrow, fields)
            for batch in file.iter_batches(PARQUET_BATCH_ROWS, columns=columns, use_threads=False):
                try:
                    yield from batch.to_pylist()
                except UnicodeDecodeError:
                    yield from (batch.slice(i, 1) for i in range(batch.num_rows))
    except pa.ArrowException as error:
        raise DatasetError(f"not a readable Parquet file: {error}", path=path) from error


def _parquet_columns(path: Path, schema: Any, fields: Fields) -> list[str]:
    """Choose the columns that documents need: a column of embeddings beside them is never read."""
    import pyarrow.types as types

    if fields.id not in schema.names:
        raise DatasetError(f"no column {fields.id!r} to take the id from; there are {schema.names}", path=path)
    wanted = {*fields.named, *(fields.metadata or ())}
    if fields.metadata is None:
        wanted.update(column.name for column in schema if not types.is_nested(column.type))
    return [name for name in schema.names if name in wanted]


def _from_row(row: Any, fields: Fields) -> Document:
    if not isinstance(row, dict):
        try:
            (row,) = row.to_pylist()
        except UnicodeDecodeError as error:
            raise ValueError("a string is not UTF-8") from error
    dates = {name: value.isoformat() for name, value in row.items() if isinstance(value, date | time)}
    return _from_record({**row, **dates}, fields)


def _ir_datasets_docs(dataset_id: str) -> Iterable[Any]:
    try:
        import ir_datasets
    except ImportError as error:
        raise MissingDependencyError("ir_datasets", "eval", f"the corpus ir_datasets:{dataset_id}") from error
    try:
        dataset = ir_datasets.load(dataset_id)
    except KeyError as error:
        raise DatasetError(f"ir_datasets knows no collection {dataset_id!r}") from error
    if not dataset.has_docs():
        raise DatasetError(f"the collection {dataset_id!r} of ir_datasets has no documents")
    docs: Iterable[Any] = dataset.docs_iter()
    return docs


def _from_named_tuple(doc: Any, fields: Fields) -> Document:
    """Make a document; where a collection calls no field "text", ir_datasets chooses what its text is."""
    record: dict[str, Any] = doc._asdict()
    if "text" in fields.text and "text" not in record:
        record |= {"title": None, "text": doc.default_text()}
    return _from_record(record, fields)
