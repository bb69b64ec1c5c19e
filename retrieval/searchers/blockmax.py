"""The fast exact searcher: Block-Max Pruning where it pays, a windowed scan where it does not.

The scan costs half a nanosecond a posting whatever k is; block-max costs a pass over the bounds plus a microsecond for every
block that it scores, and the number of those grows with k. The cheaper one by that estimate is chosen for each segment, and a
block-max search that turns out dear is abandoned for the scan, with the threshold found so far.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...index.kernels.postings import BLOCK, KTH
from ...index.representations import Floats, Int32s, SparseVectors
from ...index.segments import Mask, Segment
from ...index.snapshot import Snapshot
from ..hits import Hits
from ..kernels import Integer, blockmax, topk
from ..kernels.scan import scan_segment
from .queries import IntegerQuery, prepare, to_floats

NS_POSTING = 0.55
NS_BLOCK = 1200.0
NS_BOUND = 0.035
BLOCKS_PER_HIT = 20
"""Cost estimates in nanoseconds, measured on 100k and 1M documents; they steer the choice, never the answer."""

_EVERYTHING = np.empty(0, np.bool_)
_EVERYTHING.flags.writeable = False
_SLACK_BLOCKS = (1 << 16) // BLOCK


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How to search.

    Attributes
    ----------
    alpha : float in (0, 1]
        1: exact. Less: block bounds count at this share, so fewer blocks are scored.
    beta : float in (0, 1]
        1: exact. Less: only this share of the query's terms, heaviest first.
    path : "auto", "blockmax" or "scan"
        Forces one of the two ways; answers are the same with alpha = 1.
    """

    alpha: float = 1.0
    beta: float = 1.0
    path: str = "auto"

    def __post_init__(self) -> None:
        if not (0 < self.alpha <= 1 and 0 < self.beta <= 1):
            raise ValueError(f"alpha and beta must be in (0, 1], not {self.alpha} and {self.beta}")
        if self.path not in {"auto", "blockmax", "scan"}:
            raise ValueError(f"path must be auto, blockmax or scan, not {self.path!r}")


class _Scratch(threading.local):
    """Arrays that one thread reuses from query to query."""

    def __init__(self) -> None:
        self._arrays: dict[str, npt.NDArray[Any]] = {}

    def take(self, name: str, n: int, dtype: type[np.generic]) -> npt.NDArray[Any]:
        key = f"{name}-{np.dtype(dtype).name}"
        if key not in self._arrays or len(self._arrays[key]) < n:
            self._arrays[key] = np.zeros(n, dtype)
        return self._arrays[key][:n]


