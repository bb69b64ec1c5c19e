"""Reads files of sparse vectors batch by batch, without ever holding a whole one.

The suffix says what a file is::

    .jsonl, .ndjson, .json (or .gz)   {"id": "d1", "vector": {"term": 1.2, ...}}, as Anserini and SPLADE write them
    .parquet                          id, indices (list of int), values (list of float); or id, vector (map of term -> weight)
    .npz                              what scipy.sparse.save_npz writes of a CSR matrix; no ids, rows count from 0

The id may be called ``_id``. JSON and Parquet records may bring a ``title``, a ``text`` (or ``contents``, ``content``) and
``metadata``.
"""

from __future__ import annotations

import gzip
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...index.arrays import Int64s
from ...index.documents import Document
from ...index.errors import DatasetError, DuplicateDocumentError
from ...index.metadata import extend_fields
from ...index.representations.sparse import SparseVectors
from ..corpora.reading import MAX_LINE_BYTES, PARQUET_BATCH_ROWS
from ..corpora.records import as_id
from .vectors import RowError, Rows, checked, pair_rows, row_at

BATCH_ROWS = 4096
BATCH_POSTINGS = 1 << 20
TEXT_KEYS = ("text", "contents", "content")
TEXT_COLUMNS = ("title", *TEXT_KEYS, "metadata")
Batch = tuple[list[Document], SparseVectors]


class DocumentCheck:
    """Finds what an index would refuse while its place is known: an id that comes twice, metadata of another type."""

    def __init__(self, *, ids_only: bool = False) -> None:
        self._ids_only = ids_only
        self._ids: set[str] = set()
        self._fields: dict[str, str] = {}

    def __call__(self, document: Document, path: Path | str, line: int) -> None:
        """Check the next document; raises DuplicateDocumentError or DatasetError that says file and line."""
        if document.doc_id in self._ids:
            raise DuplicateDocumentError([document.doc_id], 1, where=f"{path}, line {line}: ")
        self._ids.add(document.doc_id)
        if self._ids_only:
            return
        try:
            extend_fields(self._fields, document.doc_id, document.metadata)
        except DatasetError as problem:
            raise DatasetError(str(problem), path=path, line=line) from None


class _Read(NamedTuple):
    """A batch before its check; ``lines`` are those of the file, from 1."""

    documents: list[Document]
    lines: list[int]
    rows: Rows


def read_vectors(
    path: Path, *, ids: Iterator[str] | None = None, vocabulary: Mapping[str, int] | None = None, term_numbers: bool = False,
    check: DocumentCheck | None = None,
) -> Iterator[Batch]:  # fmt: skip
    """Read documents and their vectors.

    Parameters
    ----------
    path : Path
        See the module's table.
    ids : iterator of str or None
        Ids for the rows of NPZ files; None: "0", "1", ...
    vocabulary : mapping or None
        Number of each term string: vectors come out with these numbers. None: strings are numbered in each batch anew, and
        ``SparseVectors.vocabulary`` lists them.
    term_numbers : bool
        Term strings are decimal term numbers.
    check : DocumentCheck or None
        What has checked the files before this one.

    Raises
    ------
    DuplicateDocumentError
        An id comes twice.
    DatasetError
        No such file, of no known kind, damaged, or a malformed record: path and line (or row, from 1).
    """
    name = path.name.removesuffix(".gz")
    if not path.is_file():
        raise DatasetError("no such file", path=path)
    if name.endswith((".jsonl", ".ndjson", ".json")):
        batches = _read_json(path)
    elif path.suffix == ".parquet":
        batches = _read_parquet(path)
    elif path.suffix == ".npz":
        batches = _read_npz(path, map(str, count()) if ids is None else ids)
    else:
        raise DatasetError("unknown kind of vectors; use .jsonl (or .gz of it), .parquet, .npz or .ciff", path=path)
    return _checked(path, batches, vocabulary, term_numbers, check or DocumentCheck())


