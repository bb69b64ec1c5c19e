"""Kernels of the residual codec: nearest centroids, quantisation, packing and decoding. Shapes as in `index.residual`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from . import kernel, sum_kernel
from .dot_products import LANES, SignedBytes, dot_rows

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]

MISSING = -(1 << 30)
"""What a lane without a centroid starts from: it never wins."""
TOKENS = 32
"""Tokens that meet a block of centroids together: their bytes and scores fit the nearest cache."""


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
def largest_lane(scores: Int32s, n: int) -> np.int32:
    """Return the first position of the largest of ``scores[:n]``, in two vectorised passes, unlike np.argmax."""
    top, none = scores[0], np.int32(n)
    for j in range(1, n):
        top = max(top, scores[j])
    at = none
    for j in range(n):
        at = min(at, np.int32(j) if scores[j] == top else none)
    return at


@kernel
def probe_groups(rows: Bytes, coarse: SignedBytes, coarse_starts: Int32s, n_groups: int, n_probe: int) -> tuple[Int32s, Int64s]:
    """Tokens by group: those that have it among their ``n_probe`` nearest are ``tokens[starts[g]:starts[g + 1]]``."""
    nearest = np.empty((len(rows), n_probe), np.int32)
    starts = np.zeros(n_groups + 1, np.int64)
    scores, groups = np.empty((TOKENS, LANES), np.int32), np.empty((TOKENS, LANES * len(coarse)), np.int32)
    for first in range(0, len(rows), TOKENS):
        some = rows[first : first + TOKENS]
        for block in range(len(coarse)):
            dot_rows(some, coarse[block], coarse_starts[block], scores)
            groups[:, LANES * block : LANES * (block + 1)] = scores
        for i in range(n_probe):  # of one token after the other, whose passes need not wait for each other
            for t in range(len(some)):
                group = int(largest_lane(groups[t], LANES * len(coarse)))
                groups[t, group] = 2 * MISSING
                nearest[first + t, i] = group
                starts[group + 1] += 1
    for group in range(n_groups):
        starts[group + 1] += starts[group]
    tokens, ends = np.empty(starts[-1], np.int32), starts[:-1].copy()
    for t in range(len(rows)):
        for group in nearest[t]:
            tokens[ends[group]] = t
            ends[group] += 1
    return tokens, starts


@kernel
def keep_better(scores: Int32s, block: int, tops: Int32s, blocks: Int32s) -> None:
    """Lane by lane, keep the larger score of each token and the block that it is from."""
    number = np.int32(block)
    for i in range(len(scores)):
        for j in range(LANES):
            better = scores[i, j] > tops[i, j]
            tops[i, j] = scores[i, j] if better else tops[i, j]
            blocks[i, j] = number if better else blocks[i, j]


@kernel
def assign(
    rows: Bytes, coarse: SignedBytes, coarse_starts: Int32s, fine: SignedBytes, fine_starts: Int32s, centroid_of: Int32s,
    group_blocks: Int64s, n_probe: int, codes: Int32s,
) -> None:  # fmt: skip
    """Find each token's nearest centroid among those of its ``n_probe`` nearest groups, group after group.

    So a group's centroids stay in the nearest cache while all of its tokens meet them.

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
    tokens, starts = probe_groups(rows, coarse, coarse_starts, n_groups, min(n_probe, n_groups))
    best = np.full(len(rows), 2 * MISSING, np.int32)
    near = np.empty((TOKENS, rows.shape[1]), np.uint8)
    words, near_words = rows.view(np.uint32), near.view(np.uint32)  # copied so, not byte by byte
    scores, tops = np.empty((TOKENS, LANES), np.int32), np.empty((TOKENS, LANES), np.int32)
    blocks = np.empty((TOKENS, LANES), np.int32)
    for group in range(n_groups):
        for first in range(starts[group], starts[group + 1], TOKENS):
            some = tokens[first : min(first + TOKENS, starts[group + 1])]
            for i in range(len(some)):
                for d in range(near_words.shape[1]):
                    near_words[i, d] = words[some[i], d]
            tops[:] = 2 * MISSING
            for block in range(group_blocks[group], group_blocks[group + 1]):
                dot_rows(near[: len(some)], fine[block], fine_starts[block], scores)
                keep_better(scores[: len(some)], block, tops, blocks)
            for i in range(len(some)):
                lane = largest_lane(tops[i], LANES)
                if tops[i, lane] > best[some[i]]:
                    best[some[i]] = tops[i, lane]
                    codes[some[i]] = centroid_of[LANES * blocks[i, lane] + lane]


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
    zero, high = np.float32(0), np.float32((1 << nbits) - 1)
    middle, factor = high / np.float32(2), np.float32(centroid_scale)
    residual, centroid, offsets = np.empty(dim, np.float32), np.empty(dim, np.float32), np.empty(dim, np.float32)
    wide = np.empty(dim, np.uint8)
    total = 0.0
    for t in range(n):
        row = centroids[codes[t]]
        for d in range(dim):
            centroid[d] = mean[d] + factor * (np.float32(row[d]) - np.float32(128))
            residual[d] = tokens[t, d] - centroid[d]
        length = np.sqrt(dot(residual, residual))
        total += length
        stretch = np.float32(np.sqrt(dim)) / (max(length, np.float32(1e-12)) * np.float32(step))
        for d in range(dim):
            level = np.floor(residual[d] * stretch + middle + np.float32(0.5))
            level = zero if level < zero else (high if level > high else level)
            wide[d] = np.uint8(np.int32(level))
            offsets[d] = level - middle
        pack_planes(wide, nbits, levels[t])
        square, product = dot(offsets, offsets), dot(centroid, offsets)
        scale = length / np.sqrt(max(square, np.float32(1e-12)))
        norm = np.sqrt(dot(centroid, centroid) + 2 * scale * product + scale * scale * square)
        inverse = np.float32(1) / max(norm, np.float32(1e-12))
        scalars[t, 0], scalars[t, 1] = inverse, scale * inverse
    return total


@sum_kernel
def dot(a: Floats, b: Floats) -> np.float32:
    """Dot product of two vectors."""
    total = np.float32(0)
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@kernel
def pack_planes(wide: Bytes, nbits: int, levels: Bytes) -> None:
    """Put level ``c * width + j`` at bits ``c * nbits`` of byte ``j``."""
    width = len(levels)
    levels[:] = wide[:width]
    for plane in range(1, 8 // nbits):
        part, shift = wide[plane * width : (plane + 1) * width], np.uint8(plane * nbits)
        for j in range(width):
            levels[j] |= np.uint8(part[j] << shift)


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
