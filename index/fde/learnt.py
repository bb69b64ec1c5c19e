"""Encodings by learnt cells: clusters of the field's own tokens in place of random planes.

Tokens of trained models share a large mean, so random planes put them into few cells; clusters around the mean divide them
evenly. A query adds each of its tokens, as it is, to the cell whose centroid is nearest. Of each cell a document says

- the mean of its tokens there, or where it has none the token nearest to the centroid (``values="mean"``),
- or a vector fitted to its MaxSim (``"fitted"``): where ``X`` are sample tokens of the cell and ``g`` the largest product of
  each with a token of the document, ``w = m + (X'X + ridge)^-1 X' (g - X m)`` around that mean ``m``. LEMUR (arXiv 2601.21853)
  fits documents to MaxSim too, over features that a network learns; here the cells are the features.

All documents' mean encoding is subtracted, which adds the same to every score of a query, and leaves quantisers less to keep.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from ..array_files import ArrayFile, ArrayFileWriter
from ..arrays import Floats, Int32s, Int64s
from ..kernels import read_only
from ..kernels.fde import cell_means, cell_sums, nearest_cells, text_maxima
from ..multivector.clustering import kmeans
from ..representations import MultiVectors
from .config import FdeConfig

TOKENS_PER_CELL = 400
"""Of the sample, for clustering."""
RIDGE = 1.0
"""Added to X'X: a cell with few samples stays near the mean."""
BLOCK_TOKENS = 2048
"""Tokens whose products with all samples are held at once."""
MEAN_DOCS = 1024
"""Documents of the sample that the mean encoding is taken from."""


