"""Which segments are merged when: small ones as they come, all of them at a compaction.

Commits would leave one segment each. When eight or more neighbouring segments at the end of the index are of one tier or
smaller, and together at least `GROWTH` times as large as the largest of them, they become one; a tier is eight times the size
of the one below it. Because a merge lets every segment grow by that factor, a document is rewritten about ten times on its way
into a segment of `MERGED_DOCS` documents, however small commits are, and some ``2 log8 N`` to ``7 log8 N`` segments of N
documents stay. Runs of more than `MERGED_DOCS` documents are left to ``lexmax compact``, so that the cost of a commit does not
grow with the index.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log

from .manifest import SegmentRecord

FANOUT = 8
"""Segments of one tier that are merged into one of the next."""
SMALL_DOCS = 64
"""Segments of fewer documents are of the lowest tier."""
GROWTH = 1.5
"""A merge above the lowest tier makes at least this many times its largest segment: a few small ones rewrite no large one."""
MERGED_DOCS = 50_000
"""Largest segment that a commit writes by merging."""

Size = Callable[[SegmentRecord], float]
"""Share of the largest segment that a merge may write."""


def tier_of(n_docs: int) -> int:
    """Tier of a segment: 0 below `SMALL_DOCS` documents, one more for each factor of `FANOUT`."""
    return 0 if n_docs < SMALL_DOCS else 1 + int(log(n_docs / SMALL_DOCS, FANOUT) + 1e-9)


def small_run(records: Sequence[SegmentRecord], size: Size) -> int:
    """How many of the last segments a commit should merge into one; 0 for none."""
    tiers = [tier_of(record.n_docs) for record in records]
    for tier in sorted(set(tiers)):
        n = 0
        while n < len(tiers) and tiers[-1 - n] <= tier:
            n += 1
        run = records[len(records) - n :]
        sizes = [record.n_docs for record in run]
        fits = sum(sizes) <= MERGED_DOCS and sum(map(size, run)) <= 1
        if n >= FANOUT and fits and (tier == 0 or sum(sizes) >= GROWTH * max(sizes)):
            return n
    return 0


def merge_groups(records: Sequence[SegmentRecord], size: Size) -> list[slice]:
    """Cut all segments into groups of neighbours, each of which fits one segment."""
    groups: list[slice] = []
    first, fill = 0, 0.0
    for i, record in enumerate(records):
        if i > first and fill + size(record) > 1:
            groups.append(slice(first, i))
            first, fill = i, 0.0
        fill += size(record)
    return [*groups, slice(first, len(records))] if records else []
