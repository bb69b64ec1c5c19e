"""Sparse fields: inverted indexes with a vocabulary, alone or as the maxima of sparse token vectors (SLIM)."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Floats, Int32s, Int64s
from ..errors import IndexFormatError, RepresentationError
from ..fields import Field, FieldSegment
from ..kernels import read_only
from ..kernels.rows import count_ranks, rank_bytes
from ..kernels.terms import add_frequencies, times_idf
from ..manifest import FieldRecord
from ..representations.sparse import SparseVectors
from ..strings import StringTable
from .bm25 import Bm25
from .inverted import InvertedIndex
from .quantize import MAX_IMPACT
from .sparse_tokens import SparseTokenIndex
from .statistics import SparseStatistics
from .vocabulary import Vocabulary, renumbered

MAX_DRIFT = 0.005
"""Of the average length: BM25's impacts are then at most one step from those that a compaction gives."""
MAX_REMEMBERED = 1 << 16
"""Words of queries whose numbers and factors a field remembers: looking them up takes longer than a small search."""
MAX_RAISED = 0.1
"""Share of weights lifted to the smallest impact that is worth a warning."""


class SparseSegment(FieldSegment[InvertedIndex | SparseTokenIndex]):
    """One segment of a sparse field."""

    @property
    def inverted(self) -> InvertedIndex:
        """The inverted part."""
        return self.part.inverted if isinstance(self.part, SparseTokenIndex) else self.part

    @property
    def sparse_tokens(self) -> SparseTokenIndex:
        """The sparse tokens; raises RepresentationError in a field without them."""
        if not isinstance(self.part, SparseTokenIndex):
            raise RepresentationError(f"{self.part.file.path}: the field holds no sparse token vectors")
        return self.part

    @cached_property
    def deleted_frequencies(self) -> Int64s | None:
        """How many deleted documents hold each rank, (n_terms,); None: no document is deleted."""
        if self.live is None:
            return None
        inverted, deleted = self.inverted, np.flatnonzero(~self.live)
        arrays, n_terms = inverted.arrays, len(inverted.terms)
        if len(deleted):
            inverted.verify_rows(int(deleted[0]), int(deleted[-1]) + 1)
        return count_ranks(arrays.forward_indptr, arrays.forward, rank_bytes(n_terms), read_only(deleted), n_terms)


