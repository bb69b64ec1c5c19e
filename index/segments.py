"""Immutable segments: a folder with the vectors, the documents and the doc_ids of a run of documents.

The vectors are an inverted part, alone or with the sparse tokens that it was made from, or, in an index of token vectors, a
multi-vector part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .arrays import Floats
from .documents import Document, DocumentBuffer, DocumentStore
from .errors import IndexFormatError, RepresentationError
from .manifest import SegmentRecord
from .multivector.codes import MultiVectorIndex
from .multivector.residual import Codec
from .representations.sparse import SparseVectors
from .representations.sparse_multivectors import SparseMultiVectors
from .sparse.bm25 import MAX_COUNT, Bm25
from .sparse.inverted import ImpactRows, InvertedIndex, write_inverted
from .sparse.quantize import measured_error, quantize
from .sparse.sparse_tokens import FILE_NAME as SPARSE_TOKENS_NAME
from .sparse.sparse_tokens import SparseTokenIndex, SparseTokenRows
from .storage import ArrayFile, ArrayFileWriter, sync_folder

DELETES_KIND = "deletes"
Mask = npt.NDArray[np.bool_]


class Segment:
    """An open segment; ``base`` is the doc_num of its first document, ``live`` says which are not deleted (None: all)."""

    def __init__(
        self,
        index: Path,
        record: SegmentRecord,
        base: int,
        fields: Mapping[str, str],
        *,
        codec: Codec | None = None,
        sparse_tokens: bool = False,
        verify: bool | None = None,
    ) -> None:
        folder = index / record.name
        self.record, self.base = record, base
        self.vectors: InvertedIndex | MultiVectorIndex | SparseTokenIndex
        if sparse_tokens:
            self.vectors = SparseTokenIndex(folder, verify=verify)
        elif codec is None:
            self.vectors = InvertedIndex(folder / "inverted.lex", verify=verify)
        else:
            self.vectors = MultiVectorIndex(folder, codec, verify=verify)
        self.documents = DocumentStore(folder, fields, verify=verify)
        self.live = _read_live(index, record, verify=verify)
        for found in (self.vectors.n_docs, len(self.documents)):
            if found != record.n_docs:
                raise IndexFormatError(folder, expected=f"{record.n_docs} documents", found=found)

    @property
    def inverted(self) -> InvertedIndex:
        """The inverted part; raises RepresentationError in an index of token vectors."""
        if isinstance(self.vectors, SparseTokenIndex):
            return self.vectors.inverted
        if not isinstance(self.vectors, InvertedIndex):
            raise RepresentationError(f"{self.vectors.file.path}: an index of token vectors has no posting lists")
        return self.vectors

    @property
    def tokens(self) -> MultiVectorIndex:
        """The multi-vector part; raises RepresentationError in an index of sparse vectors."""
        if not isinstance(self.vectors, MultiVectorIndex):
            raise RepresentationError(f"{self.vectors.file.path}: an index of sparse vectors has no token vectors")
        return self.vectors

    @property
    def sparse_tokens(self) -> SparseTokenIndex:
        """The sparse tokens; raises RepresentationError in an index without them."""
        if not isinstance(self.vectors, SparseTokenIndex):
            raise RepresentationError(f"{self.vectors.file.path}: the index holds no sparse token vectors")
        return self.vectors

    @property
    def n_live(self) -> int:
        """Documents that are not deleted."""
        return self.record.n_docs if self.live is None else int(self.live.sum())

    @property
    def n_bytes(self) -> int:
        """Size of the segment's files in bytes."""
        return self.vectors.n_bytes + self.documents.file.n_bytes + self.documents.ids_n_bytes

    def find(self, doc_ids: Sequence[str]) -> npt.NDArray[np.int32]:
        """Local position of each live doc_id, -1 where it is absent or deleted."""
        found = self.documents.doc_ids.find(doc_ids)
        if self.live is not None:
            found = np.where((found >= 0) & self.live[found], found, -1).astype(np.int32)
        return found


