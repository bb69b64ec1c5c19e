"""Encoders, one file a method; see `base` for the contract and `registry` for the loader."""
