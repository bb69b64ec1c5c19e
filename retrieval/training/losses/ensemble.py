"""One teacher out of several whose scores have different scales (arXiv 2411.04403, section 3)."""

from __future__ import annotations

from torch import Tensor

EPSILON = 1e-6


def ensemble_scores(teachers: Tensor, *, scale: float = 30.0) -> Tensor:
    """Average of the teachers' scores, each brought to 0..1 for each query, times ``scale``.

    Parameters
    ----------
    teachers : (n_teachers, n_queries, n_passages) float
        A teacher that scores all passages of a query alike says 0 of each.
    scale : float
        Makes the softmax over the average as sharp as a teacher's.

    Returns
    -------
    (n_queries, n_passages) float
    """
    lowest, highest = teachers.amin(-1, keepdim=True), teachers.amax(-1, keepdim=True)
    scaled = (teachers - lowest) / (highest - lowest + EPSILON)
    return scaled.mean(0) * scale
