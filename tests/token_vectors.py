"""Clustered token vectors, and indexes of them, that tests share."""

from dataclasses import asdict

import numpy as np
from corpora import write_index

from lexmax.index.collection import NewField
from lexmax.index.manifest import EncoderRecord
from lexmax.index.multivector.config import MultiVectorConfig
from lexmax.index.multivector.field import TokenField
from lexmax.index.representations.multivectors import MultiVectors
from lexmax.index.snapshot import Snapshot

TOKEN_ENCODER = EncoderRecord(kind="colbert", fingerprint="colbert:0123456789abcdef", settings={})


def unit(matrix):
    return (matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def clustered(rng, n, dim, *, n_topics=48, spread=0.7):
    """``n`` unit vectors around a few directions, as token vectors are; (n, dim)."""
    topics = unit(np.random.default_rng(dim).standard_normal((n_topics, dim)))
    noise = rng.standard_normal((n, dim)) * spread / np.sqrt(dim)
    return unit(topics[rng.integers(0, n_topics, n)] + noise)


def token_vectors(rng, widths, dim=32, **shape) -> MultiVectors:
    """Texts of the given numbers of tokens."""
    return MultiVectors.of([clustered(rng, int(width), dim, **shape) for width in widths], dim)


def make_token_index(path, vectors: MultiVectors, cuts=(), deleted=(), **config) -> Snapshot:
    """An index of one field, "tokens", committed in a segment for each part between ``cuts``."""
    options = asdict(MultiVectorConfig(dim=vectors.dim, **config))
    new = NewField(encoder=TOKEN_ENCODER, representation="tokens", options=options)
    return write_index(path, {"tokens": new}, {"tokens": vectors}, cuts, deleted)


def make_token_field(path, vectors: MultiVectors, cuts=(), deleted=(), **config) -> TokenField:
    """The field of `make_token_index`."""
    return make_token_index(path, vectors, cuts, deleted, **config).field("tokens")
