"""TCT-ColBERT: a dense student learns from MaxSim over all documents of a batch (arXiv 2010.11386)."""

from __future__ import annotations

from torch import Tensor

from .kl import kl_distillation


def tct_distillation(student: Tensor, teacher: Tensor, *, temperature: float = 0.25) -> Tensor:
    """Mean over queries of ``KL(softmax(teacher / T) || softmax(student))``; only the teacher is sharpened.

    Parameters
    ----------
    student : (n_queries, n_documents) float
        Inner products of pooled vectors.
    teacher : (n_queries, n_documents) float
        MaxSim of the same queries and documents.
    temperature : float
        T > 0.
    """
    return kl_distillation(student, teacher / temperature)