class BlockMaxSearcher:
    """Top k of a snapshot; safe to use from many threads."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._scratch = _Scratch()

    def search(
        self, queries: SparseVectors, k: int, allowed: Sequence[Mask | None] | None = None,
        options: SearchOptions = SearchOptions(), n_threads: int = 1,
    ) -> Hits:  # fmt: skip
        """Answer a batch of queries.

        Parameters
        ----------
        queries : SparseVectors
            In the snapshot's term numbers (`Snapshot.query_vectors`).
        k : int
            Answers a query; fewer only when fewer documents share a term with it.
        allowed : list of masks, one a segment, or None
            As `Snapshot.masks` gives them; None: all live documents.
        options : SearchOptions
        n_threads : int
            Queries answered in parallel.

        Returns
        -------
        Hits
            Exactly those of `ExhaustiveSearcher` when ``alpha`` and ``beta`` are 1.

        Raises
        ------
        ValueError
            k < 1.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        k = min(k, max(1, self.snapshot.n_docs))
        masks = self.snapshot.masks() if allowed is None else allowed
        filtered = allowed is not None

        def answer(number: int) -> tuple[Int32s, Floats]:
            return self._one(prepare(self.snapshot, queries, number, options.beta), k, masks, filtered, options)

        if n_threads > 1 and len(queries) > 1:
            with ThreadPoolExecutor(n_threads) as pool:
                return Hits.of(list(pool.map(answer, range(len(queries)))))
        return Hits.of([answer(number) for number in range(len(queries))])

    def warm(self) -> None:
        """Load or compile every kernel that a query can need: both ways, both widths of sums, with a filter and without."""
        segment = next((s for s in self.snapshot.segments if len(s.inverted.terms)), None)
        if segment is None:
            return
        everything = [np.ones(s.record.n_docs, np.bool_) for s in self.snapshot.segments]
        for narrow in (True, False):
            query = IntegerQuery(terms=segment.inverted.terms[:1], weights=np.ones(1, np.int64), scale=1.0, narrow=narrow)
            for path in ("blockmax", "scan"):
                for masks in (everything, [None] * len(everything)):
                    self._one(query, 1, masks, True, SearchOptions(path=path))

    def _one(
        self,
        query: IntegerQuery,
        k: int,
        masks: Sequence[Mask | None],
        filtered: bool,
        options: SearchOptions,
    ) -> tuple[Int32s, Floats]:
        keys = topk.new_keys(k)
        n: Integer = 0
        floor: Integer = 0
        parts = [(segment, segment.inverted.ranks(query.terms)) for segment in self.snapshot.segments]
        threshold = max((_seed(segment, ranks, query, k, filtered) for segment, ranks in parts), default=0)
        for (segment, ranks), mask in zip(parts, masks, strict=True):
            present = ranks >= 0
            if not present.any() or (mask is not None and not mask.any()):
                continue
            kind = np.uint16 if query.narrow else np.uint32
            weights = query.weights[present].astype(kind)
            allowed = _EVERYTHING if mask is None else _readonly(mask)
            n, floor = self._segment(segment, ranks[present], weights, allowed, (keys, n, k, floor), threshold, options)
        scores, doc_nums = topk.unpack(keys, n, k)
        return doc_nums, to_floats(scores, query, self.snapshot)

    def _segment(
        self, segment: Segment, ranks: npt.NDArray[np.int64], weights: npt.NDArray[Any], allowed: Mask,
        best: tuple[npt.NDArray[np.int64], Integer, int, Integer], threshold: int, options: SearchOptions,
    ) -> tuple[Integer, Integer]:  # fmt: skip
        keys, n, k, floor = best
        inverted, kind = segment.inverted, weights.dtype.type
        arrays, n_docs = inverted.arrays, segment.record.n_docs
        scan_ns = NS_POSTING * float((arrays.starts[ranks + 1] - arrays.starts[ranks]).sum())
        bound_ns = NS_BOUND * inverted.n_blocks * len(ranks)
        path = options.path
        if path == "auto":
            path = "scan" if scan_ns < BLOCKS_PER_HIT * k * NS_BLOCK + bound_ns else "blockmax"
        if path == "blockmax":
            n_bounds = inverted.n_blocks + _SLACK_BLOCKS
            bounds = self._scratch.take("bounds", n_bounds, kind)
            groups = self._scratch.take("groups", -(-inverted.n_blocks // blockmax.GROUP), kind)
            blockmax.bound_blocks(arrays, inverted.window, ranks, weights, bounds)
            blockmax.group_maxima(bounds[: inverted.n_blocks], groups)
            table = self._scratch.take("table", _power_of_two(len(inverted.terms)), np.uint32)
            table[ranks] = weights
            budget = 2**62 if options.path == "blockmax" else int(scan_ns / NS_BLOCK) + 1
            before = keys[:n].copy()
            n, reached, n_scored = blockmax.search_blocks(
                arrays, n_docs, segment.base, table, bounds, groups, allowed, keys, n, k, floor, threshold,
                options.alpha, budget,
            )  # fmt: skip
            table[ranks] = 0
            if n_scored >= 0:
                return n, reached
            threshold = max(threshold, int(reached >> 32) - 1)
            n = len(before)
            keys[:n] = before
        accumulator = self._scratch.take("accumulator", 1 << 16, kind)
        return scan_segment(
            arrays, inverted.window, n_docs, segment.base, ranks, weights, accumulator, allowed, keys, n, k, floor, threshold
        )  # fmt: skip


def _seed(segment: Segment, ranks: npt.NDArray[np.int64], query: IntegerQuery, k: int, filtered: bool) -> int:
    """Return a score that at least k live documents of the segment exceed: one term alone gives it to them.

    Documents that a filter excludes are unknown in number, so there is no such score then; deleted ones are known.
    """
    needed = k + segment.record.n_deleted
    at = int(np.searchsorted(KTH, needed))
    present = ranks >= 0
    if filtered or at == len(KTH) or not present.any():
        return 0
    reached = segment.inverted.arrays.kth[ranks[present], at] * query.weights[present]
    return max(0, int(reached.max()) - 1)


def _power_of_two(n: int) -> int:
    return 1 << max(16, (max(1, n) - 1).bit_length())


def _readonly(mask: Mask) -> Mask:
    """Kernels are compiled for read-only masks, as those of a memory map are."""
    view = mask.view()
    view.flags.writeable = False
    return view
