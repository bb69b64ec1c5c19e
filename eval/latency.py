"""Latency: what a user waits for one answer, as percentiles over queries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PERCENTILES = (50, 95, 99)


def percentiles_ms(times_s: Sequence[float]) -> dict[str, float]:
    """Return ``{"p50", "p95", "p99"}`` in milliseconds, linear between the two nearest times.

    Parameters
    ----------
    times_s : sequence of float
        Seconds, one a query.

    Raises
    ------
    ValueError
        When there are no times.
    """
    if len(times_s) == 0:
        raise ValueError("percentiles need at least one time")
    values = np.percentile(np.asarray(times_s, np.float64) * 1000, PERCENTILES)
    return {f"p{percent}": float(value) for percent, value in zip(PERCENTILES, values, strict=True)}
