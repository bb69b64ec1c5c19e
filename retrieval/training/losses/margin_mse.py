"""MarginMSE: a student learns its teacher's margins (arXiv 2010.02666)."""

from __future__ import annotations

import torch
from torch import Tensor


def margin_mse(scores: Tensor, teacher: Tensor, positives: Tensor) -> Tensor:
    """Mean over queries and negatives of ``((s+ - s-) - (t+ - t-))^2``.

    Parameters
    ----------
    scores, teacher : (n_queries, n_passages) float
        The student's and the teacher's scores of each query's own passages, at least two.
    positives : (n_queries,) int64
        Column of the positive.
    """
    errors = scores.float() - teacher
    errors = errors.gather(1, positives[:, None]) - errors  # 0 in the positive's own column
    n_negatives = errors.numel() - len(errors)
    return torch.sum(errors**2) / n_negatives
