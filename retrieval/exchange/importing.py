"""From files of ready-made vectors to an index, in one commit."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any, TypeVar

from ...index.collection import BufferLimits, Collection, NewField
from ...index.documents import Document
from ...index.errors import DatasetError
from ..build import BuildReport, seldom_collected
from ..corpora.reading import Fields, read_corpus
from ..encoders.precomputed import VectorsEncoder
from ..fields import encoder_record
from ..progress import Progress
from .vector_files import Batch, DocumentCheck, read_vectors, read_vocabulary

VectorsT = TypeVar("VectorsT")


def import_vectors(
    sources: Sequence[Path | str], out: Path | str, *, documents: Sequence[str] = (), fields: Fields | None = None,
    vocabulary: Path | str | None = None, ids: Path | str | None = None, term_numbers: bool = False, name: str = "vectors",
    field: str = "vectors", progress: Progress | None = None, limits: BufferLimits | None = None, reorder: bool | None = None,
) -> BuildReport:  # fmt: skip
    """Build an index of files of vectors: of all of them or, after an error, of none.

    Parameters
    ----------
    sources : sequence of Path or str
        JSON lines, Parquet and NPZ files; see `vector_files`.
    out : Path or str
        The index folder, made anew.
    documents : sequence of str
        Corpora with the texts, as `corpus.read_corpus` takes them; see `DocumentsById`.
    fields : Fields or None
        Which keys hold what in ``documents``.
    vocabulary : Path, str or None
        Strings of all terms: a line for each term number, or JSON ``{"term": number}``. None: term strings are collected.
    ids : Path, str or None
        Lines of ids for the rows of NPZ files; None: rows are numbered from 0, on through all files.
    term_numbers : bool
        The keys of JSON and Parquet are term numbers, although JSON writes them as strings.
    name : str
        What made the vectors, for the field's fingerprint.
    field : str
        Name of the field.
    progress : callable or None
        Called with the number of documents done.
    limits : BufferLimits or None
        Memory of the writer.
    reorder : bool or None
        See `Collection.compact`.

    Raises
    ------
    FileExistsError
        ``out`` holds an index.
    DatasetError, DuplicateDocumentError
        A malformed file (path, and line or row from 1), a vector without a document, or an id that comes twice.
    RepresentationError
        Some files hold term strings and others term numbers.
    """
    paths = [Path(source) for source in sources]
    if ids is not None and not all(path.suffix == ".npz" for path in paths):
        raise ValueError("ids are for NPZ files: records of JSON and Parquet have their own")
    strings = None if vocabulary is None else read_vocabulary(Path(vocabulary))
    lines = map(str, count()) if ids is None else read_ids(Path(ids))
    check = DocumentCheck(ids_only=bool(documents))  # the documents' metadata take the place of those beside the vectors
    parts = (read_vectors(path, ids=lines, vocabulary=strings, term_numbers=term_numbers, check=check) for path in paths)
    batches: Iterator[Batch] = chain.from_iterable(parts)
    first = next(batches, None)
    if first is None:
        raise DatasetError("there are no vectors", path=paths[0] if paths else None)
    encoder = VectorsEncoder(name=name, terms="numbers" if first[1].vocabulary is None else "strings")
    batches = chain([first], batches)
    if documents:
        batches = DocumentsById(documents, fields).of(batches)
    if ids is not None:
        batches = chain(batches, none_left(lines, Path(ids)))
    new = NewField(encoder=encoder_record(encoder), vocabulary=list(strings or []))
    return write_index(out, field, new, batches, progress=progress, limits=limits, reorder=reorder)


def write_index(
    out: Path | str, field: str, new: NewField, batches: Iterator[Any], *, progress: Progress | None = None,
    limits: BufferLimits | None = None, reorder: bool | None = None,
) -> BuildReport:  # fmt: skip
    """Write documents with their vectors, (documents, vectors) a batch, to a new index of one field."""
    start = time.monotonic()
    n_added = 0
    with seldom_collected(), Collection.create(out, {field: new}, search=field, limits=limits) as collection:
        for documents, vectors in batches:
            collection.add(documents, {field: vectors})
            n_added += len(documents)
            if progress:
                progress(n_added)
        read = time.monotonic()
        collection.compact(reorder=reorder)
        collection.commit()
    return BuildReport(n_added=n_added, elapsed_s=read - start, compact_s=time.monotonic() - read)


class DocumentsById:
    """Finds the documents of vectors in corpora that are read once, as far as needed.

    Documents that come in the order of the vectors are never held; those passed over are kept until their vector comes.
    """

    def __init__(self, sources: Sequence[str], fields: Fields | None = None) -> None:
        self._source = sources[0]
        self._documents = read_corpus(sources, fields=fields)
        self._passed: dict[str, Document] = {}
        self._check = DocumentCheck()

    def of(self, batches: Iterator[tuple[list[Document], VectorsT]]) -> Iterator[tuple[list[Document], VectorsT]]:
        """Put the corpus's documents in the place of those in ``batches``; raises DatasetError where there is none."""
        for documents, vectors in batches:
            yield [self._find(document.doc_id) for document in documents], vectors

    def _find(self, doc_id: str) -> Document:
        if doc_id in self._passed:
            return self._passed.pop(doc_id)
        for document in self._documents:
            if self._documents.place is not None:
                self._check(document, *self._documents.place)
            if document.doc_id == doc_id:
                return document
            self._passed[document.doc_id] = document
        raise DatasetError(f"no document for the vector {doc_id!r}, or two vectors for it", path=self._source)


def read_ids(path: Path) -> Iterator[str]:
    """Yield the id on each line of a file; raises DatasetError when it cannot be read."""
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for line in file:
                yield line.rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise DatasetError(f"no list of ids: {error}", path=path) from error


def none_left(lines: Iterator[str], path: Path) -> Iterator[Batch]:
    """Raise DatasetError when there are more ids than rows; yields nothing."""
    extra = next(lines, None)
    if extra is not None:
        raise DatasetError(f"the id {extra!r} has no row: there are more ids than vectors", path=path)
    yield from ()
