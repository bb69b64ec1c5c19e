"""How a field of encodings is written: it takes token vectors, encodes them, and a dense writer keeps the encodings.

The first part's tokens train the encoding. A compaction, or the commit of a small field, trains it again for four times as many
documents, and encodes all of them again from the token field; where that field is gone, the encoding stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Floats, Int32s, Int64s, joined_offsets
from ..dense.rows import Rows
from ..dense.rows import encode as dense_rows
from ..dense.writer import OUTGROWN, RETRAINED_VECTORS, DenseWriter
from ..errors import RepresentationError
from ..fields import Part
from ..manifest import FieldRecord, PartRecord
from ..multivector.codes import MultiVectorIndex
from ..representations import DenseVectors, MultiVectors, Vectors
from ..writing import BufferLimits, NextName, shared_name
from .config import FdeConfig
from .encoding import Encoding, read_encoding, train_encoding, write_encoding
from .field import FdeSegment, dense_record

Select = Callable[[Int64s], MultiVectors]
"""Numbers of documents -> their token vectors."""
SAMPLE_DOCS = 4096
"""Documents that an encoding is trained on."""


class FdeWriter:
    """The writer of one field of encodings; until there is an encoding, tokens are buffered as 16-bit floats."""

    def __init__(self, index: Path, name: str, record: FieldRecord, limits: BufferLimits) -> None:
        self._index, self.name, self._limits, self._record = index, name, limits, record
        self._config = FdeConfig(**record.options["encoding"])
        self._dense = DenseWriter(index, name, dense_record(record), limits)
        self._cells_name: str | None = record.state.get("cells")
        self._encoding = read_encoding(index / self._cells_name, self._config) if self._cells_name else None
        self._new_encoding: Encoding | None = None
        self._shared: str | None = record.state.get("shared")
        self._unsaved = False
        self._offsets: list[Int64s] = []
        self._tokens: list[npt.NDArray[np.float16]] = []

    @property
    def fullness(self) -> float:
        """Share of the buffer's limit that is used."""
        return max(self._dense.fullness, sum(map(len, self._tokens)) / self._limits.n_tokens)

    @property
    def leads_order(self) -> bool:
        """Documents are not reordered by encodings."""
        return False

    def size(self, record: PartRecord) -> float:
        """Share of the largest part that a merge may write."""
        return self._dense.size(record)

    def check(self, vectors: Vectors) -> None:
        """Raise RepresentationError unless vectors are token vectors of the field's dim."""
        where, dim = f"{self._index}, field {self.name}", self._config.token_dim
        if not isinstance(vectors, MultiVectors):
            raise RepresentationError(f"{where}: the field encodes token vectors, not {type(vectors).__name__}")
        if vectors.dim != dim:
            raise RepresentationError(f"{where}: the field encodes token vectors of dim {dim}, not {vectors.dim}")

    def extend(self, vectors: Vectors) -> None:
        """Buffer vectors that passed `check`."""
        if isinstance(vectors, MultiVectors) and self._encoding is not None:
            self._dense.extend(DenseVectors(self._encoding.encode_documents(vectors)))
        elif isinstance(vectors, MultiVectors):
            self._tokens.append(vectors.tokens.astype(np.float16))
            self._offsets.append(vectors.offsets)

    def clear(self) -> None:
        """Forget what is buffered."""
        self._tokens, self._offsets = [], []
        self._dense.clear()

    def flush(self, folder: str, earlier: Sequence[tuple[int, PartRecord]], *, more_to_come: bool) -> PartRecord:
        """Write what is buffered as a part and make it durable; the first part's tokens train the encoding."""
        if self._encoding is None:
            pairs = zip(self._offsets, self._tokens, strict=True)
            buffered = [MultiVectors(offsets, tokens.astype(np.float32)) for offsets, tokens in pairs]
            self._offsets, self._tokens = [], []
            self._encoding, self._unsaved = self._trained([(len(each), each.select) for each in buffered]), True
            for vectors in buffered:
                self.extend(vectors)
        return self._dense.flush(folder, earlier, more_to_come=more_to_come)

    def open(self, record: PartRecord) -> Part:
        """Open a part that `flush` or `merge` wrote."""
        return self._dense.open(record)

    def prepare(self, segments: Sequence[FdeSegment], *, compaction: bool = True) -> bool:
        """Train again when it is time; whether every part must be written again."""
        self._new_encoding = None
        n_docs = sum(segment.n_docs - segment.n_deleted for segment in segments)
        if compaction and self._outgrown(n_docs) and all(segment.source is not None for segment in segments):
            self._new_encoding = self._trained([_live_documents(segment) for segment in segments])
            # Lists and codes of other encodings are of no use.
            self._dense = DenseWriter(self._index, self.name, replace(dense_record(self._record), state={}), self._limits)
            self._dense.prepare(self._encoded_again(segments))
            return True
        return self._dense.prepare(segments, compaction=compaction)

    def outgrown(self, records: Sequence[PartRecord]) -> bool:
        """Whether a small field has outgrown its encoding, or the lists that it is searched by."""
        n_docs = sum(record.n_vectors for record in records)
        return (n_docs <= RETRAINED_VECTORS and self._outgrown(n_docs)) or self._dense.outgrown(records)

    def order(self, segments: Sequence[FdeSegment]) -> Int32s:
        """Raise ValueError: documents are not ordered by encodings."""
        return self._dense.order(segments)

    def merge(self, folder: str, segments: Sequence[FdeSegment], order: Int32s | None) -> PartRecord:
        """Write the live documents of segments as one part: encodings as they are, or made again by a new one.

        Raises
        ------
        IndexFormatError
            A source is damaged: nothing is written over it.
        """
        return self._dense.merge(folder, self._encoded_again(segments) if self._new_encoding else segments, order)

    def finish(self, n_segments: int) -> None:
        """End a compaction: a new encoding takes over, and an empty field forgets one of its own."""
        if not n_segments and not self._shared:
            self._encoding = self._cells_name = None
            self._unsaved = False
        elif self._new_encoding is not None:
            self._encoding, self._unsaved = self._new_encoding, True
        self._new_encoding = None
        self._dense.finish(n_segments)

    def share(self, folder: Path, record: FieldRecord) -> None:
        """Take the encoding, and the quantiser of encodings, of the same field of another index, for good."""
        if record.state.get("cells"):
            self._encoding = read_encoding(folder / record.state["cells"], self._config)
            self._shared, self._unsaved = shared_name(folder, record), True
            self._dense.share(folder, record)

    def state(self, next_name: NextName) -> dict[str, Any]:
        """Write what all segments share and is new; return the field's state for the manifest."""
        if self._unsaved and self._encoding is not None:
            self._cells_name, self._unsaved = next_name("cells") + ".lex", False
            write_encoding(self._index / self._cells_name, self._encoding)
        shared = {"shared": self._shared} if self._shared else {}
        return {**self._dense.state(next_name), "cells": self._cells_name, **shared}

    def _outgrown(self, n_docs: int) -> bool:
        return self._encoding is not None and not self._shared and 0 < OUTGROWN * self._encoding.n_docs <= n_docs

    def _trained(self, sources: Sequence[tuple[int, Select]]) -> Encoding:
        """Train on some documents of all sources."""
        ends = np.cumsum([0, *(n_docs for n_docs, _ in sources)])
        n_docs = int(ends[-1])
        rng = np.random.default_rng(self._config.seed)
        picks = np.sort(rng.choice(n_docs, min(n_docs, SAMPLE_DOCS), replace=False)) if n_docs else np.empty(0, np.int64)
        cuts = np.searchsorted(picks, ends)
        chosen = [select(picks[cuts[i] : cuts[i + 1]] - ends[i]) for i, (_, select) in enumerate(sources)]
        tokens = np.concatenate([np.empty((0, self._config.token_dim), np.float32), *(each.tokens for each in chosen)])
        sample = MultiVectors(joined_offsets([each.offsets for each in chosen]), tokens)
        return train_encoding(self._config, sample, n_docs)

    def _encoded_again(self, segments: Sequence[FdeSegment]) -> list[Any]:
        """Segments whose parts are encoded by the new encoding as they are read."""
        if self._new_encoding is None:
            return list(segments)
        keep = self._record.options["vectors"]["keep"]
        return [
            replace(segment, part=_Reencoded(segment.tokens, self._new_encoding, keep))  # type: ignore[arg-type]
            for segment in segments
        ]


