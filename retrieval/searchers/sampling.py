"""What calibrations and audits share: queries made of documents, and recall against the best documents."""

from __future__ import annotations

import numpy as np

from ...index.arrays import Int32s
from ...index.snapshot import Snapshot

N_SAMPLED = 100
PASSAGE_WORDS = 12
NO_SOURCE = -1
"""In place of the document that a query was made of."""


def passages_of(snapshot: Snapshot, doc_nums: list[int]) -> dict[int, str]:
    """Some successive words of each document that has words, by doc_num."""
    generator = np.random.default_rng(1)
    passages = {}
    for doc_num, document in zip(doc_nums, snapshot.get_many(doc_nums), strict=True):
        words = document.content.split()
        if words:
            first = int(generator.integers(0, max(1, len(words) - PASSAGE_WORDS + 1)))
            passages[doc_num] = " ".join(words[first : first + PASSAGE_WORDS])
    return passages


def without(doc_nums: Int32s, source: int) -> Int32s:
    """Leave out the document that a query was made of."""
    return doc_nums[np.flatnonzero(doc_nums != source)]


def recall(right: Int32s, found: Int32s) -> float:
    """Share of the right documents that were found; 0 where there are none."""
    return len(np.intersect1d(right, found)) / max(1, len(right))
