"""Negative log-likelihood of the positive among a batch's documents (DPR, arXiv 2004.04906)."""

from __future__ import annotations

import torch
from torch import Tensor


def in_batch_nll(
    scores: Tensor, positives: Tensor, *, excluded: Tensor | None = None, temperature: float = 1.0
) -> Tensor:  # fmt: skip
    """Mean over queries of ``-log softmax(s_i / temperature)[positive of i]``.

    Parameters
    ----------
    scores : (n_queries, n_documents) float
        Against all documents of the batch: other queries' positives, and hard negatives as further columns.
    positives : (n_queries,) int64
        Column of each query's positive.
    excluded : (n_queries, n_documents) bool, optional
        Columns that are no negatives of the query, such as copies of its positive.
    temperature : float
        > 0.
    """
    scores = scores.float() / temperature
    if excluded is not None:
        scores = scores.masked_fill(excluded, -torch.inf)
    return torch.nn.functional.cross_entropy(scores, positives)
