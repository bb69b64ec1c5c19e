"""Score documents from their rows: what block-max does to blocks, and the scan to candidates."""

from __future__ import annotations

from ...index.kernels.postings import PostingArrays
from ...index.kernels.rows import rank_bytes
from . import Integer, kernel
from .prefetch import LINE_BYTES, prefetch
from .scores import Accumulator, Ranks
from .simd import score_narrow_row, score_wide_row


@kernel
def score_document(arrays: PostingArrays, d: Integer, ranks: Ranks, weights: Accumulator) -> Integer:
    """Score one document from its row: the query's terms are compared with 32 of its entries at a time."""
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
