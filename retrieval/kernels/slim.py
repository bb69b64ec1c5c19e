"""SLIM's score over sparse tokens: ``sum_i max_j q_i . d_j``, in integers, so exact (arXiv 2302.06587)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...index.kernels.checksums import Checked, is_unread, position, verify_span
from . import kernel

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]


@kernel
def score_sparse_tokens(
    checked: Checked, documents: Int32s, offsets: Int64s, indptr: npt.NDArray[Any], ranks: npt.NDArray[Any],
    impacts: npt.NDArray[np.uint8], slots: Int32s, table: Int32s, scores: Int64s,
) -> None:  # fmt: skip
    """Fill ``scores`` with the scores of some of a segment's documents.

    Parameters
    ----------
    checked : Checked
        Of the file of the tokens: ranks and impacts are verified as they are read.
    documents : (n,) int32
        Positions in the segment.
    offsets, indptr, ranks, impacts
        As `index.sparse_tokens` draws them; ranks past ``slots`` are ignored.
    slots : (n_terms,) int32
        Row of ``table`` for each rank; 0 for terms that the query does not have.
    table : (n_rows, n_tokens) int32
        Weight of each term in each of the query's tokens; no dot product with a document's token passes 2**31 - 1.
    scores : (n,) int64
    """
    n_tokens = table.shape[1]
    dots, best = np.empty(n_tokens, np.int32), np.empty(n_tokens, np.int32)
    ranks_at, impacts_at, width = position(checked, ranks), position(checked, impacts), ranks.itemsize
    for i in range(len(documents)):
        best[:] = 0  # no weight is negative
        first, last = offsets[documents[i]], offsets[documents[i] + 1]
        ranks_first, ranks_end = ranks_at + width * np.int64(indptr[first]), ranks_at + width * np.int64(indptr[last])
        impacts_first, impacts_end = impacts_at + np.int64(indptr[first]), impacts_at + np.int64(indptr[last])
        if is_unread(checked.states, ranks_first, ranks_end) or is_unread(checked.states, impacts_first, impacts_end):
            verify_span(checked, ranks_first, ranks_end)
            verify_span(checked, impacts_first, impacts_end)
        for token in range(first, last):
            matched = False
            for entry in range(np.int64(indptr[token]), np.int64(indptr[token + 1])):
                rank = np.int64(ranks[entry])
                slot = slots[rank] if rank < len(slots) else np.int32(0)
                if slot == 0:
                    continue
                if not matched:
                    matched = True
                    dots[:] = 0
                impact = np.int32(impacts[entry])
                for j in range(n_tokens):
                    dots[j] += impact * table[slot, j]
            if matched:
                for j in range(n_tokens):
                    best[j] = max(best[j], dots[j])
        total = np.int64(0)
        for j in range(n_tokens):
            total += best[j]
        scores[i] = total
