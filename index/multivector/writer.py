"""How a token field is written: token vectors are buffered, clustered once, encoded and merged.

The first part's tokens make the codec; later ones are assigned to its centroids, and the length of their residuals tells how
far they have drifted. A compaction clusters again when the collection has outgrown its centroids or drifted from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Floats, Int32s, Int64s, joined_offsets
from ..errors import IndexFormatError, RepresentationError
from ..fields import Part
from ..manifest import FieldRecord, PartRecord
from ..preludes import ADVICE
from ..representations import MultiVectors, Vectors
from ..storage import sync_folder
from ..writing import BufferLimits, NextName, mean_errors, shared_name
from .clustering import default_n_centroids, sample_size, train
from .codes import FILE_NAME, MultiVectorIndex, TokenRows, encode_tokens, write_multivector
from .config import MultiVectorConfig
from .field import TokenSegment
from .residual import Codec

MAX_PART_TOKENS = 1 << 23
"""A merge holds the tokens of one field in memory; larger indexes keep several segments."""
OUTGROWN = 4
"""Compaction clusters again when this many times as many centroids would be right."""
DRIFTED = 1.15
"""... or when residuals have become longer by this factor."""
RECLUSTERED_TOKENS = 1 << 20
"""A commit clusters a field again of at most this many tokens when it has outgrown its centroids; compaction any field."""
MORE_TO_COME = 4
"""Centroids are made for this many times the tokens at hand when a build goes on after its first part."""


class TokenWriter:
    """The writer of one field of token vectors; tokens are buffered as 16-bit floats."""

    def __init__(self, index: Path, name: str, record: FieldRecord, limits: BufferLimits) -> None:
        self._index, self.name, self._limits = index, name, limits
        self._config = MultiVectorConfig(**record.options)
        self.calibration: dict[str, Any] | None = record.state.get("calibration")
        """What was measured of search options on this field; see `retrieval.searchers.calibration_record`."""
        self._codec_name: str | None = record.state.get("codec")
        self._codec = Codec.read(index / self._codec_name) if self._codec_name else None
        self._new_codec: Codec | None = None
        self._shared: str | None = record.state.get("shared")
        self._unsaved = False
        self._n_tokens = 0
        self._tokens: list[npt.NDArray[np.float16]] = []
        self._offsets: list[Int64s] = []

    @property
    def fullness(self) -> float:
        """Share of the buffer's limit that is used."""
        return self._n_tokens / self._limits.n_tokens

    @property
    def leads_order(self) -> bool:
        """Documents are not reordered by tokens."""
        return False

    def size(self, record: PartRecord) -> float:
        """Share of the largest part that a merge may write."""
        return record.n_tokens / MAX_PART_TOKENS

    def check(self, vectors: Vectors) -> None:
        """Raise RepresentationError unless vectors are token vectors of the field's dim."""
        where = f"{self._index}, field {self.name}"
        if not isinstance(vectors, MultiVectors):
            raise RepresentationError(f"{where}: the field holds token vectors, not {type(vectors).__name__}")
        if vectors.dim != self._config.dim:
            raise RepresentationError(f"{where}: the field holds token vectors of dim {self._config.dim}, not {vectors.dim}")

    def extend(self, vectors: Vectors) -> None:
        """Buffer vectors that passed `check`."""
        if isinstance(vectors, MultiVectors):
            self._tokens.append(vectors.tokens.astype(np.float16))
            self._offsets.append(vectors.offsets)
            self._n_tokens += vectors.n_tokens

    def clear(self) -> None:
        """Forget what is buffered."""
        self._tokens, self._offsets, self._n_tokens = [], [], 0

    def flush(self, folder: str, earlier: Sequence[tuple[int, PartRecord]], *, more_to_come: bool) -> PartRecord:
        """Encode and write what is buffered as a part and make it durable; the first part makes the codec."""
        if self._codec is None:
            self._codec, self._unsaved = self._train(more_to_come=more_to_come), True
        offsets = joined_offsets(self._offsets)
        batches = (batch.astype(np.float32) for batch in self._tokens)
        config = self._config
        rows, errors = encode_tokens(self._codec, offsets, batches, config.nbits, exact=config.exact)
        self.clear()
        return self._write(folder, rows, self._codec, errors)

    def open(self, record: PartRecord) -> Part:
        """Open a part that `flush` or `merge` wrote."""
        codec = self._new_codec or self._codec
        if codec is None:
            raise RepresentationError(f"{self._index}, field {self.name}: no codec yet")
        return open_part(self._index / record.folder, codec, self._config)

    def prepare(self, segments: Sequence[TokenSegment], *, compaction: bool = True) -> bool:
        """Cluster again when it is time; whether every part must be written again, with the new codec."""
        self._new_codec = None
        codec = None if self._shared else self._codec
        if compaction and codec is not None and needs_clustering(segments, codec, self._config):
            self._new_codec = cluster_again(segments, codec, self._config)
        return self._new_codec is not None

    def outgrown(self, records: Sequence[PartRecord]) -> bool:
        """Whether a small field has outgrown its centroids, so that a commit should cluster again."""
        n_tokens = sum(record.n_tokens for record in records)
        if self._codec is None or self._shared or self._config.n_centroids is not None or n_tokens > RECLUSTERED_TOKENS:
            return False
        return min(default_n_centroids(n_tokens), n_tokens) >= OUTGROWN * self._codec.n_centroids

    def order(self, segments: Sequence[TokenSegment]) -> Int32s:
        """Raise ValueError: documents are not ordered by tokens."""
        raise ValueError(f"{self._index}, field {self.name}: documents are reordered by a sparse field")

    def merge(self, folder: str, segments: Sequence[TokenSegment], order: Int32s | None) -> PartRecord:
        """Write the live documents of segments as one part: codes as they are, or decoded and encoded with a new codec.

        Raises
        ------
        IndexFormatError
            A source is damaged: nothing is written over it.
        """
        codec, config = self._codec, self._config
        if codec is None:
            raise RepresentationError(f"{self._index}, field {self.name}: no codec yet")
        for segment in segments:
            segment.part.verify()
        if self._new_codec is None:
            rows = TokenRows.joined([segment.part.rows(segment.live) for segment in segments], codec.dim, config.nbits)
            errors = mean_errors([segment.record for segment in segments])
        else:
            widths = np.concatenate([_widths(segment) for segment in segments])
            offsets = np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)
            batches = (batch for segment in segments for batch in _decoded(segment, codec))
            rows, errors = encode_tokens(self._new_codec, offsets, batches, config.nbits, exact=config.exact)
        return self._write(folder, rows if order is None else rows.take(order), self._new_codec or codec, errors)

    def finish(self, n_segments: int) -> None:
        """End a compaction: the new codec takes over, and an empty field forgets one of its own."""
        if not n_segments and not self._shared:
            # The next tokens may have nothing in common with the last.
            self._codec = self._codec_name = None
            self._unsaved = False
        elif self._new_codec is not None:
            self._codec, self._unsaved = self._new_codec, True
        self._new_codec = None

    def share(self, folder: Path, record: FieldRecord) -> None:
        """Take the codec of the same field of another index, for good."""
        if record.state.get("codec"):
            self._codec, self._unsaved = Codec.read(folder / record.state["codec"]), True
            self._shared = shared_name(folder, record)

    def state(self, next_name: NextName) -> dict[str, Any]:
        """Write the codec when it is new; return the field's state for the manifest."""
        if self._unsaved and self._codec is not None:
            self._codec_name, self._unsaved = next_name("codec") + ".lex", False
            self._codec.write(self._index / self._codec_name)
        shared = {"shared": self._shared} if self._shared else {}
        return {"codec": self._codec_name, "calibration": self.calibration, **shared}

    def _write(self, folder: str, rows: TokenRows, codec: Codec, errors: dict[str, float]) -> PartRecord:
        (self._index / folder).mkdir()
        write_multivector(self._index / folder, rows, codec, self._config.nbits)
        sync_folder(self._index / folder)
        return PartRecord(folder=folder, n_tokens=len(rows.codes), error=errors)

    def _train(self, *, more_to_come: bool) -> Codec:
        """Cluster a sample of the buffered tokens.

        Documents without any tokens get a codec of no use, which compaction finds drifted once there are some.
        """
        if not self._n_tokens:
            return train(np.eye(1, self._config.dim, dtype=np.float32), 1)
        n_tokens = int(self._n_tokens * (MORE_TO_COME if more_to_come else self._limits.growth))
        n_centroids = self._config.n_centroids or default_n_centroids(n_tokens)
        return train(_sample(self._tokens, self._n_tokens, sample_size(n_centroids), self._config.dim), n_centroids)


