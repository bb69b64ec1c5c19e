"""CIFF in and out: inverted indexes that other engines wrote or will read.

The Common Index File Format (Lin et al., "Supporting Interoperability Between Open-Source Search Engines with the Common
Index File Format", SIGIR 2020) is a stream of protobuf messages, each behind its length as a varint::

    Header        num_postings_lists = 2, num_docs = 3, ..., total_terms_in_collection = 6, average_doclength = 7 (double)
    PostingsList  term = 1, df = 2, cf = 3, repeated Posting {docid gap = 1, tf = 2} = 4      num_postings_lists times
    DocRecord     docid = 1, collection_docid = 2, doclength = 3                              num_docs times

Learned weights travel as impacts in tf, BM25's vectors as term counts. Fields of value 0 are left out, as protobuf does;
unknown fields, and postings whose tf is 0, are passed over.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...index.arrays import Int32s, Int64s
from ...index.collection import BufferLimits, NewField
from ...index.documents import Document, DocumentStore
from ...index.errors import DatasetError, RepresentationError
from ...index.representations.sparse import SparseVectors
from ...index.snapshot import Snapshot
from ...index.sparse.bm25 import Bm25
from ...index.sparse.field import SparseField, SparseSegment
from ...index.sparse.quantize import MAX_IMPACT
from ..build import BuildReport
from ..corpora.reading import Fields
from ..encoders.precomputed import VectorsEncoder
from ..fields import encoder_record
from ..kernels import protobuf
from ..kernels.protobuf import MAX_POSTING_BYTES, PROBLEMS, Bytes
from ..progress import Progress
from .exported import exported
from .importing import DocumentsById, write_index
from .vector_files import Batch

Counts = npt.NDArray[np.unsignedinteger[Any]]
IMPACTS, COUNTS = "lexmax: tf is the impact", "lexmax: tf is the term count"
"""How the header's description begins in our files."""
CHUNK_POSTINGS, CHUNK_DOCS = 1 << 25, 1 << 20
"""What an import holds at a time; a file with more is read once for each chunk."""


def import_ciff(
    path: Path | str, out: Path | str, *, documents: Sequence[str] = (), fields: Fields | None = None, name: str = "vectors",
    field: str = "vectors", progress: Progress | None = None, limits: BufferLimits | None = None,
    reorder: bool | None = False, tf: str | None = None, k1: float = 1.2, b: float = 0.75,
) -> BuildReport:  # fmt: skip
    """Build an index of a CIFF file: its tf become impacts, exactly unless one is larger than 255, or are BM25's term counts.

    Parameters
    ----------
    path : Path or str
        The file, not compressed. It is read at least twice, since the documents' ids stand at its end.
    out : Path or str
        The index folder, made anew.
    documents, fields, name, field, progress, limits
        As in `importing.import_vectors`.
    reorder : bool or None
        See `Collection.compact`; False keeps the file's order of documents.
    tf : "impacts", "counts" or None
        What the file's tf are. Counts are weighed by BM25, with the file's document lengths. None: as our files say, and
        impacts in a file without document lengths.
    k1, b : float
        BM25's parameters, for counts.

    Raises
    ------
    FileExistsError
        ``out`` holds an index.
    DatasetError
        Not a CIFF file, damaged, or with documents, terms or tf that do not fit; says at which byte. Or a file that does not
        say what its tf are, or counts without document lengths.
    DuplicateDocumentError
        Two documents have the same id.
    """
    file = _CiffFile(Path(path))
    terms, n_postings, max_tf = file.survey()
    counts = file.holds_counts(tf, n_postings)
    batches = file.chunks(n_postings, terms if counts else None)
    if documents:
        batches = DocumentsById(documents, fields).of(batches)
    encoder = encoder_record(VectorsEncoder(name=name, terms="strings"))
    if counts:
        new = NewField(encoder=encoder, options={"bm25": asdict(Bm25(k1=k1, b=b))})
    else:
        new = NewField(encoder=encoder, vocabulary=terms, scale=min(1.0, MAX_IMPACT / max(1, max_tf)))
    return write_index(out, field, new, batches, progress=progress, limits=limits, reorder=reorder)


