"""The order of records in a token store: documents whose tokens have like centroids stand side by side.

Candidates of one query are alike, whatever found them, so some of them are neighbours in the file and one read brings several.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..arrays import Floats, Int32s, Int64s
from ..kernels.lists import mean_centroids
from .clustering import kmeans, nearest
from .residual import Codec

Codes = npt.NDArray[np.uint16]
LEAF_DOCS = 4
"""So few documents are not divided."""
CLUSTER_DOCS = 64
MAX_CLUSTERS = 2048
TRAIN_DOCS = 48
"""Documents that a cluster is made from."""
N_ROUNDS = 4
"""Of power iteration: a direction of much spread will do, the best one is not needed."""


def locality_order(offsets: Int64s, codes: Codes, codec: Codec) -> Int32s:
    """Order documents by clusters of some dozens, and clusters and the documents of each by `halved`, (n,) int32.

    A document stands for the mean of its tokens' centroids, at unit length. Documents without tokens come anywhere.
    """
    means = np.zeros((len(offsets) - 1, codec.dim), np.float32)
    mean_centroids(offsets, codes, codec.centroids, means)
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9)
    n_clusters = min(MAX_CLUSTERS, len(means) // CLUSTER_DOCS)
    if n_clusters < 2:
        return halved(means)
    centres = kmeans(means[:: max(1, len(means) // (TRAIN_DOCS * n_clusters))], n_clusters, 1)
    place = np.empty(len(centres), np.int32)
    place[halved(centres)] = np.arange(len(centres), dtype=np.int32)
    cluster = place[nearest(means, centres)]
    order = np.argsort(cluster, kind="stable").astype(np.int32)
    groups = np.split(order, np.flatnonzero(np.diff(cluster[order])) + 1)
    return np.concatenate([group[halved(means[group])] for group in groups])


def halved(vectors: Floats) -> Int32s:
    """Order vectors (n, dim) by halving them again and again along the direction in which they spread most."""
    order = np.arange(len(vectors), dtype=np.int32)
    pending = [(0, len(order))]
    while pending:
        first, last = pending.pop()
        if last - first > LEAF_DOCS:
            part = order[first:last]
            order[first:last] = part[np.argsort(_projections(vectors[part]), kind="stable")]
            middle = (first + last) // 2
            pending += [(first, middle), (middle, last)]
    return order


def _projections(vectors: Floats) -> Floats:
    """Projections of vectors (n, dim) on a direction in which they spread, (n,)."""
    centred = vectors - vectors.mean(axis=0)
    direction = centred[int(np.argmax(np.square(centred).sum(axis=1)))]
    for _ in range(N_ROUNDS):
        direction = (centred @ direction) @ centred
        direction /= max(float(np.linalg.norm(direction)), 1e-9)
    return np.asarray(centred @ direction, np.float32)
