"""Token pooling: fewer vectors for a document, by merging those that are alike (arXiv 2409.14683).

Ward's hierarchical clustering on the distance 1 - cosine; a cluster's vector is its mean, brought to unit length. Where the
mean has no direction, as that of v and -v, the cluster's first vector stands for it.
"""

from __future__ import annotations

import numpy as np

from ...index.arrays import Floats, Int64s

NO_DIRECTION = 1e-6  # means of unit vectors that are shorter point where rounding says


def pool_tokens(vectors: Floats, *, factor: int, n_protected: int) -> Floats:
    """Merge the vectors of one document into one ``factor``-th of them.

    Parameters
    ----------
    vectors : (n, dim) float32
        Of unit length.
    factor : int
        Vectors that one of the result stands for, on average.
    n_protected : int
        Leading vectors that stay as they are.

    Returns
    -------
    (n_pooled, dim) float32
        Of unit length: the protected ones, then the clusters in the order of their first tokens.
    """
    protected, others = vectors[:n_protected], vectors[n_protected:]
    n_clusters = max(1, len(others) // factor)
    if n_clusters >= len(others):
        return vectors
    firsts, clusters = np.unique(ward_clusters(others, n_clusters), return_inverse=True)
    means = np.zeros((n_clusters, vectors.shape[1]), np.float32)
    np.add.at(means, clusters, others)
    means /= np.bincount(clusters)[:, None]
    vague = np.linalg.norm(means, axis=1) < NO_DIRECTION
    means[vague] = others[firsts[vague]]
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return np.concatenate([protected, means])


def ward_clusters(vectors: Floats, n_clusters: int) -> Int64s:
    """Cluster of each vector, named by its first member, (n,) int64; exactly ``n_clusters`` of them.

    The nearest pair is merged until enough are. A merged cluster is never nearer to a third than both its parts
    were (Ward's distance is reducible), so only clusters whose neighbour was merged look for a new one: about O(n²).
    """
    n = len(vectors)
    wide = vectors.astype(np.float64)
    squares = np.square(1 - wide @ wide.T)  # Lance and Williams' update wants squares of the distances
    np.fill_diagonal(squares, np.inf)
    labels, sizes = np.arange(n), np.ones(n)
    nearest = squares.argmin(1)
    gaps = squares.min(1)
    for _ in range(n - n_clusters):
        first = int(gaps.argmin())
        first, second = sorted((first, int(nearest[first])))
        a, b, gap = sizes[first], sizes[second], squares[first, second]
        merged = ((a + sizes) * squares[first] + (b + sizes) * squares[second] - sizes * gap) / (a + b + sizes)
        merged[[first, second]] = np.inf
        squares[first] = squares[:, first] = merged
        squares[second] = squares[:, second] = np.inf
        sizes[first] += b
        labels[labels == second] = first
        nearest[[first, second]] = first  # among equal distances, either may have named a third
        stale = np.flatnonzero((nearest == first) | (nearest == second))
        nearest[stale] = squares[stale].argmin(1)
        gaps[stale] = squares[stale, nearest[stale]]
        nearest[second] = -1  # merged for good, so never stale again
    return labels