class SparseField(Field[SparseSegment]):
    """A field of sparse vectors.

    Attributes
    ----------
    vocabulary : Vocabulary
    bm25 : Bm25 or None
        Given: impacts are BM25's, and idf multiplies the query.
    scale : float
        Impact = weight x scale.
    """

    def __init__(
        self, path: Path, name: str, record: FieldRecord, segments: Sequence[SparseSegment], vocabulary: Vocabulary
    ) -> None:
        super().__init__(path, name, record, segments)
        self.vocabulary = vocabulary
        self.bm25 = Bm25(**record.options["bm25"]) if record.options.get("bm25") else None
        self.scale = float(record.state.get("scale") or 1.0)
        self.collection: SparseStatistics | None = None
        """Statistics of the collection that the field is a part of, where queries are weighed with those."""
        self._given: dict[str, float] = record.state.get("given", {})
        self._remembered: dict[str, tuple[int, float]] = {}

    @property
    def n_bytes(self) -> int:
        """Size of the field's files in bytes."""
        return super().n_bytes + sum(table.n_bytes for table in self.vocabulary.tables)

    def query_vectors(self, queries: SparseVectors) -> SparseVectors:
        """Bring encoded queries into the field's term numbers, BM25's idf multiplied in; unknown terms are dropped.

        Raises
        ------
        RepresentationError
            The queries name terms as strings and the field has no vocabulary, or the reverse.
        """
        where = f"{self.path}, field {self.name}"
        if queries.vocabulary is None and self.bm25 is not None:
            raise RepresentationError(f"{where}: BM25 is searched by term strings, not by term numbers")
        if queries.vocabulary is not None and self.bm25 is None and not len(self.vocabulary) and self.n_docs:
            raise RepresentationError(f"{where}: the field has no vocabulary: search it by term numbers, not strings")
        if queries.vocabulary is None:
            return queries
        if self.collection is not None:
            return self._weighed_as_part(queries, queries.vocabulary, self.collection)
        numbers, factors = self._weighed(queries.vocabulary)
        return SparseVectors(*renumbered(queries, numbers, queries.weights * factors[queries.terms]))

    def _weighed(self, strings: Sequence[str]) -> tuple[Int32s, Floats]:
        """Term number of each string, -1 when it is unknown, and what multiplies its weight in a query: BM25's idf."""
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered = {}
        remembered = self._remembered  # another thread may begin a new one meanwhile
        unseen = [string for string in strings if string not in remembered]
        if unseen:
            numbers = self.vocabulary.find(unseen)
            factors = np.ones(len(unseen), np.float32)
            if self.bm25 is not None:
                factors = times_idf(read_only(factors), self.document_frequencies(numbers), self.n_docs)
            remembered.update(zip(unseen, zip(numbers.tolist(), factors.tolist(), strict=True), strict=True))
        found = [remembered[string] for string in strings]
        return np.array([number for number, _ in found], np.int32), np.array([factor for _, factor in found], np.float32)

    def _weighed_as_part(self, queries: SparseVectors, strings: Sequence[str], whole: SparseStatistics) -> SparseVectors:
        """Do the same by the statistics of the collection; terms that only they know have numbers past the vocabulary."""
        places, numbers = whole.places(strings), self.vocabulary.find(strings)
        numbers = np.where(places < 0, -1, np.where(numbers < 0, len(self.vocabulary) + places, numbers)).astype(np.int32)
        weights = queries.weights
        if self.bm25 is not None:
            weights = times_idf(read_only(weights), whole.frequencies_at(places)[queries.terms], whole.n_docs)
        return SparseVectors(*renumbered(queries, numbers, weights))

    def statistics(self) -> SparseStatistics:
        """Return what scores depend on besides the documents, of this field alone."""
        n_terms = len(self.vocabulary)
        by_string = n_terms > 0
        if not by_string:
            n_terms = max(
                (int(segment.inverted.terms[-1]) + 1 for segment in self.segments if len(segment.inverted.terms)), default=0
            )
        numbers = np.arange(n_terms, dtype=np.int32)
        total = round(live_average_length(self.segments) * self.n_docs) if self.bm25 is not None else 0
        return SparseStatistics(
            n_docs=self.n_docs, total_length=total, scale=self.scale,
            terms=StringTable.of(self.vocabulary.strings(numbers)) if by_string else None,
            frequencies=self.document_frequencies(numbers), reaches=self.reaches(numbers), weighed_lengths=self.weighed_lengths,
        )  # fmt: skip

    def with_statistics(self, whole: SparseStatistics) -> SparseField:
        """Return the field as a part of a collection that has these statistics: its scores are those of the whole.

        Raises
        ------
        RepresentationError
            Documents of the parts are weighed with several scales or average lengths: give both when fields are created.
        """
        if whole.scale != self.scale or len(whole.weighed_lengths) > 1:
            lengths = ", ".join(map(str, sorted(whole.weighed_lengths))) or "no"
            raise RepresentationError(
                f"{self.path}, field {self.name}: documents are weighed with scale {self.scale}, and those of the collection "
                f"with {whole.scale} and average length {lengths}: all parts need the same"
            )
        part = copy(self)
        part.collection = whole
        return part

    @property
    def weighed_lengths(self) -> frozenset[float]:
        """Average lengths that BM25's documents were weighed with."""
        if self.bm25 is None:
            return frozenset()
        return frozenset(segment.record.average_length for segment in self.segments if segment.record.n_postings)

    def document_frequencies(self, terms: Int32s) -> Int64s:
        """Live documents that hold each term number."""
        total = np.zeros(len(terms), np.int64)
        terms = read_only(terms)
        for segment in self.segments:
            add_frequencies(segment.inverted.terms, segment.inverted.arrays.starts, terms, total)
            if segment.deleted_frequencies is not None:
                ranks = segment.inverted.ranks(terms)
                total[ranks >= 0] -= segment.deleted_frequencies[ranks[ranks >= 0]]
        return total

    def reaches(self, terms: Int32s) -> Int64s:
        """Bound of each ascending term number's impact in any segment, 0 without postings (see `kernels.postings.look_up`)."""
        return self.look_up(terms)[0]

    def look_up(self, terms: Int32s) -> tuple[Int64s, list[Int64s]]:
        """`reaches` of ascending term numbers, in the collection that this is a part of, and their ranks in each segment."""
        reaches = np.zeros(len(terms), np.int64)
        ranks = [segment.inverted.look_up(terms, reaches) for segment in self.segments]
        whole = self.collection
        if whole is None:
            return reaches, ranks
        if whole.terms is None:
            return whole.reaches_at(terms), ranks
        n_known = int(np.searchsorted(terms, len(self.vocabulary)))
        known = whole.places(self.vocabulary.strings(terms[:n_known]))
        return whole.reaches_at(np.concatenate([known, terms[n_known:] - len(self.vocabulary)])), ranks

    def document_row(self, doc_num: int) -> SparseVectors:
        """One document's terms and dequantised weights, as a row."""
        segment, position = self.locate(doc_num)
        terms, impacts = segment.inverted.row(position)
        order = np.argsort(terms)
        weights = (impacts[order] / np.float32(self.scale)).astype(np.float32)
        return SparseVectors(np.array([0, len(terms)], np.int64), terms[order].astype(np.int32), weights)

    def info(self) -> dict[str, Any]:
        """Facts about the field, ready for JSON."""
        n_postings = sum(segment.record.n_postings for segment in self.segments)
        n_bytes = sum(segment.inverted.n_bytes for segment in self.segments)
        return {
            **super().info(),
            "n_terms": len(self.vocabulary),
            "n_postings": n_postings,
            "postings_per_doc": round(n_postings / max(1, self.n_total), 2),
            "inverted_bytes_per_posting": round(n_bytes / max(1, n_postings), 2),
            "bm25": self.record.options.get("bm25"),
            "scale": self.record.state.get("scale"),
            **self._length_info(),
            "warnings": self._warnings(),
        }

    def _length_info(self) -> dict[str, Any]:
        """BM25: average length of live documents; how far at most the average that a segment was weighed with is from it."""
        if self.bm25 is None:
            return {}
        live, drift = live_average_length(self.segments), average_length_drift(self.segments, self._given.get("average_length"))
        return {"average_length": round(live, 2), "average_length_drift": round(drift, 4)}

    def _warnings(self) -> list[str]:
        """What makes scores worse than they could be, and the command that mends it."""
        found, mend = [], "lexmax compact fits it again"
        if "scale" in self._given:
            mend = "it was given, and build the index again with another to change it"
        n_postings = max(1, sum(segment.record.n_postings for segment in self.segments))
        shares = {
            name: sum(each.record.error.get(name, 0.0) * each.record.n_postings for each in self.segments) / n_postings
            for name in ("saturated", "raised")
        }
        if shares["saturated"]:
            found.append(f"{shares['saturated']:.2%} of the weights are too large for the scale, and count as equal: {mend}")
        elif "scale" not in self._given and spoilt(self.segments):
            found.append(f"the weights fill less than half of the scale, and differ less than they could: {mend}")
        if shares["raised"] > MAX_RAISED:
            found.append(f"{shares['raised']:.0%} of the weights are below half a step of the scale: a few are far larger")
        drift = average_length_drift(self.segments, self._given.get("average_length")) if self.bm25 else 0.0
        if drift > MAX_DRIFT:
            found.append(f"impacts were weighed with an average length {drift:.1%} off: lexmax compact weighs them again")
        return found

    def segment_info(self, segment: SparseSegment) -> dict[str, Any]:
        """Facts about one segment's part, ready for JSON."""
        record = segment.record
        facts = {"n_postings": record.n_postings, "window": segment.inverted.window, "quantisation_error": record.error}
        return facts if self.bm25 is None else {**facts, "average_length": round(record.average_length, 2)}


