"""A snapshot: one committed state of an index, open for reading and never disturbed by later commits."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import manifest as manifests
from .arrays import Floats, Int32s, Int64s
from .documents import Document
from .errors import IndexFormatError, RepresentationError
from .filters import Filter
from .kernels import read_only
from .kernels.terms import add_frequencies, times_idf
from .manifest import Manifest, SegmentRecord
from .multivector.codes import TOKENS_NAME
from .multivector.residual import Codec
from .representations.sparse import SparseVectors
from .segments import Mask, Segment
from .sparse.vocabulary import Vocabulary, renumbered

MAX_CACHED_FILTERS = 32


class Snapshot:
    """Segments, vocabulary and statistics of one generation; make one with `open`. Safe to use from many threads."""

    def __init__(
        self, path: Path, manifest: Manifest, segments: Sequence[Segment], vocabulary: Vocabulary, codec: Codec | None = None
    ) -> None:
        self.path, self.manifest, self.codec = path, manifest, codec
        self.segments, self.vocabulary = list(segments), vocabulary
        self._bases = [segment.base for segment in segments]
        self._masks: OrderedDict[str, list[Mask | None]] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: Path | str, *, verify: bool | None = None) -> Snapshot:
        """Open the newest commit.

        Parameters
        ----------
        path : Path or str
            The index folder.
        verify : bool or None
            True: verify every checksum. None: those of small files and of all structural arrays. False: the latter.

        Raises
        ------
        IndexNotFoundError, IndexFormatError
            No index there, or a damaged one.
        """
        folder = Path(path)
        manifest = manifests.read(folder)
        while True:
            try:
                codec = open_codec(folder, manifest, verify=verify)
                return cls(folder, manifest, open_segments(folder, manifest, codec, verify=verify),
                           Vocabulary.open(folder, manifest.vocabulary, verify=verify), codec)  # fmt: skip
            except IndexFormatError:
                newest = manifests.read(folder)  # a commit may have removed what the older manifest named
                if newest.generation == manifest.generation:
                    raise
                manifest = newest

    @property
    def n_docs(self) -> int:
        """Live documents."""
        return self.manifest.n_docs

    @property
    def generation(self) -> int:
        """Number of the commit, from 1."""
        return self.manifest.generation

    def query_vectors(self, queries: SparseVectors) -> SparseVectors:
        """Bring encoded queries into this snapshot's term numbers, BM25's idf multiplied in; unknown terms are dropped.

        Raises
        ------
        RepresentationError
            The queries name terms as strings, and the index has no such vocabulary, or the reverse.
        """
        bm25 = self.manifest.bm25
        if queries.vocabulary is None and bm25 is not None:
            raise RepresentationError(f"{self.path}: an index of encoder bm25 is searched by term strings, not numbers")
        if queries.vocabulary is not None and bm25 is None and not len(self.vocabulary) and self.n_docs:
            raise RepresentationError(f"{self.path}: the index has no vocabulary: search it by term numbers, not strings")
        if queries.vocabulary is None:
            return queries
        indptr, terms, weights = renumbered(queries, self.vocabulary.find(queries.vocabulary))
        if bm25 is not None:
            n_docs = sum(segment.record.n_docs for segment in self.segments)
            weights = times_idf(read_only(weights), self.document_frequencies(terms), n_docs)
        return SparseVectors(indptr, terms, weights)

    def document_frequencies(self, terms: Int32s) -> Int64s:
        """Documents that hold each term number; deleted ones count until compaction."""
        total = np.zeros(len(terms), np.int64)
        terms = read_only(terms)
        for segment in self.segments:
            add_frequencies(segment.inverted.terms, segment.inverted.arrays.starts, terms, total)
        return total

    def reaches(self, terms: Int32s) -> Int64s:
        """Bound of each ascending term number's impact in any segment, 0 without postings (see `kernels.postings.look_up`)."""
        reaches = np.zeros(len(terms), np.int64)
        for segment in self.segments:
            segment.inverted.look_up(terms, reaches)
        return reaches

    def masks(self, filter: str | None = None) -> list[Mask | None]:
        """For each segment, which documents may be returned: (n_docs,) bool, or None for all of them.

        Raises
        ------
        ValueError
            The filter expression is malformed, or names an unknown field.
        """
        if filter is None:
            return [segment.live for segment in self.segments]
        with self._lock:
            if filter in self._masks:
                self._masks.move_to_end(filter)
                return self._masks[filter]
        parsed = Filter(filter, self.manifest.fields)
        masks: list[Mask | None] = []
        for segment in self.segments:
            mask = parsed.mask(segment.documents)
            masks.append(mask if segment.live is None else mask & segment.live)
        with self._lock:
            self._masks[filter] = masks
            if len(self._masks) > MAX_CACHED_FILTERS:
                self._masks.popitem(last=False)
        return masks

    def locate(self, doc_num: int) -> tuple[Segment, int]:
        """Segment of a doc_num and the position in it."""
        at = bisect_right(self._bases, doc_num) - 1
        return self.segments[at], doc_num - self.segments[at].base

    def find(self, doc_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """doc_num of each live doc_id, -1 where it is absent."""
        numbers = np.full(len(doc_ids), -1, np.int64)
        for segment in self.segments:
            found = segment.find(doc_ids)
            numbers = np.where(found >= 0, found + segment.base, numbers)
        return numbers

    def doc_ids(self, doc_nums: Sequence[int]) -> list[str]:
        """doc_id of each doc_num."""
        located = (self.locate(int(doc_num)) for doc_num in doc_nums)
        return [segment.documents.doc_ids[position] for segment, position in located]

    def get_many(self, doc_nums: Sequence[int]) -> list[Document]:
        """Documents by doc_num, in that order."""
        located = (self.locate(int(doc_num)) for doc_num in doc_nums)
        return [segment.documents.get_many([position])[0] for segment, position in located]

    def document_row(self, doc_num: int) -> SparseVectors:
        """One document's terms and dequantised weights, as a row."""
        segment, position = self.locate(doc_num)
        terms, impacts = segment.inverted.row(position)
        order = np.argsort(terms)
        weights = (impacts[order] / np.float32(self.manifest.scale or 1.0)).astype(np.float32)
        return SparseVectors(np.array([0, len(terms)], np.int64), terms[order].astype(np.int32), weights)

    def document_tokens(self, doc_num: int) -> Floats:
        """One document's token vectors, decoded, (n_tokens, dim)."""
        segment, position = self.locate(doc_num)
        if self.codec is None:
            raise RepresentationError(f"{self.path}: the index holds no token vectors")
        return segment.tokens.tokens(self.codec, position, position + 1)

    def document_sparse_tokens(self, doc_num: int) -> SparseVectors:
        """One document's sparse tokens with dequantised weights, a row a token."""
        segment, position = self.locate(doc_num)
        rows = segment.sparse_tokens.span(position, position + 1).rows
        weights = (rows.impacts / np.float32(self.manifest.scale or 1.0)).astype(np.float32)
        return SparseVectors(rows.indptr, rows.terms, weights)

    def info(self) -> dict[str, Any]:
        """Facts about the index, ready for JSON: sizes, encoder, quantisation error, segments."""
        manifest, segments = self.manifest, self.segments
        facts = {
            "path": str(self.path),
            "generation": manifest.generation,
            "n_docs": manifest.n_docs,
            "n_deleted": sum(segment.record.n_deleted for segment in segments),
            "n_bytes": sum(segment.n_bytes for segment in segments) + sum(t.n_bytes for t in self.vocabulary.tables),
            "encoder": {
                "kind": manifest.encoder.kind,
                "fingerprint": manifest.encoder.fingerprint,
                "settings": manifest.encoder.settings,
            },
            "metadata_fields": manifest.fields,
            "complete": manifest.build is None,
        }
        facts |= self._sparse_info() if manifest.multivector is None else self._token_info(manifest.multivector)
        facts["segments"] = [
            {
                "name": segment.record.name,
                "n_docs": segment.record.n_docs,
                "n_deleted": segment.record.n_deleted,
                **self._segment_info(segment),
                "bytes": {**segment.vectors.sizes(), "documents": segment.documents.file.n_bytes,
                          "doc_ids": segment.documents.ids_n_bytes},
            }
            for segment in segments
        ]  # fmt: skip
        return facts

    def _sparse_info(self) -> dict[str, Any]:
        n_postings = sum(segment.record.n_postings for segment in self.segments)
        n_docs = sum(segment.record.n_docs for segment in self.segments)
        n_bytes = sum(segment.inverted.n_bytes for segment in self.segments)
        return {
            **(self._sparse_token_info(n_docs) if self.manifest.sparse_tokens else {}),
            "n_terms": len(self.vocabulary),
            "n_postings": n_postings,
            "postings_per_doc": round(n_postings / max(1, n_docs), 2),
            "inverted_bytes_per_posting": round(n_bytes / max(1, n_postings), 2),
            "bm25": self.manifest.bm25,
            "scale": self.manifest.scale,
        }

    def _sparse_token_info(self, n_docs: int) -> dict[str, Any]:
        n_tokens = sum(segment.record.n_tokens for segment in self.segments)
        n_bytes = sum(segment.sparse_tokens.file.n_bytes for segment in self.segments)
        return {
            "n_tokens": n_tokens,
            "tokens_per_doc": round(n_tokens / max(1, n_docs), 2),
            "bytes_per_token": round(n_bytes / max(1, n_tokens), 2),
        }

    def _token_info(self, config: dict[str, Any]) -> dict[str, Any]:
        n_tokens = sum(segment.record.n_tokens for segment in self.segments)
        n_docs = sum(segment.record.n_docs for segment in self.segments)
        searched = sum(segment.tokens.file.n_bytes for segment in self.segments)
        every = sum(segment.vectors.n_bytes for segment in self.segments)
        codec_bytes = 0 if self.codec is None else self.codec.n_bytes
        return {
            "n_tokens": n_tokens,
            "tokens_per_doc": round(n_tokens / max(1, n_docs), 2),
            "bytes_per_token": round((searched + codec_bytes) / max(1, n_tokens), 2),
            "exact_bytes_per_token": round((every - searched) / max(1, n_tokens), 2),
            "token_vectors": {**config, "n_centroids": self.codec.n_centroids if self.codec else 0},
            "calibration": self.manifest.calibration,
        }

    def _segment_info(self, segment: Segment) -> dict[str, Any]:
        record = segment.record
        if self.codec is None:
            return {
                "n_postings": record.n_postings,
                "reordered": record.reordered,
                "window": segment.inverted.window,
                "quantisation_error": record.error,
            }
        residual = record.error.get("residual", 0.0)
        drift = residual / self.codec.residual - 1 if self.codec.residual else 0.0
        errors = {name: round(error, 4) for name, error in record.error.items()}
        return {"n_tokens": record.n_tokens, **errors, "drift": round(drift, 4)}


def open_codec(folder: Path, manifest: Manifest, *, verify: bool | None = None) -> Codec | None:
    """Open the codec that a manifest names, if any."""
    return Codec.read(folder / manifest.codec, verify=verify) if manifest.codec else None


def open_segments(folder: Path, manifest: Manifest, codec: Codec | None, *, verify: bool | None = None) -> list[Segment]:
    """Open the segments that a manifest names."""
    segments, base = [], 0
    for record in manifest.segments:
        segments.append(open_segment(folder, manifest, record, base, codec, verify=verify))
        base += record.n_docs
    return segments


def open_segment(
    folder: Path, manifest: Manifest, record: SegmentRecord, base: int, codec: Codec | None, *, verify: bool | None = None
) -> Segment:
    """Open one segment that a manifest names, and see that it keeps exact tokens when the index does."""
    segment = Segment(
        folder, record, base, manifest.fields, codec=codec, sparse_tokens=manifest.sparse_tokens, verify=verify
    )  # fmt: skip
    if manifest.multivector is not None and manifest.multivector["exact"] and segment.tokens.exact is None:
        path = folder / record.name / TOKENS_NAME
        raise IndexFormatError(path, expected="a file of this index", found="nothing there")
    return segment
