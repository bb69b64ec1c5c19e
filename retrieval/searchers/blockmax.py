"""The fast exact searcher: Block-Max Pruning where it pays, a windowed scan where it does not.

The scan costs half a nanosecond a posting whatever k is; block-max costs a pass over the bounds plus a microsecond for every
block that it scores, and the number of those grows with k. `kernels.search` chooses for each segment.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ...index.arrays import Floats, Int32s, Int64s
from ...index.kernels import read_only
from ...index.kernels.postings import BLOCK
from ...index.representations.sparse import SparseVectors
from ...index.segments import Mask, Segment
from ...index.snapshot import Snapshot
from ..hits import Hits
from ..kernels import Integer
from ..kernels.query import count_postings, finish, seed, weigh
from ..kernels.search import AUTO, BLOCKMAX, MAXSCORE, SCAN, search_windows
from ..kernels.topk import Keys, new_keys
from ..workers import Workers
from .queries import heaviest

WAYS = {"auto": AUTO, "blockmax": BLOCKMAX, "scan": SCAN, "maxscore": MAXSCORE}
_EVERYTHING = read_only(np.empty(0, np.bool_))
_SLACK_BLOCKS = (1 << 16) // BLOCK
HEAVY_POSTINGS = 1_000_000
"""From here on a query alone is worth waking threads for: a plain scan would take half a millisecond."""


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How to search.

    Attributes
    ----------
    alpha : float in (0, 1]
        1: exact. Less: bounds count at this share, so fewer blocks and documents are scored.
    beta : float in (0, 1]
        1: exact. Less: only this share of the query's terms, heaviest first.
    path : "auto", "blockmax", "scan" or "maxscore"
        Forces one of the ways; answers are the same with alpha, beta and mu at 1.
    mu : float in (0, 1]
        1: exact. Less than alpha: block-max also skips superblocks of 128 documents whose highest bound, at this share, and
        whose mean bound, at alpha, are not above the threshold.
    """

    alpha: float = 1.0
    beta: float = 1.0
    path: str = "auto"
    mu: float = 1.0

    def __post_init__(self) -> None:
        if not all(0 < share <= 1 for share in (self.alpha, self.beta, self.mu)):
            raise ValueError(f"alpha, beta and mu must be in (0, 1], not {self.alpha}, {self.beta} and {self.mu}")
        if self.path not in WAYS:
            raise ValueError(f"path must be one of {', '.join(WAYS)}, not {self.path!r}")


class _Scratch(threading.local):
    """Arrays that one thread reuses from query to query, by name and type."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, type[np.generic]], npt.NDArray[Any]] = {}

    def take(self, name: str, n: int, dtype: type[np.generic]) -> npt.NDArray[Any]:
        array = self._arrays.get((name, dtype))
        if array is None or len(array) < n:
            array = self._arrays[name, dtype] = np.zeros(n, dtype)
        return array if len(array) == n else array[:n]


class BlockMaxSearcher:
    """Top k of a snapshot; safe to use from many threads."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._scratch, self._workers = _Scratch(), Workers()

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
            Queries answered in parallel; a single query that has many postings is cut into parts of its windows instead.

        Returns
        -------
        Hits
            Exactly those of `ExhaustiveSearcher` when ``alpha``, ``beta`` and ``mu`` are 1.

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

        threads_each = n_threads if len(queries) == 1 else 1

        def answer(number: int) -> tuple[Int32s, Floats]:
            terms, weights = queries.row(number)
            if options.beta < 1:
                terms, weights = heaviest(self.snapshot, terms, weights, options.beta)
            return self._one(terms.copy(), weights.copy(), k, masks, filtered, options, n_threads=threads_each)

        return Hits.of(self._workers.map(answer, len(queries), n_threads))

    def warm(self) -> None:
        """Load or compile every kernel that a query can need: all ways, both widths of sums, with a filter and without."""
        segment = next((s for s in self.snapshot.segments if len(s.inverted.terms)), None)
        if segment is None:
            return
        everything = [np.ones(s.record.n_docs, np.bool_) for s in self.snapshot.segments]
        term = segment.inverted.terms[:1].copy()
        for path in WAYS:
            for masks in (everything, [None] * len(everything)):
                for narrow in (True, False):
                    self._one(term, np.ones(1, np.float32), 1, masks, True, SearchOptions(path=path), narrow=narrow)

    def _one(
        self, terms: Int32s, weights: Floats, k: int, masks: Sequence[Mask | None], filtered: bool, options: SearchOptions,
        *, n_threads: int = 1, narrow: bool = True,
    ) -> tuple[Int32s, Floats]:  # fmt: skip
        segments = self.snapshot.segments
        reaches, integers = np.zeros(len(terms), np.int64), np.empty(len(terms), np.int64)
        ranks = [segment.inverted.look_up(terms, reaches) for segment in segments]
        scale, fits = weigh(weights, reaches, integers)
        kind = np.uint16 if narrow and fits else np.uint32
        known = np.zeros(1, np.int64)
        if not filtered:  # how many documents a filter leaves out is unknown; deleted ones are counted
            for i, segment in enumerate(segments):
                needed = k + segment.record.n_deleted
                known[0] = max(known[0], seed(segment.inverted.arrays.kth, ranks[i], integers, needed))
        n_threads = n_threads if n_threads > 1 and _is_heavy(segments, ranks) else 1
        parts = _parts(segments, n_threads)

        def search(numbers: Iterator[int]) -> Keys:
            keys = new_keys(k)
            n: Integer = 0
            floor: Integer = 0
            for number in numbers:
                i, first, last = parts[number]
                segment, mask = segments[i], masks[i]
                arrays, window = segment.inverted.arrays, segment.inverted.window
                allowed = _EVERYTHING if mask is None else read_only(mask)
                scratch = self._scratch_for((last - first) * window // BLOCK, kind)
                n, floor = search_windows(
                    arrays, window, first, last, segment.record.n_docs, segment.base, ranks[i], integers, allowed,
                    keys, n, k, floor, known, options.alpha, options.mu, WAYS[options.path], *scratch,
                )  # fmt: skip
            return keys[:n]

        found = self._workers.share(search, len(parts), n_threads)
        keys = found[0] if len(found) == 1 else np.concatenate(found)
        return finish(keys, len(keys), k, scale * (self.snapshot.manifest.scale or 1.0))

    def _scratch_for(self, n_blocks: int, kind: type[np.generic]) -> tuple[npt.NDArray[Any], ...]:
        take = self._scratch.take
        return take("accumulator", 1 << 16, kind), take("bounds", n_blocks + _SLACK_BLOCKS, kind)


def _is_heavy(segments: Sequence[Segment], ranks: Sequence[Int64s]) -> bool:
    """Whether a query has so many postings that threads share it."""
    pairs = zip(segments, ranks, strict=True)
    return int(sum(count_postings(segment.inverted.arrays.starts, found) for segment, found in pairs)) > HEAVY_POSTINGS


def _parts(segments: Sequence[Segment], n_threads: int) -> list[tuple[int, int, int]]:
    """Segments, each with its windows from the first on, before the last: whole, or in a part for each thread.

    More parts would balance better, and repeat more of what is done once a part: two or four a thread were slower.
    """
    parts = []
    for i, segment in enumerate(segments):
        n_windows = -(-segment.record.n_docs // segment.inverted.window)
        n_parts = min(n_windows, n_threads)
        parts += [(i, *edges) for edges in pairwise(n_windows * part // n_parts for part in range(n_parts + 1))]
    return parts
