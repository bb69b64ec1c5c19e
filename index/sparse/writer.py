"""How a sparse field is written: vectors are buffered, quantised, inverted, and merged.

Three kinds share it: weights that an encoder gave, term counts that the index weighs by BM25, and sparse token vectors (SLIM),
whose maxima are inverted. The merger of segments is, array for array, what a build of the live documents would have written:
BM25's document rows keep counts and lengths, others keep weights as long as the field's scale does not fit them (`weighing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Floats, Int32s, Int64s, joined_offsets
from ..errors import RepresentationError
from ..fields import Part
from ..manifest import FieldRecord, PartRecord
from ..representations import SparseMultiVectors, SparseVectors, Vectors
from ..representations.sparse_multivectors import document_maxima
from ..storage import sync_folder
from ..strings import StringTable
from ..writing import BufferLimits, NextName, mean_errors
from . import weighing
from .bm25 import Bm25
from .field import MAX_DRIFT, SparseSegment, average_length_drift, live_average_length, spoilt
from .inverted import ImpactRows, InvertedIndex, write_inverted
from .reorder import bisection_order
from .sparse_tokens import FILE_NAME as SPARSE_TOKENS_NAME
from .sparse_tokens import SparseTokenIndex, SparseTokenRows
from .vocabulary import MAX_TABLES, GrowingVocabulary, Vocabulary, renumber

INVERTED_NAME = "inverted.lex"
MAX_PART_POSTINGS = 1 << 27
"""A merge holds the postings of one field in memory; larger indexes keep several segments."""
REFITTED_POSTINGS = 1 << 22
"""Fields of so many postings are weighed again at a commit where they need it, which takes about a second; larger ones by
``lexmax compact``."""


class SparseWriter:
    """The writer of one field of sparse vectors, or of sparse token vectors."""

    def __init__(self, index: Path, name: str, record: FieldRecord, limits: BufferLimits) -> None:
        self._index, self.name, self._limits = index, name, limits
        if unknown := set(record.options) - {"bm25"}:
            raise ValueError(f"{index}, field {name}: unknown option {sorted(unknown)[0]!r}; a sparse field has bm25")
        self._bm25 = Bm25(**record.options["bm25"]) if record.options.get("bm25") else None
        self._has_tokens = record.representation == "sparse-tokens"
        self._by_string = self._bm25 is not None or record.encoder.settings.get("terms") == "strings"
        self._given: dict[str, float] = record.state.get("given", {})
        self._scale: float | None = self._given.get("scale", record.state.get("scale"))
        self._next_scale = self._scale
        self._files: list[str] = list(record.state.get("vocabulary", ()))
        self._vocabulary = GrowingVocabulary(Vocabulary.open(index, self._files))
        self._average_length = 0.0
        self._n_postings = 0
        self._vectors: list[SparseVectors] = []
        self._tokens: list[SparseMultiVectors] = []

    def set_vocabulary(self, terms: Sequence[str]) -> None:
        """Give a new field the strings of the encoder's fixed term numbers."""
        self._vocabulary.new = list(terms)

    def give(self, statistics: dict[str, float]) -> None:
        """Take ``scale`` and ``average_length`` of a larger collection; a compaction must follow."""
        self._given = {**self._given, **statistics}

    def share(self, folder: Path, record: FieldRecord) -> None:
        """Take the scale of the same field of another index, for good."""
        if record.state.get("scale"):
            self.give({"scale": record.state["scale"]})
            self._set_scale(record.state["scale"])

    @property
    def fullness(self) -> float:
        """Share of the buffer's limit that is used."""
        return self._n_postings / self._limits.n_postings

    @property
    def is_bm25(self) -> bool:
        """Whether the index weighs term counts."""
        return self._bm25 is not None

    @property
    def leads_order(self) -> bool:
        """Whether documents are reordered by this field by default: learned weights gain, BM25 does not."""
        return not self.is_bm25

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
                vectors = replace(renumber(vectors, self._vocabulary.number(vectors.vocabulary)), lengths=vectors.lengths)
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
            scale, keep = self._scale or 1.0, rows.weights is not None
            tokens = SparseTokenRows.joined([SparseTokenRows.quantized(part, scale, keep=keep) for part in self._tokens])
            self._tokens = []
            n_tokens = self._write_tokens(folder, tokens)
        sync_folder(self._index / folder)
        return replace(record, n_tokens=n_tokens)

    def open(self, record: PartRecord) -> Part:
        """Open a part that `flush` or `merge` wrote."""
        folder = self._index / record.folder
        return SparseTokenIndex(folder) if self._has_tokens else InvertedIndex(folder / INVERTED_NAME)

    def prepare(self, segments: Sequence[SparseSegment], *, compaction: bool = True, in_place: bool = False) -> bool:
        """Get ready to merge some of the field's segments, which are all given; whether every part must be written again.

        Impacts depend on the scale, which a compaction fits again, and BM25's on the average length of the live documents.
        ``in_place`` tells that deleted documents will stay.
        """
        if self._bm25 is not None:
            self._average_length = self._given.get("average_length", live_average_length(segments))
        if "scale" in self._given:
            self._next_scale = self._given["scale"]
        elif compaction and any(segment.inverted.n_postings for segment in segments):
            if self._bm25 is None:
                top = weighing.largest_weight(segments, self._scale or 1.0, live=not in_place)
                self._next_scale = weighing.fitted_scale(top, self._scale)
            else:
                top = weighing.largest_bm25_weight(segments, self._bm25, self._average_length, live=not in_place)
                self._next_scale = weighing.bm25_scale(top)
        drifted = self._bm25 is not None and any(each.record.average_length != self._average_length for each in segments)
        return drifted or self._next_scale != self._scale

    def stale(self, segments: Sequence[SparseSegment]) -> bool:
        """Whether the next commit should write all parts again: impacts do not tell weights well, and there are few."""
        if sum(segment.record.n_postings for segment in segments) > REFITTED_POSTINGS:
            return False
        if self._bm25 is not None and average_length_drift(segments, self._given.get("average_length")) > MAX_DRIFT:
            return True
        return "scale" not in self._given and spoilt(segments)

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
        sources = [segment.inverted.rows(segment.live) for segment in segments]
        rows = ImpactRows.joined(sources)
        record = PartRecord(folder=folder, n_postings=len(rows.terms))
        if self._bm25 is not None:
            rows, record = self._weighed(rows, record, self._average_length, self._next_scale)
        elif self._fits(sources):
            record = replace(record, error=mean_errors([segment.record for segment in segments]))
        else:
            rows, error = self._refitted(sources)
            record = replace(record, error=error)
        if order is not None:
            rows = rows.take(order)
        (self._index / folder).mkdir()
        write_inverted(self._index / folder / INVERTED_NAME, rows)
        n_tokens = 0
        if self._has_tokens:
            held = [segment.sparse_tokens.rows(segment.live) for segment in segments]
            tokens = SparseTokenRows.joined(held)
            if not self._fits(sources):
                token_rows, _ = self._refitted([each.rows for each in held])
                tokens = SparseTokenRows(tokens.offsets, token_rows)
            n_tokens = self._write_tokens(folder, tokens if order is None else tokens.take(order))
        sync_folder(self._index / folder)
        return replace(record, n_tokens=n_tokens)

    def finish(self, n_segments: int) -> None:
        """End a compaction that left ``n_segments`` segments: its scale is the field's."""
        self._scale = self._next_scale

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
        given = {"given": self._given} if self._given else {}
        return {"scale": self._scale, "vocabulary": self._files, **given}

    def _rows(
        self, folder: str, parts: Sequence[SparseVectors], earlier: Sequence[tuple[int, PartRecord]]
    ) -> tuple[ImpactRows, PartRecord]:
        """Buffered vectors as impact rows, and the record of the part that they make."""
        indptr = joined_offsets([part.indptr for part in parts])
        terms = np.concatenate([np.empty(0, np.int32), *(part.terms for part in parts)])
        weights: Floats = np.concatenate([np.empty(0, np.float32), *(part.weights for part in parts)])
        record = PartRecord(folder=folder, n_postings=len(terms))
        rows = ImpactRows(indptr=indptr, terms=terms, impacts=np.empty(0, np.uint8))
        if self._bm25 is None:
            if self._scale is None and len(weights):
                self._set_scale(weighing.fitted_scale(float(weights.max()), None))
            rows, error = weighing.with_impacts(rows, weights, self._scale or 1.0, keep="scale" not in self._given)
            return rows, replace(record, error=error)
        lengths = np.concatenate([np.empty(0, np.int64), *(_lengths(part) for part in parts)]).astype(np.uint32)
        counts = weights.astype(np.min_scalar_type(int(weights.max(initial=0))))
        rows = replace(rows, counts=counts, lengths=lengths)
        total = int(lengths.sum(dtype=np.int64)) + sum(part.total_length for _, part in earlier)
        average = total / max(1, len(lengths) + sum(n for n, _ in earlier))
        return self._weighed(rows, record, self._given.get("average_length", average), self._scale)

    def _weighed(
        self, rows: ImpactRows, record: PartRecord, average_length: float, scale: float | None
    ) -> tuple[ImpactRows, PartRecord]:
        """Compute BM25 impacts, and note in the record what they were computed with; without a scale, fit the field's."""
        if self._bm25 is None or rows.lengths is None:
            raise ValueError("BM25 needs counts and lengths")
        weights = weighing.bm25_weights(rows, self._bm25, average_length)
        if scale is None:
            scale = weighing.bm25_scale(float(weights.max(initial=0)))
            if len(weights):
                self._set_scale(scale)
        rows, error = weighing.with_impacts(rows, weights, scale, keep=False)
        total = int(rows.lengths.sum(dtype=np.int64)) if rows.lengths is not None else 0
        return rows, replace(record, total_length=total, average_length=average_length, error=error)

    def _set_scale(self, scale: float) -> None:
        self._scale = self._next_scale = scale

    def _fits(self, sources: Sequence[ImpactRows]) -> bool:
        """Whether a merger keeps the impacts of a learned field as they are."""
        return self._next_scale == self._scale and all(each.weights is None for each in sources)

    def _refitted(self, sources: Sequence[ImpactRows]) -> tuple[ImpactRows, dict[str, float]]:
        """Rows of parts of a learned field with impacts at the next scale."""
        weights = weighing.weights_of(sources, self._scale or 1.0)
        rows = replace(ImpactRows.joined(sources), weights=None)
        return weighing.with_impacts(rows, weights, self._next_scale or 1.0, keep="scale" not in self._given)

    def _write_tokens(self, folder: str, tokens: SparseTokenRows) -> int:
        tokens.write(self._index / folder / SPARSE_TOKENS_NAME)
        return int(tokens.offsets[-1])


def _lengths(vectors: SparseVectors) -> Int64s:
    """Document lengths in tokens of rows of counts."""
    if vectors.lengths is not None:
        return vectors.lengths
    owner = np.repeat(np.arange(len(vectors)), np.diff(vectors.indptr))
    return np.bincount(owner, weights=vectors.weights, minlength=len(vectors)).astype(np.int64)
