"""Late-interaction search: candidates by centroids, MaxSim over residual codes, the best again over exact tokens.

The stages of PLAID (arXiv 2205.09707) and WARP (2501.17788) on the codec of `index.residual`:

1. integer dot products of the query's tokens with all centroids;
2. each query token probes its nearest centroids, and documents gather what their lists give (`kernels.centroids`);
3. the best candidates are scored by MaxSim over their codes (`kernels.maxsim`);
4. the best of those are scored again over the tokens at 8 bits, where the index keeps them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...index.arrays import Floats, Int32s
from ...index.errors import RepresentationError
from ...index.kernels.dot_products import LANES, SignedBytes, dot_rows, pack_lanes
from ...index.multivector.codes import EXACT_BITS, MultiVectorIndex
from ...index.multivector.residual import Codec
from ...index.representations.multivectors import MultiVectors
from ...index.segments import Mask, Segment
from ...index.snapshot import Snapshot
from ..hits import Hits
from ..kernels.centroids import best_touched, gather, probe, score_codes
from ..kernels.maxsim import score_documents
from ..workers import Workers

_EVERYTHING = np.empty(0, np.bool_)
MAX_STAMP = (1 << 31) - 1


@dataclass(frozen=True, kw_only=True)
class CentroidOptions:
    """How to search.

    Attributes
    ----------
    n_probe : int
        Centroids that each query token probes.
    n_gathered, n_candidates, n_exact : int or None
        Documents that are scored over the centroids of their tokens, over their codes, and again over tokens at 8 bits; each
        at least the answers asked for. None: for ``k`` answers 1024 or 20 k, 512 or 10 k, 32 or 2 k. 0 exact ones: none.
    """

    n_probe: int = 32
    n_gathered: int | None = None
    n_candidates: int | None = None
    n_exact: int | None = None

    def __post_init__(self) -> None:
        for name, lowest in (("n_probe", 1), ("n_gathered", 1), ("n_candidates", 1), ("n_exact", 0)):
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise ValueError(f"{name} is {value}: it must be at least {lowest}")

    def depths(self, k: int) -> tuple[int, int, int]:
        """Return how many documents are gathered, scored over codes, and scored again for ``k`` answers."""
        n_candidates = max(k, max(512, 10 * k) if self.n_candidates is None else self.n_candidates)
        n_gathered = max(1024, 20 * k) if self.n_gathered is None else self.n_gathered
        n_exact = max(32, 2 * k) if self.n_exact is None else max(k, self.n_exact) if self.n_exact else 0
        return max(n_candidates, n_gathered), n_candidates, n_exact


@dataclass(frozen=True, eq=False)
class Lanes:
    """32 query tokens, in the form that kernels take.

    Attributes
    ----------
    packed : (dim / 4, 32, 4) int8
    sums : (32,) int32
        Sum of each lane's bytes.
    weights : (32,) float32
        What a step of the lane's bytes is worth; 0 for a lane without a token.
    means : (32,) float32
        Product with the mean of all tokens, in steps.
    """

    packed: SignedBytes
    sums: Int32s
    weights: Floats
    means: Floats

    def constants(self, codec: Codec, nbits: int) -> Floats:
        """Return what `kernels.maxsim.maxima` calls ``constants``."""
        middles = np.float32(((1 << nbits) - 1) / 2) * self.sums
        return np.concatenate([self.means, middles, [codec.centroid_scale], codec.ranges[nbits].ravel()]).astype(np.float32)


def lanes_of(tokens: Floats, codec: Codec) -> list[Lanes]:
    """Round query tokens (n, dim) to bytes, each by its own scale, 32 at a time; lanes without a token are zero."""
    n_lanes = -(-len(tokens) // LANES) * LANES
    rotated = np.zeros((n_lanes, codec.dim), np.float32)
    rotated[: len(tokens)] = codec.rotate(tokens)
    weights = np.abs(rotated).max(axis=1, initial=0) / np.float32(127)
    steps = np.maximum(weights, np.float32(1e-12))
    rows = np.rint(rotated / steps[:, None]).astype(np.int8)
    means = rotated @ codec.mean / steps
    packed, sums = pack_lanes(rows), rows.sum(axis=1, dtype=np.int32)
    spans = [slice(first, first + LANES) for first in range(0, n_lanes, LANES)]
    return [Lanes(packed[i], sums[span], weights[span], means[span]) for i, span in enumerate(spans)]


class _Scratch(threading.local):
    """Arrays by doc_num that one thread reuses from query to query."""

    def __init__(self, n_docs: int) -> None:
        self.stamps = np.zeros(n_docs, np.int32)
        self.totals = np.empty(n_docs, np.int32)
        self.touched = np.empty(n_docs, np.int32)
        self._last = 0

    def next_round(self, n_stamps: int) -> int:
        """Return a number not below any stamp in use, and reserve the ``n_stamps`` after it."""
        if self._last > MAX_STAMP - n_stamps:
            self.stamps[:] = 0
            self._last = 0
        first = self._last
        self._last += n_stamps
        return first


class CentroidSearcher:
    """Top k of a snapshot of token vectors; approximate. Safe to use from many threads.

    Raises
    ------
    RepresentationError
        The index holds sparse vectors.
    """

    def __init__(self, snapshot: Snapshot, options: CentroidOptions = CentroidOptions()) -> None:
        if snapshot.manifest.multivector is None:
            raise RepresentationError(f"{snapshot.path}: the index holds sparse vectors, not token vectors")
        self.snapshot, self.options = snapshot, options
        self._scratch = _Scratch(sum(segment.record.n_docs for segment in snapshot.segments))
        self._workers = Workers()

    def search(
        self, queries: MultiVectors, k: int, allowed: Sequence[Mask | None] | None = None,
        options: CentroidOptions | None = None, n_threads: int = 1,
    ) -> Hits:  # fmt: skip
        """Answer a batch of queries.

        Parameters
        ----------
        queries : MultiVectors
        k : int
            Answers a query; fewer only when there are fewer documents.
        allowed : list of masks, one a segment, or None
            As `Snapshot.masks` gives them; None: all live documents.
        options : CentroidOptions or None
            None: the searcher's own.
        n_threads : int
            Queries answered in parallel.

        Raises
        ------
        ValueError
            k < 1.
        RepresentationError
            The queries have another dim than the index.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        codec = self.snapshot.codec
        if codec is not None and queries.dim != codec.dim:
            raise RepresentationError(f"queries of dim {queries.dim} for an index of dim {codec.dim}")
        masks = self.snapshot.masks() if allowed is None else allowed
        chosen = options or self.options

        def answer(number: int) -> tuple[Int32s, Floats]:
            return self._one(queries.row(number), k, masks, chosen)

        return Hits.of(self._workers.map(answer, len(queries), n_threads))

    def rerank(self, tokens: Floats, doc_nums: Int32s, *, exact: bool = True) -> Floats:
        """MaxSim of one query with given documents, in any order, (n,) float32; for use behind any first stage.

        ``exact``: over tokens at 8 bits where the index keeps them.
        """
        codec = self.snapshot.codec
        if codec is None or not len(tokens):
            return np.zeros(len(doc_nums), np.float32)
        lanes = lanes_of(tokens, codec)
        order = np.argsort(doc_nums, kind="stable")
        scores = np.empty(len(doc_nums), np.float32)
        scores[order] = self._score(
            lanes, [_centroid_dots(codec, lane) for lane in lanes], doc_nums[order], codec, exact=exact
        )  # fmt: skip
        return scores

    def _one(
        self, tokens: Floats, k: int, masks: Sequence[Mask | None], options: CentroidOptions
    ) -> tuple[Int32s, Floats]:  # fmt: skip
        codec = self.snapshot.codec
        if codec is None or not len(tokens):
            return np.empty(0, np.int32), np.empty(0, np.float32)
        lanes = lanes_of(tokens, codec)
        dots = [_centroid_dots(codec, lane) for lane in lanes]
        n_gathered, n_candidates, n_exact = options.depths(k)
        candidates = self._candidates(lanes, dots, codec, n_gathered, k, masks, options.n_probe)
        if len(candidates) > n_candidates:
            scores = self._score_centroids(lanes, dots, candidates, codec)
            candidates = np.sort(candidates[_best(candidates, scores, n_candidates)])
        scores = self._score(lanes, dots, candidates, codec, exact=False)
        if n_exact and any(segment.tokens.exact is not None for segment in self.snapshot.segments):
            best = _best(candidates, scores, n_exact)
            candidates = np.sort(candidates[best])
            scores = self._score(lanes, dots, candidates, codec, exact=True)
        best = _best(candidates, scores, k)
        return candidates[best], scores[best]

    def _candidates(
        self, lanes: Sequence[Lanes], dots: Sequence[Int32s], codec: Codec, n: int, k: int, masks: Sequence[Mask | None],
        n_probe: int,
    ) -> Int32s:  # fmt: skip
        """Return about ``n`` doc_nums, ascending: all that are allowed when they are few, else what the centroids say.

        Probing is widened while fewer than ``k`` documents are met.
        """
        segments = self.snapshot.segments
        live = [
            segment.record.n_docs if mask is None else int(mask.sum()) for segment, mask in zip(segments, masks, strict=True)
        ]
        scratch = self._scratch
        while sum(live) > n:
            n_probe = min(n_probe, codec.n_centroids)
            n_touched = 0
            round_ = scratch.next_round(LANES * len(lanes))
            for i, (lane, products) in enumerate(zip(lanes, dots, strict=True)):
                nearest, values = np.empty((LANES, n_probe), np.int32), np.empty((LANES, n_probe), np.int32)
                probe(products, n_probe, nearest, values)
                scales = (lane.weights * np.float32(codec.centroid_scale)).astype(np.float32)
                mark = round_ + 1 + LANES * i
                for segment, mask in zip(segments, masks, strict=True):
                    part = segment.tokens
                    n_touched = gather(
                        nearest, values, scales, part.list_starts, part.list_documents, segment.base,
                        _EVERYTHING if mask is None else mask, round_, mark, scratch.stamps, scratch.totals, scratch.touched,
                        n_touched,
                    )  # fmt: skip
            if n_touched >= k:
                return best_touched(scratch.touched, n_touched, scratch.totals, n)
            if n_probe == codec.n_centroids:  # the others have no tokens, and score 0
                break
            n_probe *= 4
        found = [
            segment.base + (np.arange(segment.record.n_docs) if mask is None else np.flatnonzero(mask))
            for segment, mask in zip(segments, masks, strict=True)
        ]
        return np.concatenate([np.empty(0, np.int64), *found]).astype(np.int32)

    def _score_centroids(
        self, lanes: Sequence[Lanes], dots: Sequence[Int32s], doc_nums: Int32s, codec: Codec
    ) -> Floats:  # fmt: skip
        scores = np.zeros(len(doc_nums), np.float32)
        for segment, positions, span in self._parts(doc_nums):
            for lane, products in zip(lanes, dots, strict=True):
                scales = lane.weights * np.float32(codec.centroid_scale)
                mean = float(lane.weights @ lane.means)
                score_codes(positions, segment.tokens.offsets, segment.tokens.codes, products, scales, mean, scores[span])
        return scores

    def _parts(self, doc_nums: Int32s) -> Iterator[tuple[Segment, Int32s, slice]]:
        """Segments that hold some of the ascending doc_nums, positions in each, and where in ``doc_nums`` those are."""
        for segment in self.snapshot.segments:
            first, last = np.searchsorted(doc_nums, [segment.base, segment.base + segment.record.n_docs]).tolist()
            if first < last:
                yield segment, (doc_nums[first:last] - segment.base).astype(np.int32), slice(first, last)

    def _score(self, lanes: Sequence[Lanes], dots: Sequence[Int32s], doc_nums: Int32s, codec: Codec, *, exact: bool) -> Floats:
        scores = np.zeros(len(doc_nums), np.float32)
        for segment, positions, span in self._parts(doc_nums):
            for lane, products in zip(lanes, dots, strict=True):
                _score_part(segment.tokens, positions, lane, products, codec, scores[span], exact=exact)
        return scores


def _score_part(
    part: MultiVectorIndex, positions: Int32s, lane: Lanes, dots: Int32s, codec: Codec, scores: Floats, *, exact: bool
) -> None:
    encoded, nbits = (part.exact, EXACT_BITS) if exact and part.exact is not None else (part.small, part.nbits)
    score_documents(
        positions, part.offsets, nbits, encoded.levels, part.codes, encoded.scalars, dots, lane.packed,
        lane.constants(codec, nbits), lane.weights, scores,
    )  # fmt: skip


def _centroid_dots(codec: Codec, lane: Lanes) -> Int32s:
    """Integer dot products of all centroids with the lanes, (n_centroids, 32)."""
    dots = np.empty((codec.n_centroids, LANES), np.int32)
    dot_rows(codec.centroids, lane.packed, (-128 * lane.sums).astype(np.int32), dots)
    return dots


def _best(doc_nums: Int32s, scores: Floats, n: int) -> npt.NDArray[np.int64]:
    """Positions of the ``n`` best scores, best first; ties by doc_num."""
    return np.lexsort((doc_nums, -scores))[:n]
