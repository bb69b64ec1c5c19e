"""Speed comparisons: lexmax, its oracle and other engines on the same impacts, the same queries and one thread."""

from __future__ import annotations

import os

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)
"""What keeps every library to the calling thread, when set before it is imported."""


def use_threads(n: int = 1) -> None:
    """Set the environment, for this process and those it starts; call it before numpy, numba or an engine is imported."""
    os.environ.update(dict.fromkeys(ONE_THREAD, str(n)))
