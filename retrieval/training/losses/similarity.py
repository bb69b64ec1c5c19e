"""A narrow projection learns to keep the similarities that its trunk's full-width states have.

With ``t_ij`` the cosine of full states of query token ``i`` and document token ``j``, ``s_ij`` that of the projected ones, and
``w_ij = exp(SHARPNESS (t_ij - max_j t_ij))``, which heeds the tokens that MaxSim may choose::

    mean_w (s_ij - t_ij)^2  +  BALANCE  mean (S_k - T_k)^2

``S_k`` and ``T_k`` are the MaxSim of a query with the k-th document of its list, less the list's mean. No teacher is needed.
"""

from __future__ import annotations

import torch
from torch import Tensor

SHARPNESS = 10.0
BALANCE = 1 / 30  # sums over a query's tokens err about so much more than single cosines


def similarity_distillation(projected: Tensor, full: Tensor, mask: Tensor) -> Tensor:
    """Squared errors of cosines and of MaxSim, as the module has it.

    Parameters
    ----------
    projected, full : (n_queries, n_passages, n_tokens, n_query_tokens) float
        Cosines of each query's tokens with those of its documents.
    mask : (n_queries, n_passages, n_tokens) bool
        Which document tokens count.

    Returns
    -------
    scalar
    """
    absent = ~mask[..., None]
    full = full.detach()
    best = full.masked_fill(absent, -1).amax(2, keepdim=True)
    weights = torch.exp(SHARPNESS * (full - best)).masked_fill(absent, 0)
    cosines = (weights * (projected - full).square()).sum() / weights.sum()
    sums, targets = (_centred(x.masked_fill(absent, -1).max(2).values.sum(2)) for x in (projected, full))
    return cosines + BALANCE * (sums - targets).square().mean()


def _centred(scores: Tensor) -> Tensor:
    return scores - scores.mean(1, keepdim=True)
