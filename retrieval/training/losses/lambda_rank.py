"""LambdaRank distillation: pairs that a teacher orders, weighed by what their ranks are worth (MRL, arXiv 2304.14522)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus


def lambda_rank(scores: Tensor, teacher: Tensor) -> Tensor:
    """Mean over queries of ``sum over pairs with t > t' of |1 / rank - 1 / rank'| log(1 + exp(s' - s))``.

    Parameters
    ----------
    scores, teacher : (n_queries, n_passages) float
        The student's and the teacher's scores of each query's own passages. Ranks, from 1, are the student's.
    """
    order = torch.argsort(scores.detach(), dim=1, descending=True, stable=True)
    worth = torch.empty_like(scores, dtype=torch.float32)
    worth.scatter_(1, order, (1 / torch.arange(1, scores.shape[1] + 1, device=scores.device)).expand_as(order))
    preferred = teacher[:, :, None] > teacher[:, None, :]
    pairs = softplus(scores.float()[:, None, :] - scores.float()[:, :, None])
    return (preferred * (worth[:, :, None] - worth[:, None, :]).abs() * pairs).sum((1, 2)).mean()
