"""Searchers of vector fields: one module per representation (`sparse`, `tokens`, `sparse_tokens`), found by `registry`."""
