"""Dense vectors, and indexes of them, that tests share."""

import numpy as np
from corpora import write_index
from token_vectors import clustered

from lexmax.index.collection import NewField
from lexmax.index.dense.config import DenseFieldConfig
from lexmax.index.dense.field import DenseField
from lexmax.index.manifest import EncoderRecord
from lexmax.index.representations.dense import DenseVectors

DENSE_ENCODER = EncoderRecord(kind="dense", fingerprint="dense:0123456789abcdef", settings={})


def dense_vectors(rng, n, dim=24) -> DenseVectors:
    """``n`` vectors around a few directions, of lengths around 1."""
    return DenseVectors(clustered(rng, n, dim) * rng.uniform(0.5, 2, (n, 1)).astype(np.float32))


def new_dense_field(dim, **config) -> NewField:
    return NewField(encoder=DENSE_ENCODER, representation="dense", options=DenseFieldConfig(dim=dim, **config).options())


def make_dense_field(path, vectors: DenseVectors, cuts=(), deleted=(), **config) -> DenseField:
    """The field of an index of one field, "dense", committed in a segment for each part between ``cuts``."""
    fields = {"dense": new_dense_field(config.pop("dim", vectors.dim), **config)}
    return write_index(path, fields, {"dense": vectors}, cuts, deleted).field("dense")
