"""Differentiable MaxSim (ColBERT, arXiv 2004.12832): ``s(q, d) = sum_i max_j q_i . d_j`` over the tokens of ``d``."""

from __future__ import annotations

import torch
from torch import Tensor

MASKED = -9999.0  # below any sum of products of unit vectors; a zero would win over negative similarities


def maxsim_lists(queries: Tensor, documents: Tensor, mask: Tensor, query_mask: Tensor | None = None) -> Tensor:
    """Scores of each query with its own documents.

    Parameters
    ----------
    queries : (n_queries, n_query_tokens, dim) float
    documents : (n_queries, n_passages, n_tokens, dim) float
    mask : (n_queries, n_passages, n_tokens) bool
        Which document tokens count.
    query_mask : (n_queries, n_query_tokens) bool, optional
        Which query tokens count; by default all.

    Returns
    -------
    (n_queries, n_passages) float
    """
    counted = [None] * len(queries) if query_mask is None else query_mask
    return torch.stack([_maxsim(*row) for row in zip(queries, documents, mask, counted, strict=True)])


def maxsim_all(queries: Tensor, documents: Tensor, mask: Tensor, query_mask: Tensor | None = None) -> Tensor:
    """Scores of each query with all documents.

    Parameters
    ----------
    queries : (n_queries, n_query_tokens, dim) float
    documents : (n_documents, n_tokens, dim) float
    mask : (n_documents, n_tokens) bool
    query_mask : (n_queries, n_query_tokens) bool, optional
        As `maxsim_lists` takes it.

    Returns
    -------
    (n_queries, n_documents) float
    """
    counted = [None] * len(queries) if query_mask is None else query_mask
    return torch.stack([_maxsim(query, documents, mask, own) for query, own in zip(queries, counted, strict=True)])


def _maxsim(query: Tensor, documents: Tensor, mask: Tensor, counted: Tensor | None) -> Tensor:
    """(n_query_tokens, dim) with (n_documents, n_tokens, dim): (n_documents,).

    One query at a time, and ``max``, which keeps positions for the way back where ``amax`` keeps its whole input.
    """
    similarities = (documents @ query.T).float()  # (n_documents, n_tokens, n_query_tokens)
    similarities = similarities.masked_fill(~mask[:, :, None], MASKED)
    best = similarities.max(dim=1).values
    return (best if counted is None else best * counted).sum(1)