def live_average_length(segments: Sequence[SparseSegment]) -> float:
    """Return the average length in tokens of the live documents of BM25 segments; 0 without documents."""
    total = n_docs = 0
    for segment in segments:
        lengths = segment.inverted.lengths
        if lengths is None:
            raise IndexFormatError(segment.inverted.file.path, expected="lengths of documents", found="none")
        kept = lengths if segment.live is None else lengths[segment.live]
        total, n_docs = total + int(kept.sum(dtype=np.int64)), n_docs + len(kept)
    return total / max(1, n_docs)


def average_length_drift(segments: Sequence[SparseSegment], given: float | None) -> float:
    """How far at most the average length that parts were weighed with is from the one given, or of the live documents."""
    average = max(live_average_length(segments) if given is None else given, 1e-9)
    return max((abs(each.record.average_length / average - 1) for each in segments if each.record.n_postings), default=0.0)


def spoilt(segments: Sequence[SparseSegment]) -> bool:
    """Whether another scale would tell weights better: some saturate, or the largest impact is in the lower half."""
    tops = [int(each.inverted.arrays.kth[:, 0].max(initial=0)) for each in segments]
    return 0 < max(tops, default=0) <= MAX_IMPACT // 2 or any(each.record.error.get("saturated") for each in segments)


class SparseTokenField(SparseField):
    """A field of sparse token vectors, whose maxima are its inverted part (SLIM)."""

    def document_sparse_tokens(self, doc_num: int) -> SparseVectors:
        """One document's sparse tokens with dequantised weights, one row per token."""
        segment, position = self.locate(doc_num)
        rows = segment.sparse_tokens.span(position, position + 1).rows
        return SparseVectors(rows.indptr, rows.terms, (rows.impacts / np.float32(self.scale)).astype(np.float32))

    def info(self) -> dict[str, Any]:
        """Facts about the field, ready for JSON."""
        n_tokens = sum(segment.record.n_tokens for segment in self.segments)
        n_bytes = sum(segment.sparse_tokens.file.n_bytes for segment in self.segments)
        return {
            **super().info(),
            "n_tokens": n_tokens,
            "tokens_per_doc": round(n_tokens / max(1, self.n_total), 2),
            "bytes_per_token": round(n_bytes / max(1, n_tokens), 2),
        }
