"""What a collection writes besides documents: sparse vectors with their vocabulary, or token vectors with their codec.

A content buffers vectors beside their documents, writes segments, merges them, and says what the manifest keeps of it. The
collection owns everything that both kinds share: segments, deletes, names, the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .documents import Document
from .errors import RepresentationError
from .manifest import Manifest, SegmentRecord
from .merge import merge_segments, merge_token_segments, plan_merges
from .multivector.residual import Codec
from .multivector.tokens import MultiVectorConfig, TokenBuilder, cluster_anew, needs_clustering
from .representations.multivectors import MultiVectors
from .representations.sparse import SparseVectors
from .representations.sparse_multivectors import SparseMultiVectors, document_maxima
from .segments import Segment, SegmentBuilder
from .sparse.bm25 import Bm25
from .sparse.quantize import fit_scale
from .sparse.vocabulary import MAX_TABLES, GrowingVocabulary, Vocabulary, renumber
from .storage import sync_folder
from .strings import StringTable

REORDER_DOCS = 50_000
"""From this size on, learned weights are reordered at build and compaction unless told otherwise."""
Vectors = SparseVectors | MultiVectors | SparseMultiVectors
NextName = Callable[[str], str]
"""Kind of file -> a name that was never used."""


@dataclass(frozen=True, kw_only=True)
class BufferLimits:
    """How much a writer holds in memory before it writes a segment."""

    n_postings: int = 1 << 27
    n_tokens: int = 1 << 22
    n_text_bytes: int = 1 << 28


class SparseContent:
    """Sparse vectors: weighed by the index (BM25), by an encoder, or the maxima of sparse token vectors (SLIM)."""

    def __init__(self, index: Path, manifest: Manifest, limits: BufferLimits) -> None:
        self._index, self._limits = index, limits
        self._bm25 = Bm25(**manifest.bm25) if manifest.bm25 else None
        self._sparse_tokens = manifest.sparse_tokens
        self._by_string = self._bm25 is not None or manifest.encoder.settings.get("terms") == "strings"
        self._scale, self._files = manifest.scale, list(manifest.vocabulary)
        self.vocabulary = GrowingVocabulary(Vocabulary.open(index, manifest.vocabulary))
        self.pending = SegmentBuilder(manifest.fields)

    @property
    def is_full(self) -> bool:
        """Whether the buffered vectors should become a segment."""
        return self.pending.n_postings >= self._limits.n_postings

    def check(self, vectors: Vectors) -> None:
        """See that the vectors are of this kind and name their terms as the index does: by string, or by number."""
        held = SparseMultiVectors if self._sparse_tokens else SparseVectors
        if not isinstance(vectors, held):
            kind = "sparse token vectors" if self._sparse_tokens else "sparse vectors"
            raise RepresentationError(f"{self._index}: the index holds {kind}, not {type(vectors).__name__}")
        if not isinstance(vectors, SparseVectors):
            return
        if vectors.vocabulary is not None and not self._by_string:
            raise RepresentationError(f"{self._index}: the index holds weights of numbered terms, not of strings")
        if vectors.vocabulary is None and self._bm25 is not None:
            raise RepresentationError(f"{self._index}: the index holds term counts")
        n_terms = len(self.vocabulary.known) + len(self.vocabulary.new)
        if vectors.vocabulary is None and self._by_string and vectors.n_postings and vectors.terms.max() >= n_terms:
            raise RepresentationError(f"{self._index}: term {vectors.terms.max()} is past the vocabulary of {n_terms} terms")

    def extend(self, documents: Sequence[Document], vectors: Vectors, fields: dict[str, str]) -> None:
        """Buffer documents and vectors that passed `check`."""
        if isinstance(vectors, SparseMultiVectors):
            self.pending.extend(documents, document_maxima(vectors), fields, vectors)
        elif isinstance(vectors, SparseVectors):
            if vectors.vocabulary is not None:
                vectors = renumber(vectors, self.vocabulary.number(vectors.vocabulary))
            self.pending.extend(documents, vectors, fields)

    def flush(self, segments: Sequence[Segment], fields: dict[str, str], next_name: NextName) -> SegmentRecord:
        """Write what is buffered as the segment after ``segments``."""
        pending = self.pending
        if self._scale is None:
            self._scale = fit_scale(pending.max_weight())
        n_docs = sum(segment.record.n_docs for segment in segments) + len(pending.documents)
        total = sum(segment.record.total_length for segment in segments)
        average = (total + pending.total_length()) / n_docs if self._bm25 else 0.0
        record = pending.write(
            self._index, next_name("segment"), scale=self._scale, bm25=self._bm25, average_length=average
        )  # fmt: skip
        self.pending = SegmentBuilder(fields)
        return record

    def open_segment(self, record: SegmentRecord, base: int, fields: dict[str, str]) -> Segment:
        """Open a segment that no manifest names yet."""
        return Segment(self._index, record, base, fields, sparse_tokens=self._sparse_tokens)

    def compact(
        self, segments: Sequence[Segment], fields: dict[str, str], next_name: NextName, *, reorder: bool | None
    ) -> list[Segment]:
        """Merge segments; see `Collection.compact`."""
        bm25, scale, average = self._bm25, self._scale or 1.0, _live_average_length(segments)
        if reorder is None:
            reorder = bm25 is None and sum(segment.n_live for segment in segments) >= REORDER_DOCS

        def stays(only: Segment) -> bool:
            return (only.record.reordered or not reorder) and (bm25 is None or len(segments) == 1)

        def merge(group: list[Segment], base: int) -> Segment:
            record = merge_segments(
                self._index, next_name("segment"), group, fields, scale=scale, bm25=bm25, reorder=reorder,
                average_length=average,
            )  # fmt: skip
            return self.open_segment(record, base, fields)

        return _merge_groups(segments, stays, merge)

    def save(self, next_name: NextName) -> dict[str, Any]:
        """Write what is new of the vocabulary; returns this content's fields of the manifest."""
        new = self.vocabulary.new
        if new:
            if len(self._files) >= MAX_TABLES:
                known = self.vocabulary.known
                new, self._files = [text for table in known.tables for text in table.to_arrow().to_pylist()] + new, []
            name = next_name("vocabulary") + ".lex"
            StringTable.of(new).write(self._index / name)
            self._files = [*self._files, name]
        return {"scale": self._scale, "vocabulary": self._files}


