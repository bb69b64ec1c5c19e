"""Losses, one file each: pure functions on torch tensors that return a scalar, unless they say otherwise."""
