"""Scores of single documents from their rows: for the blocks of block-max, the candidates of the scan, and reranking."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...index.kernels.postings import I32, I64, PostingArrays, verify_rows
from ...index.kernels.rows import rank_bytes
from . import Integer, kernel
from .prefetch import LINE_BYTES, prefetch
from .scores import Accumulator, Ranks
from .simd import score_narrow_row, score_wide_row

AHEAD = 8
"""Documents whose rows are prefetched; their offsets are twice as far ahead."""


@kernel
def score_document(arrays: PostingArrays, d: Integer, ranks: Ranks, weights: Accumulator) -> Integer:
    """Score one document from its row, which is verified: the query's terms are compared with 32 of its entries at a time."""
    first = arrays.forward_indptr[d]
    n = arrays.forward_indptr[d + 1] - first
    if rank_bytes(len(arrays.starts) - 1) == 2:
        return score_narrow_row(arrays.forward, 3 * first, n, ranks, weights)
    return score_wide_row(arrays.forward, 5 * first, n, ranks, weights)


@kernel
def prefetch_rows(arrays: PostingArrays, d: Integer, end: Integer) -> None:
    """Prefetch the rows of documents ``d`` to ``end``, which lie side by side."""
    n_bytes = rank_bytes(len(arrays.starts) - 1) + 1
    for p in range(n_bytes * arrays.forward_indptr[d], n_bytes * arrays.forward_indptr[end], LINE_BYTES):
        prefetch(arrays.forward, p)


@kernel
def score_rows(packed: tuple[Any, ...], documents: I32, ranks: Ranks, weights: Accumulator, scores: I64) -> None:
    """Fill ``scores`` (n,) with those of some of a segment's documents: positions in any order, the same more than once.

    ``packed`` is as in `search.search_windows`; ``ranks``, ``weights`` (n_terms,) are the query; no score may pass 2**32 - 1.
    """
    arrays = PostingArrays(*packed)
    verify_rows(arrays, 0, documents, 1)
    for i in range(len(documents)):
        if i + 2 * AHEAD < len(documents):
            prefetch(arrays.forward_indptr, documents[i + 2 * AHEAD])
        if i + AHEAD < len(documents):
            ahead = np.int64(documents[i + AHEAD])
            prefetch_rows(arrays, ahead, ahead + 1)
        scores[i] = score_document(arrays, np.int64(documents[i]), ranks, weights)
