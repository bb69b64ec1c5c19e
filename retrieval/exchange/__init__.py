"""Vectors and indexes from and for other programs."""
