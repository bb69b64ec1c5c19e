"""Training of a dense field's quantiser on a sample of its vectors: k-means, product quantisation, OPQ; by faiss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..arrays import Floats, Int64s
from .config import DenseFieldConfig
from .quantiser import LEVELS, Quantiser
from .rows import block_rows

SEED = 1
POINTS_PER_LIST = 64
POINTS_PER_CODEBOOK = 1 << 15
POINTS_PER_ROTATION = 1 << 14
MAX_NUMBERS = 1 << 26
"""Numbers of a sample: 256 MB of 32-bit floats."""
ITERATIONS = 10
ROTATIONS = 6
ROTATED_DIM = 512
"""OPQ of longer vectors codes their projection on the principal directions of a sample, so many of them."""


def sample_size(n_lists: int, config: DenseFieldConfig) -> int:
    """Return how many vectors `train` makes use of."""
    wanted = max(POINTS_PER_LIST * n_lists, POINTS_PER_CODEBOOK if config.quantise in ("pq", "opq") else 1)
    return max(1, min(wanted, MAX_NUMBERS // config.dim))


def train(sample: Floats, n_lists: int, n_docs: int, config: DenseFieldConfig) -> Quantiser:
    """Make a quantiser.

    Parameters
    ----------
    sample : (n, dim) float32
        About `sample_size` vectors, which are overwritten. The same sample gives the same quantiser.
    n_lists : int
    n_docs : int
        Documents that it is made for.
    config : DenseFieldConfig
    """
    coarse = np.ascontiguousarray(sample[:, : config.list_dim])
    centroids = _centroids(coarse, min(n_lists, len(sample)))
    quantiser = Quantiser(centroids, np.zeros(len(centroids), np.float32), n_docs)
    lists = quantiser.assign(sample)
    rest = sample[:, : config.scan_dim]
    for first in range(0, len(rest), block_rows(config.dim)):
        block = slice(first, first + block_rows(config.dim))
        rest[block, : config.list_dim] -= centroids[lists[block]]
    quantiser = replace(quantiser, spreads=_spreads(rest, lists, len(centroids)))
    if config.quantise not in ("pq", "opq"):
        return quantiser
    rotation = _rotation(rest, config.code_bytes) if config.quantise == "opq" else None
    n_numbers = -(-config.scan_dim // config.code_bytes) * config.code_bytes
    coded = rest @ rotation if rotation is not None else np.pad(rest, ((0, 0), (0, n_numbers - config.scan_dim)))
    return replace(quantiser, rotation=rotation, codebooks=_codebooks(coded, config.code_bytes))


def _centroids(points: Floats, k: int) -> Floats:
    import faiss

    if k == 1:
        return np.asarray(points.mean(axis=0, keepdims=True), np.float32)
    means: Any = faiss.Kmeans(
        points.shape[1], k, niter=ITERATIONS, seed=SEED, min_points_per_centroid=1, max_points_per_centroid=POINTS_PER_LIST
    )  # fmt: skip
    means.train(points)
    return np.asarray(means.centroids, np.float32)


def _spreads(rest: Floats, lists: Int64s, n_lists: int) -> Floats:
    """Root mean squares of what lists leave over; of a list without vectors that of all."""
    squares, counts = np.einsum("nd,nd->n", rest, rest), np.bincount(lists, minlength=n_lists)
    means = np.bincount(lists, squares, n_lists) / np.maximum(counts, 1)
    return np.sqrt(np.where(counts > 0, means, squares.mean())).astype(np.float32)


def _coder(n_numbers: int, n_parts: int, iterations: int = ITERATIONS) -> Any:
    import faiss

    coder: Any = faiss.ProductQuantizer(n_numbers, n_parts, 8)
    coder.cp.seed, coder.cp.niter = SEED, iterations
    coder.cp.min_points_per_centroid, coder.cp.max_points_per_centroid = 1, POINTS_PER_CODEBOOK // LEVELS
    return coder


def _codebooks(points: Floats, n_parts: int) -> Floats:
    import faiss

    coder = _coder(points.shape[1], n_parts, 2 * ITERATIONS)
    coder.train(np.ascontiguousarray(points))
    return np.asarray(faiss.vector_to_array(coder.centroids), np.float32).reshape(n_parts, LEVELS, -1)


def _rotation(points: Floats, n_parts: int) -> Floats:
    """Rotation (dim, d) after which product quantisation loses least, d a multiple of ``n_parts``.

    In turn codebooks are trained for the rotation, and the rotation that suits them best is computed.
    """
    import faiss

    dim = points.shape[1]
    wanted = dim if dim <= 2 * ROTATED_DIM else max(ROTATED_DIM, n_parts)
    points = points[:: -(-len(points) // POINTS_PER_ROTATION)]
    rotation = _principal(points, wanted // n_parts * n_parts)
    coder = _coder(rotation.shape[1], n_parts)
    for _ in range(ROTATIONS):
        turned = np.ascontiguousarray(points @ rotation)
        coder.train(turned)
        left, _, right = np.linalg.svd(points.T @ coder.decode(coder.compute_codes(turned)), full_matrices=False)
        rotation = np.ascontiguousarray(left @ right)
        coder.train_type, coder.cp.niter = faiss.ProductQuantizer.Train_hot_start, 2
    return rotation


def _principal(points: Floats, n: int) -> Floats:
    """Directions (dim, n) of largest variance, dealt out to the parts of a code in turn, by a randomised range finder.

    Halko, Martinsson and Tropp, 2011.
    """
    generator = np.random.default_rng(SEED)
    dim = points.shape[1]
    basis = np.linalg.qr(generator.standard_normal((dim, min(dim, n + 16)), np.float32))[0]
    for _ in range(0 if basis.shape[1] == dim else 2):
        basis = np.linalg.qr(points.T @ (points @ basis))[0]
    projected = points @ basis
    turn = np.linalg.eigh(projected.T @ projected)[1][:, ::-1][:, :n]
    directions = basis @ turn
    mix = np.linalg.qr(generator.standard_normal((n, n)))[0].astype(np.float32)
    found: Floats = (directions @ mix).astype(np.float32)
    return found
