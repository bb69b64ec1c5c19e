"""The order of records in a token store: documents whose tokens have like centroids stand side by side.

Candidates of one query are alike, whatever found them, so some of them are neighbours in the file and one read brings several.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..arrays import Floats, Int32s, Int64s
from ..kernels.lists import mean_centroids
from .residual import Codec

Codes = npt.NDArray[np.uint16]
LEAF_DOCS = 8
"""So few documents are not divided."""
N_ROUNDS = 4
"""Of power iteration: a direction of much spread will do, the best one is not needed."""


def locality_order(offsets: Int64s, codes: Codes, codec: Codec) -> Int32s:
    """Order documents by halving them again and again along the direction in which their means spread most, (n,) int32.

    A document's mean is that of its tokens' centroids. Documents without tokens come anywhere.
    """
    means = np.zeros((len(offsets) - 1, codec.dim), np.float32)
    mean_centroids(offsets, codes, codec.centroids, means)
    order = np.arange(len(means), dtype=np.int32)
    pending = [(0, len(order))]
    while pending:
        first, last = pending.pop()
        if last - first > LEAF_DOCS:
            part = order[first:last]
            order[first:last] = part[np.argsort(_projections(means[part]), kind="stable")]
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