def in_folders(files: Sequence[str]) -> list[str]:
    """Return files with each folder of JSON vectors, as Pyserini writes collections, replaced by its files in order.

    Folders with a ``metadata.json`` are PLAID indexes, and stay.
    """
    found: list[str] = []
    for file in files:
        inside = sorted(str(each) for each in Path(file).iterdir() if _is_json(each.name)) if Path(file).is_dir() else []
        found += inside if inside and not (Path(file) / "metadata.json").exists() else [file]
    return found


def _is_json(name: str) -> bool:
    return name.removesuffix(".gz").endswith((".jsonl", ".ndjson", ".json"))


def read_vocabulary(path: Path) -> dict[str, int]:
    """Read term strings, one a line in the order of their numbers, or a JSON object of string -> number (``.json``).

    Raises
    ------
    DatasetError
        No such file, not UTF-8, a string that comes twice, or numbers that are not 0, 1, 2, ...
    """
    try:
        text = path.read_text("utf-8-sig")
        found = json.loads(text) if path.suffix == ".json" else text.removesuffix("\n").split("\n")
    except (OSError, ValueError) as error:
        raise DatasetError(f"no vocabulary: {error}", path=path) from error
    if isinstance(found, dict):
        numbers = found
    else:
        numbers = {}
        for line, string in enumerate(found, 1):
            if numbers.setdefault(string, line - 1) != line - 1:
                raise DatasetError(f"the term {string!r} comes twice", path=path, line=line)
    if not numbers or set(numbers.values()) != set(range(len(numbers))):
        raise DatasetError(f"the {len(numbers)} term numbers are not 0, 1, 2, ...", path=path)
    return dict(sorted(numbers.items(), key=lambda item: item[1]))


@contextmanager
def _located(path: Path, lines: list[int]) -> Iterator[None]:
    """Say in which line of the file a row is wrong."""
    try:
        yield
    except RowError as problem:
        raise DatasetError(str(problem), path=path, line=lines[problem.row]) from None


def _checked(
    path: Path, batches: Iterator[_Read], vocabulary: Mapping[str, int] | None, term_numbers: bool, check: DocumentCheck
) -> Iterator[Batch]:
    done = 0
    try:
        for documents, lines, rows in batches:
            for document, line in zip(documents, lines, strict=True):
                check(document, path, line)
            with _located(path, lines):
                vectors = checked(_renumbered(rows, vocabulary, term_numbers))
            yield documents, vectors
            done = lines[-1]
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"cannot be read on: {error}", path=path, line=done + 1) from error


def _renumbered(rows: Rows, vocabulary: Mapping[str, int] | None, term_numbers: bool) -> Rows:
    """Replace strings by numbers, where there is a vocabulary or they are numbers; hold numbers to the vocabulary."""
    terms, names = rows.terms, rows.names
    if vocabulary is None and (names is None or not term_numbers):
        return rows
    if names is not None:
        new = [_decimal(name) if term_numbers else (vocabulary or {}).get(name, -1) for name in names]
        terms = np.array(new, np.int64)[terms]
    wrong = (terms < 0) if vocabulary is None else (terms < 0) | (terms >= len(vocabulary))
    if wrong.any():
        at = int(np.argmax(wrong))
        term = rows.terms[at] if names is None else repr(names[rows.terms[at]])
        reason = "is no term number" if vocabulary is None else "is not in the vocabulary"
        raise RowError(row_at(rows.indptr, at), f"term {term} {reason}")
    return Rows(rows.indptr, terms, rows.weights)


def _decimal(name: str) -> int:
    return int(name) if name.isascii() and name.isdecimal() and len(name) < 19 else -1


def _document(doc_id: object, record: Mapping[str, Any]) -> Document:
    """Make a document of what a record holds beside its vector; raises ValueError saying what is wrong."""
    name = as_id(doc_id)
    if name is None:
        raise ValueError(f"'id' must be a string or an integer, found {repr(doc_id)[:40]}")
    title, text = record.get("title") or "", next((record[name] for name in TEXT_KEYS if record.get(name)), "")
    metadata = record.get("metadata") or {}
    if not isinstance(title, str) or not isinstance(text, str) or not isinstance(metadata, dict):
        raise ValueError("'title' and 'text' must be strings, 'metadata' an object")
    return Document(doc_id=name, title=title, text=text, metadata=metadata)


