"""How the multi-vector part of a segment comes to be: token vectors are buffered, clustered once, encoded and merged.

The first segment's tokens make the codec; later ones are assigned to its centroids, and the length of their residuals tells
how far they have drifted. Compaction clusters anew when the collection has outgrown its centroids or drifted from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..arrays import Floats, Int64s
from ..documents import Document, DocumentBuffer
from ..errors import RepresentationError
from ..manifest import SegmentRecord
from ..representations.multivectors import MultiVectors
from ..segments import Segment
from ..storage import sync_folder
from .clustering import MAX_CENTROIDS, default_n_centroids, sample_size, train
from .codes import EXACT_BITS, TokenRows, encode_tokens, join, write_multivector
from .residual import STEPS, Codec, allowed_bits

MAX_SEGMENT_TOKENS = 1 << 23
"""A merge holds its tokens in memory, about 170 bytes each; larger indexes keep several segments."""
OUTGROWN = 4
"""Compaction clusters anew when this many times as many centroids would be right."""
DRIFTED = 1.15
"""... or when residuals have become longer by this factor."""


@dataclass(frozen=True, kw_only=True)
class MultiVectorConfig:
    """How an index keeps token vectors.

    Attributes
    ----------
    dim : int
        Numbers of a token vector; a multiple of 4 times (8 / nbits).
    nbits : {1, 2, 4, 8}
        Bits a dimension of the residuals that the search reads.
    exact : bool
        Keep the tokens at 8 bits too, in a file of their own, from which the best documents are scored again.
    n_centroids : int or None
        None: by the number of tokens, see `clustering.default_n_centroids`.
    """

    dim: int
    nbits: int = 2
    exact: bool = True
    n_centroids: int | None = None

    def __post_init__(self) -> None:
        if self.nbits not in STEPS:
            raise ValueError(f"nbits is {self.nbits}: it must be one of {', '.join(map(str, STEPS))}")
        if self.dim < 1 or self.nbits not in allowed_bits(self.dim):
            raise ValueError(f"dim is {self.dim}: with {self.nbits} bits it must be a multiple of {32 // self.nbits}")
        if self.n_centroids is not None and not 1 <= self.n_centroids <= MAX_CENTROIDS:
            raise ValueError(f"n_centroids is {self.n_centroids}: it must be 1 to {MAX_CENTROIDS}, or None")


class TokenBuilder:
    """Documents and token vectors that will be the next segment; tokens are held as 16-bit floats."""

    def __init__(self, config: MultiVectorConfig, fields: dict[str, str]) -> None:
        self.documents = DocumentBuffer(fields)
        self.n_tokens = 0
        self._config = config
        self._tokens: list[npt.NDArray[np.float16]] = []
        self._widths: list[Int64s] = []

    def extend(self, documents: Sequence[Document], vectors: MultiVectors, fields: dict[str, str]) -> None:
        """Add documents and their token vectors; raises RepresentationError for another dim than the index's."""
        if vectors.dim != self._config.dim:
            raise RepresentationError(f"token vectors of dim {vectors.dim} for an index of dim {self._config.dim}")
        self.documents.extend(documents, fields)
        self._tokens.append(vectors.tokens.astype(np.float16))
        self._widths.append(np.diff(vectors.offsets))
        self.n_tokens += vectors.n_tokens

    def train(self, *, more_to_come: bool) -> Codec:
        """Cluster a sample of the tokens; ``more_to_come``: make centroids for four times as many.

        Documents without any tokens get a codec of no use, which compaction finds drifted once there are some.
        """
        if not self.n_tokens:
            return train(np.eye(1, self._config.dim, dtype=np.float32), 1)
        n_tokens = self.n_tokens * (4 if more_to_come else 1)
        n_centroids = self._config.n_centroids or default_n_centroids(n_tokens)
        return train(_sample(self._tokens, self.n_tokens, sample_size(n_centroids), self._config.dim), n_centroids)

    def write(self, index: Path, name: str, codec: Codec) -> SegmentRecord:
        """Encode, write the segment and make it durable; nothing is visible until a manifest names it."""
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(self._widths))]).astype(np.int64)
        batches = (batch.astype(np.float32) for batch in self._tokens)
        config = self._config
        rows, errors = encode_tokens(codec, offsets, batches, config.nbits, exact=config.exact)
        self._tokens = []
        folder = index / name
        folder.mkdir()
        write_multivector(folder, rows, codec, config.nbits)
        self.documents.write(folder)
        sync_folder(folder)
        sync_folder(index)
        return _record(name, rows, errors)


