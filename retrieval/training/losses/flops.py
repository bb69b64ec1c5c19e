"""Penalties that keep sparse vectors sparse (SPLADE, arXiv 2107.05720; l0 mask: arXiv 2504.14839)."""

from __future__ import annotations

from torch import Tensor


def flops(weights: Tensor, *, term_weights: Tensor | None = None, min_nonzeros: int = 0) -> Tensor:
    """Expected multiplications of a query with a document, smoothed.

    ``sum_j g_j ((1/n) sum_i m_i |w_ij|)^2``, with ``m_i`` 1 for rows of more than ``min_nonzeros`` weights and 0 for
    others, which are sparse enough.

    Parameters
    ----------
    weights : (n, n_terms) float
    term_weights : (n_terms,) float, optional
        ``g``; 1 for all by default.
    min_nonzeros : int
        Rows with at most so many weights above zero are not penalised.
    """
    sizes = weights.abs()
    if min_nonzeros:
        sizes = sizes * ((weights != 0).sum(1, keepdim=True) > min_nonzeros)
    squares = sizes.mean(0) ** 2
    return (squares if term_weights is None else squares * term_weights).sum()


def l1(weights: Tensor) -> Tensor:
    """Mean over rows of the sum of |w|; ``weights`` is (n, n_terms) float."""
    return weights.abs().sum(1).mean()


def quadratic_ramp(step: int, n_steps: int) -> float:
    """Share of a penalty's full strength at ``step``, counted from 1: ``(step / n_steps)^2``, at most 1."""
    return 1.0 if step >= n_steps else (step / n_steps) ** 2
