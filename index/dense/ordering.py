"""In which order vectors enter a graph. Those of high local intrinsic dimensionality first: see arXiv 2405.17813."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Floats, Int64s
from .config import DenseFieldConfig
from .part import DensePart
from .rows import block_rows

SEED = 1
N_NEIGHBOURS = 20
MAX_REFERENCE = 1 << 14
"""Vectors among which neighbours are looked for, drawn at random."""


def insertion_order(part: DensePart, config: DenseFieldConfig) -> Int64s:
    """Order a part's vectors as ``config.order`` says, (n,) int64."""
    if config.order == "given":
        return np.arange(part.n_vectors)
    shuffled = np.random.default_rng(SEED).permutation(part.n_vectors)
    if config.order == "random":
        return shuffled
    dims = local_dimensionality(part, config.dim)
    return shuffled[np.argsort(-dims[shuffled], kind="stable")]


def local_dimensionality(part: DensePart, dim: int) -> Floats:
    """Local intrinsic dimensionality of each vector, (n,) float32.

    The maximum-likelihood estimate (Levina and Bickel, 2004) from distances r to the k nearest of a sample:
    -1 / mean(ln(r_i / r_k)); infinite where all are alike.
    """
    import faiss

    sample = np.sort(np.random.default_rng(SEED).choice(part.n_vectors, min(part.n_vectors, MAX_REFERENCE), replace=False))
    nearest: Any = faiss.IndexFlatL2(dim)
    nearest.add(part.vectors(sample))
    n_neighbours, found = min(N_NEIGHBOURS, len(sample) - 1), np.empty(part.n_vectors, np.float32)
    for first in range(0, part.n_vectors, block_rows(dim)):
        numbers = np.arange(first, min(first + block_rows(dim), part.n_vectors))
        squares = nearest.search(part.vectors(numbers), n_neighbours + 1)[0]
        own = np.isin(numbers, sample)[:, None]  # the nearest is the vector itself
        distances = np.sqrt(np.maximum(np.where(own, squares[:, 1:], squares[:, :-1]), np.finfo(np.float32).tiny))
        with np.errstate(divide="ignore"):
            found[numbers] = -1 / np.log(distances / distances[:, -1:]).mean(axis=1)
    found[found == -np.inf] = np.inf
    return found
