"""Queries' networks over dense vectors, a tile of documents at a time (`index.representations.nets` has the formulas).

A tile holds its documents side by side, one row per number, so every sum runs over rows in one order while documents fill the
vector lanes: a document's score depends neither on its place in a tile nor on the documents beside it, to the last bit.
"""

from __future__ import annotations

import numpy as np

from ...index.arrays import Floats, Int64s
from ...index.kernels import sum_kernel
from .tiles import ROWS, TILE, add_product, add_products

EPSILON = np.float32(1e-5)
ONE, ZERO = np.float32(1), np.float32(0)


@sum_kernel
def score_rows(sizes: Int64s, net: Floats, rows: Floats, out: Floats) -> None:
    """Score documents with a query's network.

    Parameters
    ----------
    sizes : (n_layers + 1,) int64
        As `QueryNets.sizes`.
    net : (n_numbers,) float32
        A row of `QueryNets.numbers`.
    rows : (n, dim) float32
        The documents' vectors.
    out : (n,) float32
        Where the scores are written.
    """
    widest = sizes.max()
    tile, spare = np.zeros((widest, TILE), np.float32), np.empty((widest, TILE), np.float32)
    for first in range(0, len(rows), TILE):
        n = min(TILE, len(rows) - first)
        for j in range(n):
            for i in range(sizes[0]):
                tile[i, j] = rows[first + j, i]
        _score_tile(sizes, net, tile, spare)
        out[first : first + n] = spare[0, :n]


@sum_kernel
def _score_tile(sizes: Int64s, net: Floats, tile: Floats, spare: Floats) -> None:
    """Write the scores of a tile's documents to the first row of ``spare``; both are overwritten."""
    n_layers, first = len(sizes) - 1, 0
    for layer in range(n_layers):
        before, width = sizes[layer], sizes[layer + 1]
        biases = first + before * width
        for i in range(width):
            spare[i] = net[biases + i]
        whole = width - width % ROWS
        for i in range(0, whole, ROWS):
            add_products(net, first + i * before, before, tile, spare, i)
        for i in range(whole, width):
            add_product(net, first + i * before, before, tile, spare, i)
        _activate(spare[:width])
        for i in range(width):
            for j in range(TILE):
                tile[i, j] = spare[i, j] + (tile[i, j] if layer < n_layers - 1 else ZERO)
        first = biases + width
    spare[0] = 0
    add_product(net, first, sizes[n_layers], tile, spare, 0)


@sum_kernel
def _activate(rows: Floats) -> None:
    """Take what is below 0 as 0, then bring each column to mean 0 and variance 1."""
    n, means, scales = np.float32(len(rows)), np.zeros(TILE, np.float32), np.zeros(TILE, np.float32)
    for i in range(len(rows)):
        for j in range(TILE):
            rows[i, j] = max(rows[i, j], ZERO)
            means[j] += rows[i, j]
    means /= n
    for i in range(len(rows)):
        for j in range(TILE):
            rows[i, j] -= means[j]
            scales[j] += rows[i, j] * rows[i, j]
    for j in range(TILE):
        scales[j] = ONE / np.sqrt(scales[j] / n + EPSILON)
    for i in range(len(rows)):
        for j in range(TILE):
            rows[i, j] *= scales[j]
