"""Numba kernels of query processing: arrays in, arrays out, no I/O."""

import numpy as np

from ...index.kernels import kernel

Integer = int | np.int64
"""What kernels take and give for a whole number."""

__all__ = ["Integer", "kernel"]