def export_ciff(index: Path | str, path: Path | str, *, field: str | None = None) -> int:
    """Write a sparse field of an index as CIFF: live documents in order, impacts as tf; of BM25, term counts and lengths.

    Terms are the vocabulary's strings, or term numbers where there is no vocabulary. Scores of another engine, divided by the
    scale that the header's description names, are those of lexmax.

    Parameters
    ----------
    index : Path or str
    path : Path or str
        Replaced once the file is whole.
    field : str or None
        Name of the field; None: the only sparse one.

    Returns
    -------
    int
        Documents written.

    Raises
    ------
    IndexNotFoundError, IndexFormatError
        No index there, or a damaged one.
    RepresentationError
        There is no such field, or several, or it is not sparse.
    StorageError
        The disk refuses.
    """
    snapshot, target = Snapshot.open(index, verify=True), Path(path)
    chosen = _sparse_field(snapshot, field)
    parts = _parts(snapshot, chosen)
    with exported(target, "wb") as out:
        terms = np.unique(np.concatenate([np.empty(0, np.int32), *(part.terms for part in parts)]))
        out.write(_delimited(_header(chosen, parts, len(terms))))
        _write_lists(out, chosen, parts, terms)
        _write_records(out, parts)
    return snapshot.n_docs


class _CiffFile:
    """A mapped file; whatever is wrong in it is a DatasetError that says at which byte."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._data: Bytes = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        except (OSError, ValueError) as error:  # an empty file cannot be mapped
            raise DatasetError(f"no CIFF file: {error}", path=path) from error
        header = self._header()
        self._n_lists, self.n_docs = header.get(2, 0), header.get(3, 0)
        for number, what in ((self._n_lists, "postings lists"), (self.n_docs, "documents")):
            if not 0 <= number <= len(self._data):
                raise self._wrong(0, f"a header of {number} {what}, in a file of {len(self._data)} bytes")

    def survey(self) -> tuple[list[str], Int64s, int]:
        """Check the whole file; return its terms, the number of postings of each document, and the largest tf."""
        n_postings, max_tf = np.zeros(self.n_docs, np.int64), 0
        terms: dict[str, None] = {}
        first_record = self._first_list
        for term, docs, tfs, end in self._lists():
            n_postings[docs[tfs > 0]] += 1
            max_tf = max(max_tf, int(tfs.max(initial=0)))
            string = self._string(*term)
            if string in terms:
                raise self._wrong(term[0], f"the term {string!r} comes twice")
            terms[string] = None
            first_record = end
        self._ids, self._lengths, at, problem = protobuf.read_records(self._data, first_record, self.n_docs)
        if problem:
            raise self._wrong(int(at), PROBLEMS[problem])
        if at != len(self._data):
            raise self._wrong(int(at), f"bytes after the last of {self.n_docs} documents")
        return list(terms), n_postings, max_tf

    def holds_counts(self, tf: str | None, n_postings: Int64s) -> bool:
        """Whether tf are term counts, as the caller or the file says; after `survey`."""
        if tf not in (None, "counts", "impacts"):
            raise ValueError(f"tf are 'counts' or 'impacts', not {tf!r}")
        missing = (self._lengths == 0) & (n_postings > 0)
        if tf is None and not self.description.startswith((IMPACTS, COUNTS)):
            if self._lengths.any():
                raise DatasetError(
                    "the file does not say what its tf are: import it with --tf counts (BM25 over the file's document lengths) "
                    "or --tf impacts (weights of an encoder)", path=self.path,
                )  # fmt: skip
            return False
        counts = tf == "counts" or (tf is None and self.description.startswith(COUNTS))
        if counts and missing.any():
            first = self._string(*self._ids[int(np.argmax(missing))].tolist())
            raise DatasetError(
                f"the document {first!r} has no length, which BM25 needs: import with --tf impacts", path=self.path
            )
        return counts

    def chunks(self, n_postings: Int64s, vocabulary: Sequence[str] | None) -> Iterator[Batch]:
        """Documents and vectors, transposed chunk by chunk; after `survey`. With a vocabulary they are counts, with lengths."""
        totals = np.cumsum(n_postings)
        first = 0
        while first < self.n_docs:
            most = CHUNK_POSTINGS + (int(totals[first - 1]) if first else 0)
            end = min(max(int(np.searchsorted(totals, most, side="right")), first + 1), first + CHUNK_DOCS)
            indptr = np.zeros(end - first + 1, np.int64)
            np.cumsum(n_postings[first:end], out=indptr[1:])
            terms, weights, cursors = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32), indptr[:-1].copy()
            for number, (_, docs, tfs, _) in enumerate(self._lists()):
                protobuf.place(docs[tfs > 0], tfs[tfs > 0], number, first, end, cursors, terms, weights)
            documents = [Document(doc_id=self._string(*span), text="") for span in self._ids[first:end].tolist()]
            lengths = None if vocabulary is None else self._lengths[first:end]
            yield documents, SparseVectors(indptr, terms, weights, vocabulary, lengths)
            first = end

    def _header(self) -> dict[int, int]:
        """Whole numbers of the header, by field."""
        size, at = protobuf.varint(self._data, 0, len(self._data))
        if at < 0 or not 0 < size <= len(self._data) - at:
            raise self._wrong(0, "no CIFF header; a compressed file must be unpacked first")
        self._first_list = int(at + size)
        numbers: dict[int, int] = {}
        self.description = ""
        while at < self._first_list:
            number, kind, value, start, following = protobuf.field(self._data, at, self._first_list)
            if following < 0:
                raise self._wrong(int(at), "no CIFF header; a compressed file must be unpacked first")
            if kind == 0:
                numbers[int(number)] = int(value)
            elif kind == 2 and number == 8:
                self.description = self._data[start:following].tobytes().decode(errors="replace")
            at = following
        return numbers

    def _lists(self) -> Iterator[tuple[tuple[int, int], Int32s, Int32s, int]]:
        """Span of the term, documents, tfs (both valid until the next) and the end of each postings list."""
        docs, tfs = np.empty(self.n_docs, np.int32), np.empty(self.n_docs, np.int32)
        at: int | np.int64 = self._first_list
        for _ in range(self._n_lists):
            at, n, term_start, term_end, problem = protobuf.read_list(self._data, at, docs, tfs)
            if problem:
                raise self._wrong(int(at), PROBLEMS[problem])
            yield (int(term_start), int(term_end)), docs[:n], tfs[:n], int(at)

    def _string(self, start: int, end: int) -> str:
        try:
            string = self._data[start:end].tobytes().decode()
        except UnicodeDecodeError as error:
            raise self._wrong(start + error.start, "a string is not UTF-8") from error
        if not string:
            raise self._wrong(start, "an empty term or document id")
        return string

    def _wrong(self, offset: int, reason: str) -> DatasetError:
        return DatasetError(f"byte {offset}: {reason}", path=self.path)


# --- writing ---


class _Part(NamedTuple):
    """What one segment gives: which terms it has live, and new docids (-1: deleted), lengths and tf in its own order."""

    documents: DocumentStore
    segment: SparseSegment
    terms: Int32s
    docids: Int64s
    lengths: Int64s
    tfs: Counts


def _sparse_field(snapshot: Snapshot, name: str | None) -> SparseField:
    if name is None:
        return snapshot.only_field(SparseField, "sparse vectors")
    chosen = snapshot.field(name)
    if not isinstance(chosen, SparseField):
        raise RepresentationError(f"{snapshot.path}: the field {name!r} is not sparse but {chosen.representation}")
    return chosen


def _parts(snapshot: Snapshot, field: SparseField) -> list[_Part]:
    parts, n_docs = [], 0
    for whole, segment in zip(snapshot.segments, field.segments, strict=True):
        inverted, arrays = segment.inverted, segment.inverted.arrays
        live = np.ones(segment.n_docs, np.bool_) if segment.live is None else segment.live
        docids = np.where(live, n_docs + np.cumsum(live) - 1, -1)
        n_docs += int(live.sum())
        terms = inverted.terms
        ranks, impacts = inverted.entries()
        if segment.live is not None:
            terms = terms[np.unique(ranks[np.repeat(live, np.diff(arrays.forward_indptr))])]
        if inverted.counts is not None and inverted.lengths is not None:
            tfs = inverted.counts[np.argsort(ranks, kind="stable")]  # by document; so in the order of the postings
            lengths = inverted.lengths.astype(np.int64)
        else:
            tfs, lengths = arrays.impacts, _row_sums(arrays.forward_indptr, impacts)
        parts.append(_Part(whole.documents, segment, terms, docids, lengths, tfs))
    return parts


def _row_sums(indptr: Int64s, values: Bytes) -> Int64s:
    sums, filled = np.zeros(len(indptr) - 1, np.int64), np.diff(indptr) > 0
    sums[filled] = np.add.reduceat(values, indptr[:-1][filled], dtype=np.int64)
    return sums


def _header(field: SparseField, parts: Sequence[_Part], n_terms: int) -> bytes:
    total = sum(int(part.lengths[part.docids >= 0].sum()) for part in parts)
    n_docs, scale = field.n_docs, field.scale
    what = COUNTS if field.bm25 else f"{IMPACTS}, weight x {scale!r}"
    return b"".join([
        _whole(1, 1), _whole(2, n_terms), _whole(3, n_docs), _whole(4, n_terms), _whole(5, n_docs), _whole(6, total),
        b"\x39", np.array(total / max(1, n_docs), "<f8").tobytes(), _string(8, what),
    ])  # fmt: skip


def _write_lists(out: IO[bytes], field: SparseField, parts: Sequence[_Part], terms: Int32s) -> None:
    ranks = np.array([part.segment.inverted.ranks(terms) for part in parts], np.int64).reshape(len(parts), len(terms))
    vocabulary = field.vocabulary
    for i, number in enumerate(terms.tolist()):
        found = [_postings(part, int(rank)) for part, rank in zip(parts, ranks[:, i].tolist(), strict=True) if rank >= 0]
        docids, tfs = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
        buffer = np.empty(MAX_POSTING_BYTES * len(docids), np.uint8)
        postings = buffer[: protobuf.write_postings(docids, tfs.astype(np.int64), buffer)].tobytes()
        name = vocabulary.strings(terms[i : i + 1])[0] if len(vocabulary) else str(number)
        head = _string(1, name) + _whole(2, len(docids)) + _whole(3, int(tfs.sum(dtype=np.int64)))
        out.write(_delimited(head + postings))


def _postings(part: _Part, rank: int) -> tuple[Int64s, Counts]:
    """Live docids and tfs of one term in a segment."""
    arrays, window = part.segment.inverted.arrays, part.segment.inverted.window
    first, end = arrays.starts[rank : rank + 2].tolist()
    runs = slice(*arrays.run_starts[rank : rank + 2].tolist())
    offsets = arrays.run_offsets[runs].astype(np.int64)
    widths = np.append(offsets[1:], end - first) - offsets
    bases = np.repeat(arrays.run_windows[runs].astype(np.int64) * window, widths)
    docids = part.docids[bases + arrays.slots[first:end]]
    return docids[docids >= 0], part.tfs[first:end][docids >= 0]


def _write_records(out: IO[bytes], parts: Sequence[_Part]) -> None:
    for part in parts:
        doc_ids = part.documents.doc_ids.to_arrow().to_pylist()
        for docid, doc_id, length in zip(part.docids.tolist(), doc_ids, part.lengths.tolist(), strict=True):
            if docid >= 0:
                out.write(_delimited(_whole(1, docid) + _string(2, doc_id) + _whole(3, length)))


def _as_varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 128:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _whole(number: int, value: int) -> bytes:
    return bytes([number << 3]) + _as_varint(value) if value else b""


def _string(number: int, text: str) -> bytes:
    return bytes([number << 3 | 2]) + _delimited(text.encode())


def _delimited(message: bytes) -> bytes:
    return _as_varint(len(message)) + message
