"""Numba kernels of query processing: arrays in, arrays out, no I/O."""

from ...index.kernels import kernel

__all__ = ["kernel"]