@dataclass(frozen=True, eq=False)
class LearntEncoding:
    """An `encoding.Encoding` of clusters.

    Attributes
    ----------
    config : FdeConfig
    n_docs : int
        Documents that the field had when this was trained.
    centroids : (n_cells, token_dim) float32
        Of unit length, around the mean token.
    token_mean : (token_dim,) float32
    samples : (n, token_dim) float32
        Tokens that values are fitted to, none for means.
    mean : (n_cells * token_dim,) float32
        Mean encoding of documents.
    """

    config: FdeConfig
    n_docs: int
    centroids: Floats
    token_mean: Floats
    samples: Floats
    mean: Floats

    @classmethod
    def train(cls, config: FdeConfig, sample: MultiVectors, n_docs: int) -> LearntEncoding:
        """Cluster the tokens of sample documents, and take the mean of their encodings."""
        rng, dim = np.random.default_rng(config.seed), config.token_dim
        tokens = sample.tokens
        token_mean = tokens.mean(axis=0, dtype=np.float32) if len(tokens) else np.zeros(dim, np.float32)
        wanted = min(len(tokens), TOKENS_PER_CELL * config.n_cells)
        drawn = tokens[np.sort(rng.choice(len(tokens), wanted, replace=False))] - token_mean
        found = kmeans(drawn, config.n_cells, config.seed, spherical=True)
        others = rng.standard_normal((config.n_cells - len(found), dim), np.float32)  # fewer tokens than cells
        centroids = _unit(np.concatenate([found, others]))
        n_samples = min(len(tokens), config.n_samples) if config.values == "fitted" else 0
        samples = tokens[np.sort(rng.choice(len(tokens), n_samples, replace=False))]
        made = cls(config, n_docs, centroids, token_mean, samples.astype(np.float32), np.zeros(config.dim, np.float32))
        full = np.flatnonzero(np.diff(sample.offsets))
        if not len(full):
            return made
        chosen = np.sort(rng.choice(full, min(len(full), MEAN_DOCS), replace=False))
        return replace(made, mean=made.encode_documents(sample.select(chosen)).mean(axis=0, dtype=np.float32))

    @property
    def n_bytes(self) -> int:
        """Size of the arrays in bytes."""
        return sum(array.nbytes for array in (self.centroids, self.token_mean, self.samples, self.mean))

    def encode_documents(self, vectors: MultiVectors) -> Floats:
        """Encode documents, (n, dim) float32; one without tokens is what zeros in all cells would be."""
        near, cells = self._assign(vectors.tokens)
        offsets = read_only(vectors.offsets)
        values = np.zeros((len(vectors), *self.centroids.shape), np.float32)
        cell_means(read_only(vectors.tokens), offsets, near, read_only(cells), values)
        if len(self.samples):
            for first, last in _blocks(vectors.offsets):
                self._fit(vectors, first, last, values[first:last])
        return values.reshape(len(vectors), -1) - self.mean

    def encode_queries(self, vectors: MultiVectors) -> Floats:
        """Encode queries, (n, dim) float32: each cell has the sum of its tokens."""
        _, cells = self._assign(vectors.tokens)
        sums = np.zeros((len(vectors), *self.centroids.shape), np.float32)
        cell_sums(read_only(vectors.tokens), read_only(vectors.offsets), read_only(cells), sums)
        return sums.reshape(len(vectors), -1)

    def _assign(self, tokens: Floats) -> tuple[Floats, Int32s]:
        """Similarities (n, n_cells) of tokens and centroids, around the mean, and each token's cell."""
        near: Floats = np.matmul(tokens - self.token_mean, self.centroids.T, dtype=np.float32)
        cells: Int32s = np.empty(len(near), np.int32)
        nearest_cells(read_only(near), cells)
        return read_only(near), cells

    def _fit(self, vectors: MultiVectors, first: int, last: int, values: Floats) -> None:
        """Move the means (n, n_cells, dim) of some documents to what fits MaxSim."""
        offsets = vectors.offsets[first : last + 1]
        tokens = vectors.tokens[int(offsets[0]) : int(offsets[-1])]
        samples, starts, solvers = self._fitting
        maxima = np.empty((len(samples), last - first), np.float32)
        text_maxima(read_only(samples @ tokens.T), read_only(offsets), maxima)
        for cell, solver in enumerate(solvers):
            span = slice(int(starts[cell]), int(starts[cell + 1]))
            missing = maxima[span] - samples[span] @ values[:, cell].T
            values[:, cell] += (solver @ missing).T

    @cached_property
    def _fitting(self) -> tuple[Floats, Int64s, list[Floats]]:
        """Samples cell by cell, where each cell's begin, and ``(X'X + ridge)^-1 X'`` of each."""
        _, cells = self._assign(self.samples)
        samples = self.samples[np.argsort(cells, kind="stable")]
        starts = np.concatenate([[0], np.cumsum(np.bincount(cells, minlength=len(self.centroids)))]).astype(np.int64)
        ridge, solvers = RIDGE * np.eye(samples.shape[1]), []
        for first, last in pairwise(starts.tolist()):
            x = samples[first:last].astype(np.float64)
            solvers.append(np.linalg.solve(x.T @ x + ridge, x.T).astype(np.float32))
        return samples, starts, solvers

    def add_to(self, out: ArrayFileWriter) -> None:
        """Write the arrays."""
        out.add("n_docs", np.array([self.n_docs], np.int64))
        for name in ("centroids", "token_mean", "samples", "mean"):
            out.add(name, getattr(self, name))

    @classmethod
    def read(cls, file: ArrayFile, config: FdeConfig) -> LearntEncoding:
        """Read the arrays; raises IndexFormatError for any that are none of an encoding."""
        dim = config.token_dim
        centroids = file.array("centroids", "float32", (config.n_cells, dim))
        token_mean, mean = file.array("token_mean", "float32", (dim,)), file.array("mean", "float32", (config.dim,))
        samples = file.array("samples", "float32", (None, dim))
        n_docs = int(file.array("n_docs", "int64", (1,))[0])
        fitted = config.values == "fitted"
        file.require(len(samples) <= (config.n_samples if fitted else 0), "samples that fit the values", len(samples))
        bounded = all(bool(np.all(np.abs(array) <= 2)) for array in (centroids, token_mean, samples))
        file.require(bounded and n_docs >= 0 and bool(np.isfinite(mean).all()), "the numbers of an encoding of unit vectors")
        return cls(config, n_docs, centroids, token_mean, samples, mean)


def _unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Floats = (vectors / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)
    return unit


def _blocks(offsets: Int64s) -> Iterator[tuple[int, int]]:
    """Runs of documents of about `BLOCK_TOKENS` tokens, at least one document each."""
    first, n_docs = 0, len(offsets) - 1
    while first < n_docs:
        last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + BLOCK_TOKENS, side="right")) - 1)
        yield first, min(last, n_docs)
        first = min(last, n_docs)
