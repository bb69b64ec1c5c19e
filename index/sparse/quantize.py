"""Float weights <-> 8-bit impacts, with the error measured.

``impact = clip(round(weight x scale), 1, 255)``: a weight is never lost by rounding to zero (its smallest value is one
step), and weights past ``255 / scale`` saturate. One scale serves the whole index, so that scores of different segments
compare exactly.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..arrays import Floats

Impacts = npt.NDArray[np.uint8]
MAX_IMPACT = 255


def fit_scale(weights: Floats) -> float:
    """Scale at which the largest weight becomes 255; 1.0 when there are no weights."""
    return float(MAX_IMPACT / weights.max()) if len(weights) else 1.0


def quantize(weights: Floats, scale: float) -> Impacts:
    """Round weights > 0 to impacts 1..255."""
    impacts = np.rint(weights * np.float32(scale))
    np.clip(impacts, 1, MAX_IMPACT, out=impacts)
    return np.asarray(impacts, np.uint8)


def measured_error(weights: Floats, impacts: Impacts, scale: float) -> dict[str, float]:
    """Error of the impacts against the float weights.

    Returns
    -------
    dict
        ``mean_absolute`` and ``max_absolute`` in units of weight, ``relative`` = sum of absolute errors / sum of weights,
        ``saturated`` and ``raised`` = share of weights above the range and of those lifted to the smallest impact.
    """
    if not len(weights):
        return {"mean_absolute": 0.0, "max_absolute": 0.0, "relative": 0.0, "saturated": 0.0, "raised": 0.0}
    scaled = weights * np.float32(scale)
    error = np.abs(impacts - scaled)
    error /= np.float32(scale)
    return {
        "mean_absolute": float(error.mean()),
        "max_absolute": float(error.max()),
        "relative": float(error.sum(dtype=np.float64) / weights.sum(dtype=np.float64)),
        "saturated": float(np.mean(scaled > MAX_IMPACT + 0.5)),
        "raised": float(np.mean(scaled < 0.5)),
    }