# --- JSON lines ---


def _read_json(path: Path) -> Iterator[_Read]:
    documents: list[Document] = []
    lines: list[int] = []
    vectors: list[dict[str, Any]] = []
    n_postings = 0
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            record = _parsed(line)
            documents.append(_document(record.get("id", record.get("_id")), record))
        except ValueError as error:
            raise DatasetError(str(error), path=path, line=number) from error
        lines.append(number)
        vectors.append(record["vector"])
        n_postings += len(vectors[-1])
        if len(lines) == BATCH_ROWS or n_postings >= BATCH_POSTINGS:
            yield _Read(documents, lines, _string_rows(path, lines, vectors))
            documents, lines, vectors, n_postings = [], [], [], 0
    if lines:
        yield _Read(documents, lines, _string_rows(path, lines, vectors))


def _lines(path: Path) -> Iterator[bytes]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES + 1):
            yield line


def _parsed(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"the line is longer than {MAX_LINE_BYTES >> 20} MiB: one record a line is expected")
    try:
        record = json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(record, dict) or not isinstance(record.get("vector"), dict):
        raise ValueError("""expected an object with a 'vector', as in {"id": "d1", "vector": {"term": 1.2}}""")
    return record


def _string_rows(path: Path, lines: list[int], vectors: list[dict[str, Any]]) -> Rows:
    with _located(path, lines):
        rows = pair_rows(vectors)
    return rows._replace(names=rows.names or [])  # without any term too, these are strings


# --- Parquet ---


def _read_parquet(path: Path) -> Iterator[_Read]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Without these two a whole row group is fetched at once.
        with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            names = file.schema_arrow.names
            id_column = next((name for name in ("id", "_id") if name in names), "id")
            vector = ["vector"] if "vector" in names else ["indices", "values"]
            if not {id_column, *vector} <= set(names):
                raise DatasetError(f"expected the columns id, indices, values or id, vector; there are {names}", path=path)
            texts = [name for name in TEXT_COLUMNS if name in names]
            done = 0
            for batch in file.iter_batches(PARQUET_BATCH_ROWS, columns=[id_column, *vector, *texts], use_threads=False):
                lines = list(range(done + 1, done + batch.num_rows + 1))
                with _located(path, lines):
                    read = _Read(_parquet_documents(batch, id_column, texts), lines, _arrow_rows(batch, vector))
                yield read
                done += batch.num_rows
    except (pa.ArrowException, UnicodeDecodeError, TypeError) as error:
        raise DatasetError(f"not a readable Parquet file of vectors: {error}", path=path) from error


def _parquet_documents(batch: Any, id_column: str, texts: list[str]) -> list[Document]:
    documents = []
    for row, record in enumerate(batch.select([id_column, *texts]).to_pylist()):
        try:
            documents.append(_document(record[id_column], record))
        except ValueError as error:
            raise RowError(row, str(error)) from error
    return documents


def _arrow_rows(batch: Any, names: list[str]) -> Rows:
    """Rows of one map column, or of a list column of terms and one of weights; TypeError for other types."""
    parts = []
    for name in names:
        column = batch.column(name)
        if column.null_count:
            raise RowError(column.is_null().to_pylist().index(True), f"{name!r} is null")
        if not str(column.type).startswith("map<" if name == "vector" else ("list<", "large_list<")):
            raise TypeError(f"the column {name!r} is of type {column.type}, not a {'map' if name == 'vector' else 'list'}")
        offsets = np.asarray(column.offsets, np.int64)
        for part in (column.keys, column.items) if name == "vector" else (column.values,):
            parts.append((offsets - offsets[0], part[int(offsets[0]) : int(offsets[-1])]))
    (indptr, terms), (other, weights) = parts
    differ = np.flatnonzero(indptr != other)
    if len(differ):
        raise RowError(int(differ[0]) - 1, f"{names[0]!r} and {names[-1]!r} have different lengths")
    for part in (terms, weights):
        if part.null_count:
            raise RowError(row_at(indptr, part.is_null().to_pylist().index(True)), "null in the vector")
    if str(terms.type) in ("string", "large_string"):
        encoded = terms.dictionary_encode()
        numbers, strings = np.asarray(encoded.indices, np.int64), encoded.dictionary.to_pylist()
    else:
        numbers, strings = _numbers(terms, "iu").astype(np.int64), None
    return Rows(indptr, numbers, _numbers(weights, "iuf"), strings)


