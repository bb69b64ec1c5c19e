"""Scores of single documents from their rows: for the blocks of block-max, the candidates of the scan, and reranking."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...index.kernels.postings import I32, I64, PostingArrays, opened, verify_rows
from ...index.kernels.rows import rank_bytes
from . import Integer, kernel
from .prefetch import LINE_BYTES, prefetch
from .scores import Accumulator, Ranks, known_terms
from .simd import score_narrow_row, score_wide_row
from .topk import Keys, key_of, push, raise_threshold

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
def score_rows(packed: Any, documents: I32, ranks: Ranks, weights: Accumulator, scores: I64) -> None:
    """Fill ``scores`` (n,) with those of some of a segment's documents: positions in any order, the same more than once.

    ``packed`` is as in `search.scan_windows`; ``ranks``, ``weights`` (n_terms,) are the query; no score may pass 2**32 - 1.
    """
    arrays = opened(packed)
    verify_rows(arrays, 0, documents, 1)
    for i in range(len(documents)):
        if i + 2 * AHEAD < len(documents):
            prefetch(arrays.forward_indptr, documents[i + 2 * AHEAD])
        if i + AHEAD < len(documents):
            ahead = np.int64(documents[i + AHEAD])
            prefetch_rows(arrays, ahead, ahead + 1)
        scores[i] = score_document(arrays, np.int64(documents[i]), ranks, weights)


@kernel
def search_rows(
    packed: Any, base: Integer, documents: I32, ranks: Ranks, integers: Ranks, keys: Keys, n: Integer, k: Integer,
    floor: Integer, shared_threshold: I64,
) -> tuple[Integer, Integer]:  # fmt: skip
    """Push those of a segment's ascending ``documents`` that can be among the k best: for filters that leave few.

    Parameters and results are those of `search.scan_windows`.
    """
    arrays = opened(packed)
    terms, weights = known_terms(ranks, integers)
    if len(terms) == 0:
        return n, floor
    verify_rows(arrays, 0, documents, 1)
    threshold = max(raise_threshold(shared_threshold, (floor >> 32) - 1), floor >> 32)
    for i in range(len(documents)):
        if i + 2 * AHEAD < len(documents):
            prefetch(arrays.forward_indptr, documents[i + 2 * AHEAD])
        if i + AHEAD < len(documents):
            ahead = np.int64(documents[i + AHEAD])
            prefetch_rows(arrays, ahead, ahead + 1)
        d = np.int64(documents[i])
        score = score_document(arrays, d, terms, weights)
        if score > threshold:
            n, floor = push(keys, n, k, key_of(score, base + d), floor)
            threshold = max(threshold, floor >> 32)
    return n, floor
