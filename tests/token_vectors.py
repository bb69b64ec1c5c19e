"""Clustered token vectors, and indexes of them, that tests share."""

import numpy as np
from corpora import documents

from lexmax import Collection
from lexmax.index.manifest import EncoderRecord
from lexmax.index.multivector.tokens import MultiVectorConfig
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
    """An index of ``vectors``, committed in a segment for each part between ``cuts``."""
    docs = documents(len(vectors))
    ends = [*cuts, len(vectors)]
    with Collection.create(path, encoder=TOKEN_ENCODER, multivector=MultiVectorConfig(dim=vectors.dim, **config)) as collection:
        for first, end in zip([0, *ends], ends, strict=False):
            collection.add(docs[first:end], vectors.select(np.arange(first, end)))
            collection.commit()
        if deleted:
            collection.delete([f"d{i}" for i in deleted])
            collection.commit()
    return Snapshot.open(path)
