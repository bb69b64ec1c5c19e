"""Kernels of the residual codec: nearest centroids, quantisation, packing and decoding. Shapes as in `index.residual`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from . import kernel
from .lanes import LANES, SignedBytes, dot_blocks

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]

MISSING = -(1 << 30)
"""What a lane without a centroid starts from: it never wins."""


@kernel
def centred_bytes(tokens: Floats, mean: Floats, scale: float, rows: Bytes) -> None:
    """Fill ``rows`` (n, dim) with ``(tokens - mean) scale``, rounded and cut to -127..127, 128 added."""
    low, high, zero = np.float32(-127), np.float32(127), np.float32(128)
    factor = np.float32(scale)
    for t in range(len(tokens)):
        for i in range(len(mean)):
            value = np.rint((tokens[t, i] - mean[i]) * factor)
            value = low if value < low else (high if value > high else value)
            rows[t, i] = np.uint8(np.int32(value + zero))


@kernel
def largest_lane(scores: Int32s, n: int) -> int:
    """Return the first position of the largest of ``scores[:n]``: a vector maximum and a look for it, unlike np.argmax."""
    top = scores[0]
    for j in range(1, n):
        top = max(top, scores[j])
    at = 0
    while scores[at] != top:
        at += 1
    return at


@kernel
def assign(
    rows: Bytes, coarse: SignedBytes, coarse_starts: Int32s, fine: SignedBytes, fine_starts: Int32s, centroid_of: Int32s,
    group_blocks: Int64s, n_probe: int, codes: Int32s,
) -> None:  # fmt: skip
    """Find each token's nearest centroid among those of its ``n_probe`` nearest groups.

    Parameters
    ----------
    rows : (n, dim) uint8
        Tokens, 128 added.
    coarse, fine : (n_blocks, dim / 4, 32, 4) int8
        Means of the groups, and their centroids group by group, each group from a new block.
    coarse_starts, fine_starts : (n_blocks, 32) int32
        What each lane starts from: minus half its squared length, minus 128 times its sum; `MISSING` for no centroid.
    centroid_of : (n_fine_blocks * 32,) int32
        Centroid number of each fine lane.
    group_blocks : (n_groups + 1,) int64
        Fine blocks of each group.
    codes : (n,) int32
        Written.
    """
    n_groups = len(group_blocks) - 1
    n_probe = min(n_probe, n_groups)
    scores = np.empty(LANES * np.max(np.diff(group_blocks)), np.int32)
    groups = np.empty(LANES * len(coarse), np.int32)
    for t in range(len(rows)):
        dot_blocks(rows, t, coarse, coarse_starts, 0, len(coarse), groups)
        best, best_lane = 2 * MISSING + 1, 0
        for _ in range(n_probe):
            group = largest_lane(groups, len(groups))
            groups[group] = 2 * MISSING
            first, last = group_blocks[group], group_blocks[group + 1]
            dot_blocks(rows, t, fine, fine_starts, first, last, scores)
            lane = largest_lane(scores, LANES * (last - first))
            if scores[lane] > best:
                best, best_lane = int(scores[lane]), LANES * first + lane
        codes[t] = centroid_of[best_lane]


@kernel
def encode(
    tokens: Floats, mean: Floats, centroids: Bytes, centroid_scale: float, codes: Int32s, nbits: int, step: float,
    levels: Bytes, scalars: Floats,
) -> float:  # fmt: skip
    """Quantise what the centroids leave over; returns the sum of the residuals' lengths.

    Parameters
    ----------
    tokens : (n, dim) float32
        Rotated, of unit length.
    levels : (n, dim * nbits / 8) uint8
        Written: level ``i`` of dimension ``c * width + j`` at bits ``c * nbits`` of byte ``j``.
    scalars : (n, 2) float32
        Written: what the centroid and what the residual's levels are multiplied by in the reconstruction.
    """
    n, dim = tokens.shape
    width = levels.shape[1]
    top = (1 << nbits) - 1
    middle = np.float32(top / 2)
    residual = np.empty(dim, np.float32)
    centroid = np.empty(dim, np.float32)
    total = 0.0
    for t in range(n):
        row = centroids[codes[t]]
        square = np.float32(0)
        for d in range(dim):
            centroid[d] = mean[d] + np.float32(centroid_scale) * (np.float32(row[d]) - np.float32(128))
            residual[d] = tokens[t, d] - centroid[d]
            square += residual[d] * residual[d]
        length = np.sqrt(square)
        total += length
        stretch = np.float32(np.sqrt(dim)) / (max(length, np.float32(1e-12)) * np.float32(step))
        levels[t] = 0
        square, product, base = np.float32(0), np.float32(0), np.float32(0)
        for d in range(dim):
            level = min(max(np.floor(residual[d] * stretch + middle + np.float32(0.5)), np.float32(0)), np.float32(top))
            plane = d // width
            levels[t, d - plane * width] |= np.uint8(np.int32(level) << (plane * nbits))
            offset = level - middle
            square += offset * offset
            product += centroid[d] * offset
            base += centroid[d] * centroid[d]
        scale = length / np.sqrt(max(square, np.float32(1e-12)))
        norm = np.sqrt(base + 2 * scale * product + scale * scale * square)
        inverse = np.float32(1) / max(norm, np.float32(1e-12))
        scalars[t, 0], scalars[t, 1] = inverse, scale * inverse
    return total


@kernel
def decode(
    mean: Floats, centroids: Bytes, centroid_scale: float, codes: npt.NDArray[np.uint16] | Int32s, nbits: int, levels: Bytes,
    scalars: Bytes, ranges: Floats, tokens: Floats,
) -> None:  # fmt: skip
    """Reconstruct rotated tokens; ``scalars`` are quantised, ``ranges (2, 2)`` their lowest value and step."""
    n, dim = tokens.shape
    width = levels.shape[1]
    mask = (1 << nbits) - 1
    middle = np.float32(mask / 2)
    for t in range(n):
        row = centroids[codes[t]]
        inverse = ranges[0, 0] + ranges[0, 1] * np.float32(scalars[t, 0])
        scale = ranges[1, 0] + ranges[1, 1] * np.float32(scalars[t, 1])
        for d in range(dim):
            plane = d // width
            level = np.float32((levels[t, d - plane * width] >> (plane * nbits)) & mask)
            centroid = mean[d] + np.float32(centroid_scale) * (np.float32(row[d]) - np.float32(128))
            tokens[t, d] = inverse * centroid + scale * (level - middle)
