"""Query tokens in the form that kernels take: 32 at a time, rounded to bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...index.arrays import Floats, Int32s
from ...index.kernels import read_only
from ...index.kernels.dot_products import LANES, SignedBytes, dot_rows, pack_lanes
from ...index.multivector.residual import Codec
from ..kernels.maxsim import round_tokens


@dataclass(frozen=True, eq=False)
class Lanes:
    """32 query tokens, in the form that kernels take.

    Attributes
    ----------
    packed : (dim / 4, 32, 4) int8
    sums : (32,) int32
        Sum of each lane's bytes.
    weights : (32,) float32
        Value of a step of the lane's bytes; 0 for a lane without a token.
    means : (32,) float32
        Product with the mean of all tokens, in steps.
    dots : (n_centroids, 32) int32
        Products with all centroids, in steps.
    """

    packed: SignedBytes
    sums: Int32s
    weights: Floats
    means: Floats
    dots: Int32s

    @property
    def mean(self) -> float:
        """Similarity of all tokens to the mean of all tokens; added in one order, so the same on every processor."""
        return float(np.cumsum(self.weights * self.means)[-1])

    def constants(self, codec: Codec, nbits: int) -> Floats:
        """Return what `kernels.maxsim.maxima` calls ``constants``."""
        middles = np.float32(((1 << nbits) - 1) / 2) * self.sums
        return np.concatenate([self.means, middles, [codec.centroid_scale], codec.ranges[nbits].ravel()]).astype(np.float32)


def lanes_of(tokens: Floats, codec: Codec) -> list[Lanes]:
    """Round query tokens (n, dim) to bytes, each by its own scale, 32 at a time; lanes without a token are zero."""
    n_lanes = -(-len(tokens) // LANES) * LANES
    rows, weights, means = round_tokens(read_only(tokens), read_only(codec.rotation), read_only(codec.mean), n_lanes)
    packed, sums = pack_lanes(rows), rows.sum(axis=1, dtype=np.int32)
    lanes = []
    for i in range(n_lanes // LANES):
        span = slice(i * LANES, (i + 1) * LANES)
        dots = np.empty((codec.n_centroids, LANES), np.int32)
        dot_rows(codec.centroids, packed[i], (-128 * sums[span]).astype(np.int32), dots)
        lanes.append(Lanes(packed[i], sums[span], weights[span], means[span], dots))
    return lanes