def open_part(folder: Path, codec: Codec, config: MultiVectorConfig) -> MultiVectorIndex:
    """Open a part, and see that it keeps exact tokens when the field does."""
    part = MultiVectorIndex(folder, codec)
    if config.exact != (part.small is not None):
        wanted = "residuals to search by" if config.exact else "no residuals beside the store's"
        raise IndexFormatError(folder / FILE_NAME, expected=wanted, found="a part of another field", advice=ADVICE)
    return part


def needs_clustering(segments: Sequence[TokenSegment], codec: Codec, config: MultiVectorConfig) -> bool:
    """Whether the collection has outgrown its centroids or drifted from them; never when nothing lives."""
    n_tokens = _n_tokens(segments)
    wanted = min(config.n_centroids or default_n_centroids(n_tokens), n_tokens)
    drifted = mean_errors([segment.record for segment in segments]).get("residual", 0.0) > DRIFTED * codec.residual + 1e-3
    return n_tokens > 0 and (wanted >= OUTGROWN * codec.n_centroids or drifted)


def cluster_again(segments: Sequence[TokenSegment], codec: Codec, config: MultiVectorConfig) -> Codec:
    """Make a codec from a sample of what the segments hold."""
    n_tokens = _n_tokens(segments)
    n_centroids = config.n_centroids or default_n_centroids(n_tokens)
    wanted = sample_size(n_centroids)
    share = min(1.0, 1.5 * wanted / max(1, n_tokens))
    generator = np.random.default_rng(1)
    picked = []
    for segment in segments:
        for batch in _decoded(segment, codec):
            picked.append(batch[generator.random(len(batch)) < share].astype(np.float16))
    return train(_sample(picked, sum(map(len, picked)), wanted, config.dim), n_centroids)


