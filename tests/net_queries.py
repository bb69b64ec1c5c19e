"""Random networks as queries, and indexes of the vectors that they score, that tests share."""

from dataclasses import asdict
from itertools import pairwise

import numpy as np
from corpora import write_index

from lexmax.index.collection import NewField
from lexmax.index.manifest import EncoderRecord
from lexmax.index.nets.config import NetFieldConfig
from lexmax.index.nets.field import NetField
from lexmax.index.representations.dense import DenseVectors
from lexmax.index.representations.nets import QueryNets

NET_ENCODER = EncoderRecord(kind="hypencoder", fingerprint="hypencoder:0123456789abcdef", settings={})


def random_nets(rng, n, sizes) -> QueryNets:
    """``n`` networks whose every number matters."""
    pairs = list(pairwise(sizes))
    weights = [rng.standard_normal((n, width, before)) * (2 / before) ** 0.5 for before, width in pairs]
    biases = [rng.standard_normal((n, width)) * 0.5 for _, width in pairs]
    return QueryNets.of(weights, biases, rng.standard_normal((n, sizes[-1])))


def new_net_field(dim, **config) -> NewField:
    return NewField(encoder=NET_ENCODER, representation="nets", options=asdict(NetFieldConfig(dim=dim, **config)))


def make_net_field(path, vectors: DenseVectors, cuts=(), deleted=(), **config) -> NetField:
    """The field of an index of one field, "nets", committed in a segment for each part between ``cuts``."""
    return write_index(path, {"nets": new_net_field(vectors.dim, **config)}, {"nets": vectors}, cuts, deleted).field("nets")


def net_scores(queries: QueryNets, number: int, vectors) -> np.ndarray:
    """Scores (n,) float64 of vectors (n, dim) by a query's network, from the formulas."""
    x, first = np.asarray(vectors, np.float64), 0
    numbers, sizes = queries.numbers[number].astype(np.float64), queries.sizes
    for layer, (before, width) in enumerate(pairwise(sizes)):
        matrix = numbers[first : first + width * before].reshape(width, before)
        first += width * before
        y = np.maximum(x @ matrix.T + numbers[first : first + width], 0)
        first += width
        y = (y - y.mean(1, keepdims=True)) / np.sqrt(y.var(1, keepdims=True) + 1e-5)
        x = y if layer == len(sizes) - 2 else x + y
    return x @ numbers[first:]