class TokenContent:
    """Token vectors, and the codec that the first of them made."""

    def __init__(
        self, index: Path, manifest: Manifest, config: MultiVectorConfig, limits: BufferLimits, codec: Codec | None
    ) -> None:
        self._index, self._config, self._limits = index, config, limits
        self._codec, self._codec_name = codec, manifest.codec
        self.pending = TokenBuilder(config, dict(manifest.fields))

    @property
    def is_full(self) -> bool:
        """Whether the buffered tokens should become a segment."""
        return self.pending.n_tokens >= self._limits.n_tokens

    def check(self, vectors: Vectors) -> None:
        """See that the vectors are token vectors of the index's dim."""
        if not isinstance(vectors, MultiVectors):
            raise RepresentationError(f"{self._index}: the index holds token vectors, not {type(vectors).__name__}")
        if vectors.dim != self._config.dim:
            raise RepresentationError(
                f"{self._index}: the index holds token vectors of dim {self._config.dim}, not {vectors.dim}"
            )

    def extend(self, documents: Sequence[Document], vectors: Vectors, fields: dict[str, str]) -> None:
        """Buffer documents and vectors that passed `check`."""
        if isinstance(vectors, MultiVectors):
            self.pending.extend(documents, vectors, fields)

    def flush(self, segments: Sequence[Segment], fields: dict[str, str], next_name: NextName) -> SegmentRecord:
        """Write what is buffered as the segment after ``segments``."""
        codec = self._codec
        if codec is None:
            codec = self.pending.train(more_to_come=self.is_full)
            self._use(codec, next_name)
        record = self.pending.write(self._index, next_name("segment"), codec)
        self.pending = TokenBuilder(self._config, fields)
        return record

    def open_segment(self, record: SegmentRecord, base: int, fields: dict[str, str]) -> Segment:
        """Open a segment that no manifest names yet."""
        return Segment(self._index, record, base, fields, codec=self._codec)

    def compact(
        self, segments: Sequence[Segment], fields: dict[str, str], next_name: NextName, *, reorder: bool | None
    ) -> list[Segment]:
        """Merge segments, clustered anew when it is time; see `Collection.compact`. The order of documents stays."""
        old, config = self._codec, self._config
        if old is None:
            return list(segments)
        new = cluster_anew(segments, old, config) if needs_clustering(segments, old, config) else None

        def merge(group: list[Segment], base: int) -> Segment:
            name = next_name("segment")
            record = merge_token_segments(self._index, name, group, fields, config, codec=old, new_codec=new)
            return Segment(self._index, record, base, fields, codec=new or old)

        merged = _merge_groups(segments, lambda only: new is None, merge)
        if not merged:
            self._codec = self._codec_name = None  # the next tokens may have nothing in common with the last
        elif new is not None:  # only now: a damaged source must not leave old codes with a new codec
            self._use(new, next_name)
        return merged

    def save(self, next_name: NextName) -> dict[str, Any]:
        """Return this content's fields of the manifest."""
        return {"codec": self._codec_name}

    def _use(self, codec: Codec, next_name: NextName) -> None:
        """Encode with this codec from now on; no manifest names its file yet."""
        self._codec, self._codec_name = codec, next_name("codec") + ".lex"
        codec.write(self._index / self._codec_name)
        sync_folder(self._index)


Content = SparseContent | TokenContent


def content_of(index: Path, manifest: Manifest, limits: BufferLimits, codec: Codec | None) -> Content:
    """Open what a manifest says the index holds; ``codec`` is the one that it names."""
    if manifest.multivector is not None:
        return TokenContent(index, manifest, MultiVectorConfig(**manifest.multivector), limits, codec)
    return SparseContent(index, manifest, limits)


def _merge_groups(
    segments: Sequence[Segment], stays: Callable[[Segment], bool], merge: Callable[[list[Segment], int], Segment]
) -> list[Segment]:
    """Replace groups of neighbouring segments by their mergers; a lone segment without deletes stays when it may."""
    merged: list[Segment] = []
    base = 0
    for group in plan_merges(segments):
        segment = group[0]
        if len(group) == 1 and segment.live is None and stays(segment):
            segment.base = base
        else:
            segment = merge(group, base)
        if segment.record.n_docs:
            merged.append(segment)
            base += segment.record.n_docs
    return merged


def _live_average_length(segments: Sequence[Segment]) -> float:
    """Mean length of the live documents in tokens, where lengths are kept (BM25)."""
    total = n_docs = 0
    for segment in segments:
        if "lengths" in segment.inverted.file:
            lengths = segment.inverted.file["lengths"]
            kept = lengths if segment.live is None else lengths[segment.live]
            total, n_docs = total + int(kept.sum(dtype=np.int64)), n_docs + len(kept)
    return total / max(1, n_docs)
