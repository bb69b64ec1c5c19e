"""Numba kernels of query processing: arrays in, arrays out, no I/O."""
