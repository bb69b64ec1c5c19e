"""Distillation of a teacher's distribution over a query's passages (ColBERTv2: arXiv 2112.01488, SPLADE-v3: 2403.06789)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import kl_div, log_softmax


def kl_distillation(scores: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Mean over queries of ``KL(softmax(t / T) || softmax(s / T))``.

    Parameters
    ----------
    scores, teacher : (n_queries, n_passages) float
        Of the student, and of the teacher, through which no gradient flows.
    temperature : float
        T > 0. The gradient is not scaled up by T^2.
    """
    student = log_softmax(scores.float() / temperature, dim=-1)
    target = log_softmax(teacher.float() / temperature, dim=-1).detach()
    return kl_div(student, target, reduction="batchmean", log_target=True)
