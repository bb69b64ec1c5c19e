"""Reads corpora record by record, without ever holding a whole file.

A source is named by a path or a string::

    corpus.jsonl, .ndjson   one JSON object per line
    corpus.json             an array of JSON objects, or JSON lines
    corpus.csv              commas, quotes, a header line that names the columns
    corpus.tsv              id TAB text, or id TAB title TAB text, or columns that a header line names; no quoting
    corpus.parquet          one row per record, columns as the keys of JSON lines
    FOLDER                  a BEIR folder (its corpus.jsonl or corpus.jsonl.gz), or .txt and .md files, one per document
    -                       JSON lines on standard input
    ir_datasets:ID          a collection of the ir_datasets package

JSON, CSV and TSV may be gzipped (``.gz``). They must be UTF-8; blank lines are skipped. The index refuses ids that come
twice; `Corpus.place` tells where a document was read.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ...index.document_buffer import DocumentColumns
from ...index.documents import Document
from ...index.errors import DatasetError, MissingDependencyError
from .folders import beir_corpus, folder_documents, text_files
from .lines import KEYED, MAX_LINE_BYTES, Columns, Item, Items, json_lines, json_stream, kind_of, tsv
from .records import BadRecord, BadRecords, Fields, resolve, to_document
from .tables import PARQUET_BATCH_ROWS, parquet_rows

__all__ = [
    "MAX_LINE_BYTES",
    "PARQUET_BATCH_ROWS",
    "BadRecord",
    "BadRecords",
    "Corpus",
    "Fields",
    "Place",
    "Position",
    "read_corpus",
]

MAX_LEFT_OUT_TOLD = 50
"""So many keys that are not kept are told by name."""
Source = str | os.PathLike[str]
Notice = Callable[[str], None]


class Place(NamedTuple):
    """Where a document was read: a path or source, and a line or row from 1."""

    path: str
    line: int


class Position(NamedTuple):
    """How far a corpus was read: what another reading of the same sources needs to go on from there.

    ``source`` is the number of the source, ``path`` and ``line`` are the last document's `Place`, and ``fields`` is what was
    recognised by then.
    """

    source: int
    path: str
    line: int
    fields: Fields


Located = tuple[str, int, Item]
"""An item with the `Place` where it begins."""
READ_ERRORS = (OSError, EOFError, zlib.error)
"""A truncated or damaged gzip stream, a failing disk."""
FIRST_CHUNK = 16
CHUNK = 256
"""So many items are made documents of together, or fewer where they are long."""


class Part(NamedTuple):
    """One source: its name in messages, and what is read from it, later."""

    name: str
    items: Iterator[Located]
    fields: Fields


class Corpus(Iterator[Document]):
    """The documents of sources, one after the other; an iterator, to be read once.

    Attributes
    ----------
    fields : Fields or None
        Which keys hold what: those given, and what was recognised once reading has begun. None where records have no keys.
        Where sources differ, what was recognised first.
    place : Place or None
        Where the last document was read.
    position : Position or None
        The same for `read_corpus`, which goes on there.
    """

    def __init__(
        self, parts: Sequence[Part], fields: Fields | None, bad: BadRecords | None, notice: Notice | None,
        *, flags: bool = True, after: Position | None = None,
    ) -> None:  # fmt: skip
        self.fields = fields
        self.place: Place | None = None
        self._bad, self._notice, self._flags = bad, notice, flags
        self._resolved = False
        self._after, self._source = after, 0
        self._parts = islice(enumerate(parts), 0 if after is None else after.source, None)
        self._reading: tuple[_Records, Iterator[Located]] | None = None
        self._documents = (document for records, items in self._rest() for document in self._documents_of(records, items))

    @property
    def position(self) -> Position | None:  # noqa: D102
        if self.place is None or self._reading is None:
            return None
        return Position(self._source, *self.place, self._reading[0].settled)

    def __next__(self) -> Document:
        return next(self._documents)

    def batches(self, n_docs: int, n_chars: int) -> Iterator[tuple[DocumentColumns, list[tuple[str, int]]]]:
        """Read on in batches, which takes less time than document by document.

        Parameters
        ----------
        n_docs, n_chars : int
            Documents of a batch at most; it ends before, where they have more characters than ``n_chars``.

        Yields
        ------
        documents : DocumentColumns
        places : list of (str, int)
            The `Place` of each.
        """
        found: list[DocumentColumns] = []
        places: list[tuple[str, int]] = []
        n, size = 0, min(n_docs, FIRST_CHUNK)
        for records, items in self._rest():
            last = records.name, 0
            while chunk := self._chunk(items, min(size, n_docs - len(places)), last):
                last = chunk[-1][:2]
                settled = self._resolved or isinstance(chunk[0][2], Document)
                columns = records.columns([item for _, _, item in chunk]) if settled else None
                if columns is not None:
                    places += [(path, line) for path, line, _ in chunk]
                    self.place = Place(*places[-1])
                else:
                    pairs = [(document, self.place) for document in self._documents_of(records, iter(chunk))]
                    columns = DocumentColumns.of([document for document, _ in pairs])
                    places += [place for _, place in pairs if place is not None]
                found.append(columns)
                n += columns.n_chars
                if len(places) == n_docs or n > n_chars:
                    yield DocumentColumns.joined(found), places
                    found, places, n = [], [], 0
                size = max(1, min(n_docs, CHUNK, n_chars // (1 + max(map(len, columns.texts), default=0))))
        if places:
            yield DocumentColumns.joined(found), places

    def _rest(self) -> Iterator[tuple[_Records, Iterator[Located]]]:
        """Pass on the source that is being read, and those after it."""
        if self._reading is not None:
            yield self._reading
        for number, part in self._parts:
            self._source = number
            if self._after is not None and self._source == self._after.source:
                items, fields = _beyond(part.items, self._after), self._after.fields
            else:
                items, fields = part.items, part.fields
            self._reading = _Records(part.name, fields, self._notice, self._flags), items
            yield self._reading

    def _chunk(self, items: Iterator[Located], size: int, last: tuple[str, int]) -> list[Located]:
        """Read some items of a source, after the one at ``last``."""
        chunk: list[Located] = []
        try:
            chunk.extend(islice(items, size))
        except READ_ERRORS as error:
            path, line = chunk[-1][:2] if chunk else last
            raise DatasetError(f"cannot be read on: {error}", path=path, line=line + 1) from error
        return chunk

    def _documents_of(self, records: _Records, items: Iterator[Located]) -> Iterator[Document]:
        """Make documents of items one by one."""
        path, line = records.name, 0
        try:
            for path, line, item in items:
                try:
                    document = records.document(item)
                except ValueError as error:
                    if self._bad is None or isinstance(item, Columns):
                        raise self._error(str(error), path, line) from error
                    self._bad.add(path, line, str(error))
                    continue
                if document is None:
                    continue
                if not self._resolved and records.fields.id is not None and not isinstance(item, Document):
                    self.fields, self._resolved = records.fields, records.fields.text is not None
                self.place = Place(path, line)
                yield document
        except READ_ERRORS as error:
            raise DatasetError(f"cannot be read on: {error}", path=path, line=line + 1) from error

    def _error(self, message: str, path: str, line: int) -> DatasetError:
        if not self._flags:
            return DatasetError(f"{path}[{line - 1}]: {message}")
        return DatasetError(message, path=path, line=line)


class _Records:
    """Makes documents of the items of one source; chooses keys from the first record, and tells so and what is left out."""

    def __init__(self, name: str, fields: Fields, notice: Notice | None, flags: bool) -> None:
        self.name, self.fields = name, fields
        self._notice, self._flags, self._left_out = notice, flags, set[str]()
        self._open = fields.id is None or fields.text is None or fields.title is None

    @property
    def settled(self) -> Fields:
        """What was recognised, for another reading: a title that was not there will not be looked for again."""
        return self.fields if self._open else replace(self.fields, title=self.fields.title or ())

    def document(self, item: Item) -> Document | None:
        """Return a document; None for a header. Raises ValueError with the reason when the item is malformed."""
        if isinstance(item, Document):
            return item
        if isinstance(item, ValueError):
            raise item
        if isinstance(item, Columns):
            self._columns(item)
            return None
        if self._open:
            self._choose([key for key, value in item.items() if value is not None])
        left_out: set[str] = set()
        document = to_document(item, self.fields, left_out)
        if not left_out <= self._left_out:
            self._tell_left_out(left_out - self._left_out)
        return document

    def columns(self, items: Sequence[Item]) -> DocumentColumns | None:
        """Return documents as columns, and of records that have strings for id, title and text alone; None for others."""
        kinds, fields = set(map(type, items)), self.fields
        records: Sequence[Any] = items
        if kinds == {Document}:
            return DocumentColumns.of(records)
        titles_of, texts_of = fields.title or (), fields.text or ()
        if self._open or fields.metadata is not None or len(titles_of) > 1 or len(texts_of) != 1:
            return None
        if kinds != {dict} or not fields.plain.issuperset(chain.from_iterable(records)):
            return None
        id_key, text_key, title_key = fields.id, texts_of[0], titles_of[0] if titles_of else None
        doc_ids, texts = [each.get(id_key) for each in records], [each.get(text_key) for each in records]
        titles = ["" if (title := each.get(title_key)) is None else title for each in records]
        if {*map(type, doc_ids), *map(type, titles), *map(type, texts)} != {str} or "" in doc_ids:
            return None
        return DocumentColumns(doc_ids, titles, texts)

    def _tell_left_out(self, keys: set[str]) -> None:
        told = len(self._left_out) < MAX_LEFT_OUT_TOLD
        self._left_out |= keys
        if self._notice and told:
            named = "--metadata-field" if self._flags else "Fields(metadata=...)"
            more = "" if len(self._left_out) < MAX_LEFT_OUT_TOLD else "; more keys of such types are left out without a word"
            shown = ", ".join(map(repr, sorted(keys)[:MAX_LEFT_OUT_TOLD]))
            self._notice(f"{self.name}: not kept as metadata, by type: {shown}; name a key with {named} to keep it{more}")

    def _columns(self, names: Columns) -> None:
        if self.fields.id is not None and self.fields.id not in names:
            raise ValueError(f"no column {self.fields.id!r} to take the id from; there are {list(names)}")
        wanted = (*(self.fields.title or ()), *(self.fields.text or ()))
        if wanted and self.fields.text is not None and not any(name in names for name in wanted):
            raise ValueError(f"no column {' or '.join(map(repr, wanted))} to take the text from; there are {list(names)}")
        self._choose(list(names))

    def _choose(self, keys: Sequence[str]) -> None:
        self.fields, choice = resolve(self.fields, keys, flags=self._flags)
        self._open = self.fields.text is None
        if choice and self._notice:
            self._notice(f"{self.name}: {choice}")


def read_corpus(
    sources: Source | Sequence[Source],
    *,
    fields: Fields | None = None,
    bad: BadRecords | None = None,
    stdin: BinaryIO | None = None,
    notice: Notice | None = None,
    after: Position | None = None,
) -> Corpus:
    """Read documents from sources, one after the other.

    Every source is looked up before the first document is read, so a mistyped name is known at once.

    Parameters
    ----------
    sources : path, or sequence of paths
        See the module's table.
    fields : Fields, optional
        Which keys hold what; what it leaves open is recognised from each source's first record. TSV without a header and
        folders of texts have no keys and do not use it. In ir_datasets the id is always ``doc_id``, and only metadata that
        is named is kept, for other fields there often repeat the text.
    bad : BadRecords, optional
        Takes malformed records; without it the first one raises.
    stdin : binary file, optional
        What ``-`` reads; by default the process's standard input.
    notice : callable, optional
        Called with a sentence about what was recognised (keys other than BEIR's) and what is left out.
    after : Position, optional
        Where an earlier reading of the same sources stood: go on after it. Sources before it are not opened again, and lines of
        JSON before it are not parsed.

    Returns
    -------
    Corpus
        An iterator of documents.

    Raises
    ------
    DatasetError
        A source is missing or of no known kind, a file is damaged, or a record is malformed: path and line.
    MissingDependencyError
        The source is of ir_datasets, which is not installed.
    """
    if isinstance(sources, str | os.PathLike):
        sources = [sources]
    parts = [
        _open_source(
            os.fspath(source), fields or Fields(), stdin, notice, after.line if after and number == after.source else 0
        )
        for number, source in enumerate(sources)
    ]
    return Corpus(parts, fields, bad, notice, after=after)


def _beyond(items: Iterator[tuple[str, int, Item]], after: Position) -> Iterator[tuple[str, int, Item]]:
    """Pass on items after a position, and headers."""
    met = False
    for path, line, item in items:
        if isinstance(item, Columns):
            yield path, line, item
        elif path == after.path and line <= after.line:
            met = True
        elif met or path == after.path:
            yield path, line, item
            yield from items


def _open_source(source: str, fields: Fields, stdin: BinaryIO | None, notice: Notice | None, after: int) -> Part:
    if source.startswith("ir_datasets:"):
        chosen = replace(
            fields, id="doc_id", title=("title",) if fields.title is None else fields.title,
            text=("text",) if fields.text is None else fields.text, metadata=fields.metadata or (),
        )  # fmt: skip
        docs = _ir_datasets_docs(source.removeprefix("ir_datasets:"))
        return Part(source, _named(source, _numbered(docs, chosen)), chosen)
    if source == "-":
        stream = stdin or sys.stdin.buffer
        return Part("standard input", _named("standard input", json_stream(stream.readline)), fields)
    if not source:
        raise DatasetError("the name of a corpus is empty")
    path = Path(source)
    if path.is_dir():
        beir = beir_corpus(path)
        if beir is None:
            return _open_folder(path, fields, notice)
        path = beir
    elif not path.exists():
        raise DatasetError("no such file or folder", path=path)
    return Part(str(path), _named(str(path), _open_file(path, fields, notice, after)), fields)


def _open_file(path: Path, fields: Fields, notice: Notice | None, after: int) -> Items:
    kind = kind_of(path)
    if after and kind in (".jsonl", ".ndjson"):
        return json_lines(path, after)
    if kind in KEYED:
        return KEYED[kind](path)
    if kind == ".tsv":
        return tsv(path, fields)
    if path.suffix == ".parquet":
        return parquet_rows(path, fields, notice)
    raise DatasetError("unknown kind of corpus; use .jsonl, .json, .csv, .tsv (or .gz of them) or .parquet", path=path)


def _open_folder(path: Path, fields: Fields, notice: Notice | None) -> Part:
    files, left_out = text_files(path)
    if not files:
        raise DatasetError("the folder has no corpus.jsonl or corpus.jsonl.gz, and no .txt or .md files", path=path)
    items = ((str(file), line, item) for file, line, item in folder_documents(path, files, left_out, notice))
    return Part(str(path), items, fields)


def _named(name: str, items: Items) -> Iterator[tuple[str, int, Item]]:
    return ((name, line, item) for line, item in items)


def _numbered(docs: Iterable[Any], fields: Fields) -> Items:
    """Records of ir_datasets; where a collection calls no field "text", ir_datasets chooses what its text is."""
    for number, doc in enumerate(docs, 1):
        record: dict[str, Any] = doc._asdict()
        if "text" in (fields.text or ()) and "text" not in record:
            record |= {"title": None, "text": doc.default_text()}
        yield number, record


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
