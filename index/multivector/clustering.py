"""Centroids for the residual codec: k-means in two levels, over a sample of the tokens, by faiss."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from ..arrays import Floats, Int64s
from .residual import MAX_CENTROIDS, Codec

ITERATIONS = 8
POINTS_PER_CENTROID = 48
"""Tokens of the sample for each centroid; more gained nothing measurable."""
FIT_TOKENS = 20_000


def default_n_centroids(n_tokens: int) -> int:
    """Return how many centroids ``n_tokens`` get: 8 times their square root, down to a power of two."""
    wanted = 8 * max(1, n_tokens) ** 0.5
    return int(min(MAX_CENTROIDS, 1 << max(0, int(np.log2(min(wanted, max(1, n_tokens / 8)))))))


def sample_size(n_centroids: int) -> int:
    """Return how many tokens `train` makes use of."""
    return n_centroids * POINTS_PER_CENTROID


def train(sample: Floats, n_centroids: int, *, seed: int = 1) -> Codec:
    """Make a codec from a sample of tokens.

    Parameters
    ----------
    sample : (n, dim) float32
        Of unit length; about `sample_size` of them, at least one.
    n_centroids : int
        At most 65,536; fewer are made when the sample has fewer tokens.
    seed : int
        Of the rotation and of k-means: the same sample gives the same codec.

    Raises
    ------
    ValueError
        No tokens, a number of centroids out of range, or a dim that is not a multiple of 4.
    """
    if not len(sample) or not 0 < n_centroids <= MAX_CENTROIDS:
        raise ValueError(f"a codec needs tokens ({len(sample)}) and 1 to {MAX_CENTROIDS} centroids ({n_centroids})")
    dim = sample.shape[1]
    if dim % 4:
        raise ValueError(f"a codec needs a dim that is a multiple of 4, not {dim}")
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0].astype(np.float32)
    rotated = sample @ rotation
    mean = rotated.mean(axis=0)
    centred = rotated - mean
    centroids, starts = _two_levels(centred, min(n_centroids, len(sample)), seed)
    scale = float(max(np.abs(centroids).max() / 127, 1e-6))
    coded = (np.rint(centroids / scale) + 128).astype(np.uint8)
    codec = Codec(rotation, mean, coded, scale, starts, {}, 0.0)
    codec.fit(rotated[:: max(1, len(rotated) // FIT_TOKENS)].copy())
    return codec


def _two_levels(points: Floats, n_centroids: int, seed: int) -> tuple[Floats, Int64s]:
    """Cluster into about ``sqrt(n_centroids)`` groups, and each group into its share; returns centroids and group starts."""
    n_groups = max(1, round((n_centroids / 2) ** 0.5))
    some = points[:: max(1, len(points) // (n_groups * 256))]
    groups = kmeans(some, n_groups, seed)
    owner = nearest(points, groups)
    ends = np.cumsum(np.bincount(owner, minlength=len(groups)))
    shares = np.diff(np.rint(ends * (n_centroids / len(points))), prepend=0).astype(np.int64)  # they add up to n_centroids

    def divide(group: int) -> Floats:
        return kmeans(points[owner == group], int(shares[group]), seed)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = list(pool.map(divide, np.flatnonzero(shares).tolist()))
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    return np.concatenate(parts), starts


def kmeans(points: Floats, k: int, seed: int, *, spherical: bool = False) -> Floats:
    """Cluster points (n, dim); returns at most ``k`` centroids, the points themselves where they are no more than that."""
    import faiss

    points = np.ascontiguousarray(points)
    k = min(k, len(points))
    if k == len(points):
        return np.asarray(points, np.float32)
    means = faiss.Kmeans(
        points.shape[1], k, niter=ITERATIONS, seed=seed, min_points_per_centroid=1, max_points_per_centroid=1 << 20,
        spherical=spherical,
    )  # fmt: skip
    with _one_thread():
        means.train(points)
    return np.asarray(means.centroids, np.float32)


def nearest(points: Floats, centres: Floats) -> Int64s:
    """Return the number of the centre that is nearest to each point, (n,) int64."""
    import faiss

    flat = faiss.IndexFlatL2(points.shape[1])
    flat.add(np.ascontiguousarray(centres))
    with _one_thread():
        return np.asarray(flat.search(np.ascontiguousarray(points), 1)[1][:, 0], np.int64)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep faiss to the calling thread, and give it its threads back: of many small problems each would wait for the others."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