class _Reencoded:
    """Stands for a dense part: its vectors are made of token vectors when they are read."""

    lists = graph = None

    def __init__(self, source: MultiVectorIndex, encoding: Encoding, keep: str) -> None:
        self.n_vectors, self._source, self._encoding, self._keep = source.n_docs, source, encoding, keep

    def check(self) -> None:
        self._source.verify()  # `MultiVectors` refuses what is not finite

    def kept(self, positions: Int64s) -> Rows:
        return dense_rows(self._encoding.encode_documents(documents_at(self._source, positions)), self._keep)


def documents_at(part: MultiVectorIndex, positions: Int64s) -> MultiVectors:
    """Decode the token vectors of documents at some positions; neighbours are decoded together."""
    rows: list[Floats] = []
    for run in np.split(positions, np.flatnonzero(np.diff(positions) != 1) + 1):
        if len(run):
            first, last = int(run[0]), int(run[-1]) + 1
            tokens = part.tokens(part.codec, first, last)
            rows += np.split(tokens, part.offsets[first + 1 : last] - part.offsets[first])
    return MultiVectors.of(rows, part.dim)


def _live_documents(segment: FdeSegment) -> tuple[int, Select]:
    """How many documents of a segment live, and their token vectors by number."""
    live = np.arange(segment.n_docs) if segment.live is None else np.flatnonzero(segment.live)
    return len(live), lambda numbers: documents_at(segment.tokens, live[numbers])
