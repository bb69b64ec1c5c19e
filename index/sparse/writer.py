"""How a sparse field is written: vectors are buffered, quantised, inverted, and merged.

Three kinds share it: weights that an encoder gave, term counts that the index weighs by BM25, and sparse token vectors (SLIM),
whose maxima are inverted. The merger of segments is, array for array, what a build of the live documents would have written
(for an encoder's weights, at the field's scale), since document rows keep what the impacts were made from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Floats, Int32s, joined_offsets
from ..errors import RepresentationError
from ..fields import Part
from ..manifest import FieldRecord, PartRecord
from ..representations import SparseMultiVectors, SparseVectors, Vectors
from ..representations.sparse_multivectors import document_maxima
from ..storage import sync_folder
from ..strings import StringTable
from ..writing import BufferLimits, NextName, mean_errors
from .bm25 import SCALE, Bm25
from .field import SparseSegment, live_average_length
from .inverted import ImpactRows, InvertedIndex, write_inverted
from .quantize import fit_scale, measured_error, quantize
from .reorder import bisection_order
from .sparse_tokens import FILE_NAME as SPARSE_TOKENS_NAME
from .sparse_tokens import SparseTokenIndex, SparseTokenRows
from .vocabulary import MAX_TABLES, GrowingVocabulary, Vocabulary, renumber

INVERTED_NAME = "inverted.lex"
MAX_PART_POSTINGS = 1 << 27
"""A merge holds the postings of one field in memory; larger indexes keep several segments."""


class SparseWriter:
    """The writer of one field of sparse vectors, or of sparse token vectors."""

    def __init__(self, index: Path, name: str, record: FieldRecord, limits: BufferLimits) -> None:
        self._index, self.name, self._limits = index, name, limits
        if unknown := set(record.options) - {"bm25"}:
            raise ValueError(f"{index}, field {name}: unknown option {sorted(unknown)[0]!r}; a sparse field has bm25")
        self._bm25 = Bm25(**record.options["bm25"]) if record.options.get("bm25") else None
        self._has_tokens = record.representation == "sparse-tokens"
        self._by_string = self._bm25 is not None or record.encoder.settings.get("terms") == "strings"
        self._scale: float | None = SCALE if self._bm25 else record.state.get("scale")
        self._files: list[str] = list(record.state.get("vocabulary", ()))
        self._vocabulary = GrowingVocabulary(Vocabulary.open(index, self._files))
        self._average_length = 0.0
        self._n_postings = 0
        self._vectors: list[SparseVectors] = []
        self._tokens: list[SparseMultiVectors] = []

    def set_vocabulary(self, terms: Sequence[str]) -> None:
        """Give a new field the strings of the encoder's fixed term numbers."""
        self._vocabulary.new = list(terms)

    @property
    def fullness(self) -> float:
        """Share of the buffer's limit that is used."""
        return self._n_postings / self._limits.n_postings

    @property
    def leads_order(self) -> bool:
        """Whether documents are reordered by this field by default: learned weights gain, BM25 does not."""
        return self._bm25 is None

    def size(self, record: PartRecord) -> float:
        """Share of the largest part that a merge may write."""
        return (record.n_postings + record.n_tokens) / MAX_PART_POSTINGS

    def check(self, vectors: Vectors) -> None:
        """Raise RepresentationError unless vectors are of this field's kind and name their terms as the field does."""
        where = f"{self._index}, field {self.name}"
        held = SparseMultiVectors if self._has_tokens else SparseVectors
        if not isinstance(vectors, held):
            kind = "sparse token vectors" if self._has_tokens else "sparse vectors"
            raise RepresentationError(f"{where}: the field holds {kind}, not {type(vectors).__name__}")
        if not isinstance(vectors, SparseVectors):
            return
        if vectors.vocabulary is not None and not self._by_string:
            raise RepresentationError(f"{where}: the field holds weights of numbered terms, not of strings")
        if vectors.vocabulary is None and self._bm25 is not None:
            raise RepresentationError(f"{where}: the field holds term counts")
        n_terms = len(self._vocabulary.known) + len(self._vocabulary.new)
        if vectors.vocabulary is None and self._by_string and vectors.n_postings and vectors.terms.max() >= n_terms:
            raise RepresentationError(f"{where}: term {vectors.terms.max()} is past the vocabulary of {n_terms} terms")

    def extend(self, vectors: Vectors) -> None:
        """Buffer vectors that passed `check`."""
        if isinstance(vectors, SparseMultiVectors):
            self._tokens.append(vectors)
            self._n_postings += vectors.rows.n_postings
            vectors = document_maxima(vectors)
        if isinstance(vectors, SparseVectors):
            if vectors.vocabulary is not None:
                vectors = renumber(vectors, self._vocabulary.number(vectors.vocabulary))
            self._vectors.append(vectors)
            self._n_postings += vectors.n_postings

    def clear(self) -> None:
        """Forget what is buffered."""
        self._vectors, self._tokens, self._n_postings = [], [], 0

    def flush(self, folder: str, earlier: Sequence[tuple[int, PartRecord]], *, more_to_come: bool) -> PartRecord:
        """Write what is buffered as a part and make it durable.

        Parameters
        ----------
        folder : str
            A name never used.
        earlier : sequence of (n_docs, PartRecord)
            The field's parts so far, whose lengths count in BM25's average.
        more_to_come : bool
            Whether much more will follow; of no use here.
        """
        parts, self._vectors, self._n_postings = self._vectors, [], 0
        rows, record = self._rows(folder, parts, earlier)
        (self._index / folder).mkdir()
        write_inverted(self._index / folder / INVERTED_NAME, rows)
        n_tokens = 0
        if self._has_tokens:
            tokens = SparseTokenRows.joined([SparseTokenRows.quantized(part, self._scale or 1.0) for part in self._tokens])
            self._tokens = []
            n_tokens = self._write_tokens(folder, tokens)
        sync_folder(self._index / folder)
        return replace(record, n_tokens=n_tokens)

    def open(self, record: PartRecord) -> Part:
        """Open a part that `flush` or `merge` wrote."""
        folder = self._index / record.folder
        return SparseTokenIndex(folder) if self._has_tokens else InvertedIndex(folder / INVERTED_NAME)

    def prepare(self, segments: Sequence[SparseSegment], *, compaction: bool = True) -> bool:
        """Get ready to merge some of the field's segments, which are all given; whether every part must be written again.

        BM25's impacts depend on the average length of the live documents.
        """
        if self._bm25 is None:
            return False
        self._average_length = live_average_length(segments)
        return any(segment.record.average_length != self._average_length for segment in segments)

    def outgrown(self, records: Sequence[PartRecord]) -> bool:
        """Return False: nothing that segments share has to grow."""
        return False

    def order(self, segments: Sequence[SparseSegment]) -> Int32s:
        """Order the live documents of segments by recursive graph bisection; ``order[new] = old``."""
        rows = ImpactRows.joined([segment.inverted.rows(segment.live) for segment in segments])
        terms, ranks = rows.ranks()
        return bisection_order(rows.indptr, ranks, len(terms))

    def merge(self, folder: str, segments: Sequence[SparseSegment], order: Int32s | None) -> PartRecord:
        """Write the live documents of segments as one part and make it durable; `prepare` was called.

        Raises
        ------
        IndexFormatError
            A source is damaged: nothing is written over it.
        """
        for segment in segments:
            segment.part.verify()
        rows = ImpactRows.joined([segment.inverted.rows(segment.live) for segment in segments])
        record = PartRecord(folder=folder, n_postings=len(rows.terms))
        if self._bm25 is None:
            record = replace(record, error=mean_errors([segment.record for segment in segments]))
        else:
            rows, record = self._weighed(rows, record, self._average_length)
        if order is not None:
            rows = rows.take(order)
        (self._index / folder).mkdir()
        write_inverted(self._index / folder / INVERTED_NAME, rows)
        n_tokens = 0
        if self._has_tokens:
            tokens = SparseTokenRows.joined([segment.sparse_tokens.rows(segment.live) for segment in segments])
            n_tokens = self._write_tokens(folder, tokens if order is None else tokens.take(order))
        sync_folder(self._index / folder)
        return replace(record, n_tokens=n_tokens)

    def finish(self, n_segments: int) -> None:
        """End a compaction that left ``n_segments`` segments."""

    def state(self, next_name: NextName) -> dict[str, Any]:
        """Write what is new of the vocabulary; return the field's state for the manifest."""
        new = self._vocabulary.new
        if new:
            if len(self._files) >= MAX_TABLES:
                known = self._vocabulary.known
                new, self._files = known.strings(np.arange(len(known), dtype=np.int32)) + new, []
            name = next_name("vocabulary") + ".lex"
            StringTable.of(new).write(self._index / name)
            self._files = [*self._files, name]
            tables = self._vocabulary.known.tables if len(self._files) > 1 else []
            self._vocabulary = GrowingVocabulary(Vocabulary([*tables, StringTable.open(self._index / name)]))
        return {"scale": self._scale, "vocabulary": self._files}

    def _rows(
        self, folder: str, parts: Sequence[SparseVectors], earlier: Sequence[tuple[int, PartRecord]]
    ) -> tuple[ImpactRows, PartRecord]:
        """Buffered vectors as impact rows, and the record of the part that they make."""
        indptr = joined_offsets([part.indptr for part in parts])
        terms = np.concatenate([np.empty(0, np.int32), *(part.terms for part in parts)])
        weights: Floats = np.concatenate([np.empty(0, np.float32), *(part.weights for part in parts)])
        record = PartRecord(folder=folder, n_postings=len(terms))
        if self._bm25 is None:
            if self._scale is None and len(weights):
                self._scale = fit_scale(weights)
            scale = self._scale or 1.0
            impacts = quantize(weights, scale)
            record = replace(record, error=measured_error(weights, impacts, scale))
            return ImpactRows(indptr=indptr, terms=terms, impacts=impacts), record
        owner = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
        lengths = np.bincount(owner, weights=weights, minlength=len(indptr) - 1).astype(np.uint32)
        counts = weights.astype(np.min_scalar_type(int(weights.max(initial=0))))
        rows = ImpactRows(indptr=indptr, terms=terms, impacts=np.empty(0, np.uint8), counts=counts, lengths=lengths)
        total = int(lengths.sum(dtype=np.int64)) + sum(part.total_length for _, part in earlier)
        return self._weighed(rows, record, total / max(1, len(lengths) + sum(n for n, _ in earlier)))

    def _weighed(self, rows: ImpactRows, record: PartRecord, average_length: float) -> tuple[ImpactRows, PartRecord]:
        """Compute BM25 impacts, and note in the record what they were computed with."""
        if self._bm25 is None or rows.lengths is None:
            raise ValueError("BM25 needs counts and lengths")
        weighed, error = weigh_counts(rows, self._bm25, average_length)
        total = int(rows.lengths.sum(dtype=np.int64))
        return weighed, replace(record, total_length=total, average_length=average_length, error=error)

    def _write_tokens(self, folder: str, tokens: SparseTokenRows) -> int:
        tokens.write(self._index / folder / SPARSE_TOKENS_NAME)
        return int(tokens.offsets[-1])


def weigh_counts(rows: ImpactRows, bm25: Bm25, average_length: float) -> tuple[ImpactRows, dict[str, float]]:
    """Compute BM25 impacts from the counts and lengths in ``rows``, and their quantisation error."""
    if rows.counts is None or rows.lengths is None:
        raise ValueError("BM25 needs counts and lengths")
    weights = bm25.document_weights(rows.counts, rows.indptr, rows.lengths.astype(np.int64), average_length)
    impacts = quantize(weights, SCALE)
    weighed = ImpactRows(indptr=rows.indptr, terms=rows.terms, impacts=impacts, counts=rows.counts, lengths=rows.lengths)
    return weighed, measured_error(weights, impacts, SCALE)
