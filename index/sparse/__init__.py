"""Sparse vectors on disk: inverted indexes, impacts, vocabularies."""