def _numbers(column: Any, kinds: str) -> npt.NDArray[Any]:
    array = np.asarray(column)
    if array.dtype.kind not in kinds:
        raise TypeError(f"a vector holds {column.type}")
    return array


# --- NPZ ---


class _ArrayStream:
    """A 1-d array of an NPZ file, read from its beginning piece by piece."""

    def __init__(self, archive: zipfile.ZipFile, name: str, kinds: str) -> None:
        self._file, self._name = archive.open(f"{name}.npy"), name
        version = np.lib.format.read_magic(self._file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, self._dtype = read_header(self._file)
        if self._dtype.kind not in kinds or len(shape) != 1:
            raise ValueError(f"{name!r} is a {len(shape)}-d array of {self._dtype}, not a 1-d array of numbers")
        self.n = int(shape[0])

    def take(self, n: int) -> npt.NDArray[Any]:
        """Return the next ``n`` elements."""
        raw = self._file.read(n * self._dtype.itemsize)
        if len(raw) < n * self._dtype.itemsize:
            raise ValueError(f"{self._name!r} ends too early")
        return np.frombuffer(raw, self._dtype)


def _read_npz(path: Path, ids: Iterator[str]) -> Iterator[_Read]:
    try:
        with zipfile.ZipFile(path) as archive:
            indptr, n_columns = _csr_shape(path)
            terms, weights = _ArrayStream(archive, "indices", "iu"), _ArrayStream(archive, "data", "biuf")
            if not terms.n == weights.n == indptr[-1]:
                raise ValueError(f"{terms.n} indices and {weights.n} values, but indptr ends at {indptr[-1]}")
            row = 0
            while row < len(indptr) - 1:
                end = int(np.searchsorted(indptr, indptr[row] + BATCH_POSTINGS, side="right")) - 1
                end = min(max(end, row + 1), row + BATCH_ROWS, len(indptr) - 1)
                n = int(indptr[end] - indptr[row])
                rows = Rows(indptr[row : end + 1] - indptr[row], terms.take(n).astype(np.int64), weights.take(n))
                if n and rows.terms.max() >= n_columns:
                    raise ValueError(f"term {rows.terms.max()} in a matrix of {n_columns} columns")
                yield _Read(_npz_documents(ids, row, end), list(range(row + 1, end + 1)), rows)
                row = end
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise DatasetError(f"not an NPZ file of a SciPy CSR matrix: {error}", path=path) from error


def _csr_shape(path: Path) -> tuple[Int64s, int]:
    """Row offsets and the number of columns."""
    with np.load(path, allow_pickle=False) as arrays:
        kind = arrays["format"].item() if "format" in arrays else "csr"
        if kind not in ("csr", b"csr"):
            raise ValueError(f"the matrix is stored as {kind!r}; convert it with .tocsr()")
        indptr, shape = arrays["indptr"], arrays["shape"]
    if indptr.dtype.kind not in "iu" or indptr.ndim != 1 or shape.dtype.kind not in "iu" or shape.shape != (2,):
        raise ValueError("indptr and shape are not those of a matrix")
    offsets = indptr.astype(np.int64)
    if len(offsets) != shape[0] + 1 or offsets[0] != 0 or np.any(np.diff(offsets) < 0):
        raise ValueError(f"indptr does not rise from 0 over {shape[0]} rows")
    return offsets, int(shape[1])


def _npz_documents(ids: Iterator[str], row: int, end: int) -> list[Document]:
    documents = [Document(doc_id=doc_id, text="") for doc_id in islice(ids, end - row)]
    if len(documents) < end - row:
        raise ValueError(f"there is no id for row {row + len(documents) + 1}")
    return documents