def merge_tokens(index: Path, name: str, segments: Sequence[Segment], codec: Codec, config: MultiVectorConfig) -> SegmentRecord:
    """Write the multi-vector part of the merger of segments of one codec, into a folder that exists."""
    rows = _concatenate([segment.tokens.rows(segment.live) for segment in segments], codec.dim, config.nbits)
    write_multivector(index / name, rows, codec, config.nbits)
    return _record(name, rows, mean_errors(segments))


def encode_anew(
    index: Path, name: str, segments: Sequence[Segment], old: Codec, new: Codec, config: MultiVectorConfig
) -> SegmentRecord:
    """Write the multi-vector part of the merger of segments of another codec: decode, and encode with the new one."""
    widths = np.concatenate([_widths(segment) for segment in segments])
    offsets = np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)
    batches = (batch for segment in segments for batch in _decoded(segment, old))
    rows, errors = encode_tokens(new, offsets, batches, config.nbits, exact=config.exact)
    write_multivector(index / name, rows, new, config.nbits)
    return _record(name, rows, errors)


def mean_errors(segments: Sequence[Segment]) -> dict[str, float]:
    """Mean over the segments' tokens of each error that they record."""
    sizes = np.array([max(1, segment.record.n_tokens) for segment in segments], float)
    tables = [segment.record.error for segment in segments]
    return {name: float(np.average([table.get(name, 0.0) for table in tables], weights=sizes)) for name in tables[0]}


def needs_clustering(segments: Sequence[Segment], codec: Codec, config: MultiVectorConfig) -> bool:
    """Whether the collection has outgrown its centroids or drifted from them; never when nothing lives."""
    n_tokens = _n_tokens(segments)
    wanted = min(config.n_centroids or default_n_centroids(n_tokens), n_tokens)
    drifted = mean_errors(segments).get("residual", 0.0) > DRIFTED * codec.residual + 1e-3
    return n_tokens > 0 and (wanted >= OUTGROWN * codec.n_centroids or drifted)


def cluster_anew(segments: Sequence[Segment], codec: Codec, config: MultiVectorConfig) -> Codec:
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


def _decoded(segment: Segment, codec: Codec) -> Iterator[Floats]:
    """Token vectors of the live documents, in order, some thousand documents at a time."""
    part = segment.tokens
    kept = _kept(segment)
    for first in range(0, part.n_docs, 4096):
        last = min(first + 4096, part.n_docs)
        tokens = part.tokens(codec, first, last)
        yield tokens[np.repeat(kept[first:last], np.diff(part.offsets[first : last + 1]))]


def _kept(segment: Segment) -> npt.NDArray[np.bool_]:
    return np.ones(segment.record.n_docs, np.bool_) if segment.live is None else segment.live


def _widths(segment: Segment) -> Int64s:
    """Token counts of the live documents."""
    return np.asarray(np.diff(segment.tokens.offsets)[_kept(segment)], np.int64)


def _n_tokens(segments: Sequence[Segment]) -> int:
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


def _concatenate(parts: Sequence[TokenRows], dim: int, nbits: int) -> TokenRows:
    widths = np.concatenate([np.diff(part.offsets) for part in parts])
    exact = [part.exact for part in parts if part.exact is not None]
    return TokenRows(
        offsets=np.concatenate([[0], np.cumsum(widths)]).astype(np.int64),
        codes=np.concatenate([part.codes for part in parts]),
        small=join([part.small for part in parts], dim, nbits),
        exact=join(exact, dim, EXACT_BITS) if exact else None,
    )


def _record(name: str, rows: TokenRows, errors: dict[str, float]) -> SegmentRecord:
    n_docs = len(rows.offsets) - 1
    return SegmentRecord(name=name, n_docs=n_docs, n_postings=0, n_tokens=len(rows.codes), error=errors)