def _decoded(segment: TokenSegment, codec: Codec) -> Iterator[Floats]:
    """Token vectors of the live documents, in order, some thousand documents at a time."""
    part = segment.part
    kept = _kept(segment)
    for first in range(0, part.n_docs, 4096):
        last = min(first + 4096, part.n_docs)
        tokens = part.tokens(codec, first, last)
        yield tokens[np.repeat(kept[first:last], np.diff(part.offsets[first : last + 1]))]


def _kept(segment: TokenSegment) -> npt.NDArray[np.bool_]:
    return np.ones(segment.n_docs, np.bool_) if segment.live is None else segment.live


def _widths(segment: TokenSegment) -> Int64s:
    """Token counts of the live documents."""
    return np.asarray(np.diff(segment.part.offsets)[_kept(segment)], np.int64)


def _n_tokens(segments: Sequence[TokenSegment]) -> int:
    return sum(int(_widths(segment).sum()) for segment in segments)


def _sample(parts: Sequence[npt.NDArray[np.float16]], n_tokens: int, wanted: int, dim: int) -> Floats:
    """Take ``wanted`` tokens, or all, at random with a fixed seed."""
    if n_tokens <= wanted:
        return np.concatenate([np.empty((0, dim), np.float16), *parts]).astype(np.float32)
    picks = np.sort(np.random.default_rng(1).choice(n_tokens, wanted, replace=False))
    starts = np.cumsum([0, *map(len, parts)])
    cuts = np.searchsorted(picks, starts)
    chosen = [part[picks[cuts[i] : cuts[i + 1]] - starts[i]] for i, part in enumerate(parts)]
    return np.concatenate(chosen).astype(np.float32)