def _read_live(index: Path, record: SegmentRecord, *, verify: bool | None) -> Mask | None:
    if record.deletes is None:
        return None
    file = ArrayFile(index / record.deletes, DELETES_KIND, verify=verify)
    if len(file["deleted"]) != -(-record.n_docs // 8):
        raise IndexFormatError(file.path, expected=f"a bit for each of {record.n_docs} documents", found=len(file["deleted"]))
    live: Mask = np.unpackbits(file["deleted"], count=record.n_docs) == 0
    if record.n_docs - int(live.sum()) != record.n_deleted:
        raise IndexFormatError(file.path, expected=f"{record.n_deleted} deleted", found=record.n_docs - int(live.sum()))
    return live


def write_deletes(path: Path, live: Mask) -> None:
    """Write the bitmap of deleted documents."""
    with ArrayFileWriter(path, DELETES_KIND) as out:
        out.add("deleted", np.packbits(~live), structural=True)


class SegmentBuilder:
    """Documents and vectors that will be the next segment."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.documents = DocumentBuffer(fields)
        self.n_postings = 0
        self._vectors: list[SparseVectors] = []
        self._tokens: list[SparseMultiVectors] = []

    def extend(
        self, documents: Sequence[Document], vectors: SparseVectors, fields: dict[str, str],
        tokens: SparseMultiVectors | None = None,
    ) -> None:  # fmt: skip
        """Add documents and their vectors, row for row, with term numbers of the index; ``tokens`` gave the vectors."""
        self.documents.extend(documents, fields)
        self._vectors.append(vectors)
        self.n_postings += vectors.n_postings
        if tokens is not None:
            self._tokens.append(tokens)
            self.n_postings += tokens.rows.n_postings

    def max_weight(self) -> Floats:
        """Return the largest weight as a (1,) array, or an empty array when there is none."""
        tops = [vectors.weights.max() for vectors in self._vectors if vectors.n_postings]
        return np.array([max(tops)], np.float32) if tops else np.empty(0, np.float32)

    def total_length(self) -> int:
        """Sum of all counts: the documents' total length in tokens."""
        return int(sum(vectors.weights.sum(dtype=np.float64) for vectors in self._vectors))

    def write(self, index: Path, name: str, *, scale: float, bm25: Bm25 | None, average_length: float) -> SegmentRecord:
        """Write the segment and make it durable; nothing is visible until a manifest names it."""
        indptr, terms, weights = _concatenate(self._vectors)
        self._vectors = []
        if bm25 is None:
            impacts = quantize(weights, scale)
            rows = ImpactRows(indptr=indptr, terms=terms, impacts=impacts)
            error, total = measured_error(weights, impacts, scale), 0
        else:
            owner = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
            lengths = np.bincount(owner, weights=weights, minlength=len(indptr) - 1).astype(np.uint32)
            counts = np.minimum(weights, MAX_COUNT).astype(np.uint8)
            rows = ImpactRows(indptr=indptr, terms=terms, impacts=counts, counts=counts, lengths=lengths)
            rows, error = weigh_counts(rows, bm25, average_length, scale)
            total = int(lengths.sum(dtype=np.int64))
        folder = index / name
        folder.mkdir()
        write_inverted(folder / "inverted.lex", rows)
        n_tokens = self._write_tokens(folder, scale) if self._tokens else 0
        self.documents.write(folder)
        sync_folder(folder)
        sync_folder(index)
        return SegmentRecord(
            name=name, n_docs=len(self.documents), n_postings=len(terms), n_tokens=n_tokens, total_length=total, error=error
        )

    def _write_tokens(self, folder: Path, scale: float) -> int:
        tokens = SparseTokenRows.joined([SparseTokenRows.quantized(part, scale) for part in self._tokens])
        self._tokens = []
        tokens.write(folder / SPARSE_TOKENS_NAME)
        return int(tokens.offsets[-1])


def weigh_counts(rows: ImpactRows, bm25: Bm25, average_length: float, scale: float) -> tuple[ImpactRows, dict[str, float]]:
    """Compute BM25 impacts from the counts and lengths in ``rows``, and their quantisation error."""
    if rows.counts is None or rows.lengths is None:
        raise ValueError("BM25 needs counts and lengths")
    weights = bm25.document_weights(rows.counts, rows.indptr, rows.lengths.astype(np.int64), average_length)
    impacts = quantize(weights, scale)
    weighed = ImpactRows(indptr=rows.indptr, terms=rows.terms, impacts=impacts, counts=rows.counts, lengths=rows.lengths)
    return weighed, measured_error(weights, impacts, scale)


def _concatenate(
    parts: Sequence[SparseVectors],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], Floats]:
    widths = [np.diff(part.indptr) for part in parts]
    indptr = np.zeros(sum(map(len, widths)) + 1, np.int64)
    np.cumsum(np.concatenate([np.empty(0, np.int64), *widths]), out=indptr[1:])
    terms = np.concatenate([np.empty(0, np.int32), *(part.terms for part in parts)])
    weights = np.concatenate([np.empty(0, np.float32), *(part.weights for part in parts)])
    return indptr, terms, weights
