"""Which documents of a segment a search may return, counted by windows once for all queries that bring the same mask."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...index.arrays import Int32s, Int64s, Mask
from ...index.kernels import read_only

FEW = 1 / 32
"""Share of allowed documents up to which they are listed."""
MAX_KEPT = 256
"""Masks whose counts are kept."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """Allowed documents of a segment.

    Attributes
    ----------
    mask : (n_docs,) bool, read-only; empty for all
    counts : (n_windows,) int64, read-only; empty for all
        Allowed documents of each window.
    documents : (n,) int32, ascending, or None
        Their positions, where they are few.
    is_kept : bool
        The same object stands for the mask in later searches.
    """

    mask: Mask
    counts: Int64s
    documents: Int32s | None = None
    is_kept: bool = False

    def count(self, n_docs: int) -> int:
        """Allowed documents, of so many."""
        return int(self.counts.sum()) if len(self.mask) else n_docs

    def positions(self, n_docs: int) -> Int32s:
        """Their positions, ascending."""
        if self.documents is not None:
            return self.documents
        return np.flatnonzero(self.mask).astype(np.int32) if len(self.mask) else np.arange(n_docs, dtype=np.int32)

    def n_of(self, n_docs: int) -> int:
        """Return how many of the ``n_docs`` of the segment are allowed."""
        return int(self.counts.sum()) if len(self.counts) else n_docs

    def among(self, found: Mask) -> Int32s:
        """Return the positions, ascending, of allowed documents that ``found`` (n_docs,) bool holds too."""
        if self.documents is not None:
            return self.documents[found[self.documents]]
        return np.flatnonzero(found & self.mask if len(self.mask) else found).astype(np.int32)


EVERYTHING = Allowed(read_only(np.empty(0, np.bool_)), read_only(np.empty(0, np.int64)), is_kept=True)


def counted(mask: Mask, window: int, *, is_kept: bool = False) -> Allowed:
    """Count what a mask allows, in windows of so many documents."""
    counts = np.add.reduceat(mask.view(np.uint8), np.arange(0, len(mask), window), dtype=np.int64)
    few = int(counts.sum()) <= FEW * len(mask)
    documents = read_only(np.flatnonzero(mask).astype(np.int32)) if few else None
    return Allowed(read_only(mask), read_only(counts), documents, is_kept)


class CountedMasks:
    """Counts of masks by identity; only those of read-only masks are kept, as `Snapshot.masks` gives: others can change."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, tuple[Mask, Allowed]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, masks: Sequence[Mask | None], windows: Sequence[int]) -> list[Allowed]:
        """Count the masks of all segments; None allows every document."""
        return [
            EVERYTHING if mask is None or not len(mask) else self._one(mask, window)
            for mask, window in zip(masks, windows, strict=True)
        ]

    def _one(self, mask: Mask, window: int) -> Allowed:
        if mask.flags.writeable:
            return counted(mask, window)
        with self._lock:
            kept = self._kept.get(id(mask))
            if kept is not None and kept[0] is mask:
                self._kept.move_to_end(id(mask))
                return kept[1]
        found = counted(mask, window, is_kept=True)
        with self._lock:
            self._kept[id(mask)] = mask, found
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return found
