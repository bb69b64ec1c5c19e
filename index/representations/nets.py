"""Queries that are small networks: what a Hypencoder makes of a query (arXiv 2502.05364).

::

    QueryNets    sizes (dim, h_1, ..., h_n) | numbers (n_queries, n_numbers) f32

The score of a document whose vector is ``x`` (dim,) is ``w . x_n``, with ``x_0 = x`` and, for the hidden layers j = 1..n::

    y_j = layer_norm(relu(W_j x_(j-1) + b_j))      mean 0 and variance 1 over the layer's h_j numbers, without weights, eps 1e-5
    x_j = y_j + x_(j-1)  for j < n,  x_n = y_n     so all layers but the last are as wide as the vectors
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..arrays import Floats, Int64s
from ..errors import RepresentationError


@dataclass(frozen=True, eq=False)
class QueryNets:
    """``n`` queries, each a network of the same shape.

    Attributes
    ----------
    sizes : tuple of int
        Numbers of a document's vector, then of each hidden layer; at least two, all but the last equal.
    numbers : (n, n_numbers) float32
        Weights of each query, end to end: ``W_1`` (h_1, dim) row by row, ``b_1`` (h_1,), ``W_2``, ``b_2``, ..., ``w`` (h_n,).

    Raises
    ------
    RepresentationError
        Sizes of no such network, numbers of another type or shape, or one that is not finite.
    """

    sizes: tuple[int, ...]
    numbers: Floats

    def __post_init__(self) -> None:
        check_sizes(self.sizes)
        numbers, wanted = self.numbers, n_numbers(self.sizes)
        if numbers.dtype != np.float32 or numbers.ndim != 2 or numbers.shape[1] != wanted:
            raise RepresentationError(
                f"QueryNets.numbers must be a float32 array of shape (n, {wanted}) for the sizes {self.sizes}, not "
                f"{numbers.dtype} {numbers.shape}"
            )
        finite = np.isfinite(numbers).all(axis=1)
        if not finite.all():
            raise RepresentationError(f"QueryNets.numbers must be finite: query {int(np.flatnonzero(~finite)[0])} is not")

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def dim(self) -> int:
        """Numbers of a document's vector."""
        return self.sizes[0]

    @property
    def n_layers(self) -> int:
        """Number of hidden layers."""
        return len(self.sizes) - 1

    def row(self, number: int) -> Floats:
        """All numbers of one query, (n_numbers,), as a view."""
        row: Floats = self.numbers[number]
        return row

    def weights(self, layer: int) -> Floats:
        """``W`` of a hidden layer, from 0: (n, width, width before) float32, a view."""
        first, (before, width) = self._place(layer), self.sizes[layer : layer + 2]
        return self.numbers[:, first : first + width * before].reshape(len(self), width, before)

    def biases(self, layer: int) -> Floats:
        """``b`` of a hidden layer, from 0: (n, width) float32, a view."""
        first, (before, width) = self._place(layer), self.sizes[layer : layer + 2]
        biases: Floats = self.numbers[:, first + width * before : first + width * (before + 1)]
        return biases

    @property
    def outputs(self) -> Floats:
        """``w``: (n, h_n) float32, a view."""
        outputs: Floats = self.numbers[:, -self.sizes[-1] :]
        return outputs

    def select(self, rows: Int64s) -> QueryNets:
        """Return the chosen queries, in the order given."""
        return QueryNets(self.sizes, self.numbers[rows])

    @classmethod
    def of(cls, weights: Sequence[Floats], biases: Sequence[Floats], outputs: Floats) -> QueryNets:
        """Join arrays of the shapes that `weights`, `biases` and `outputs` return, one of each per hidden layer."""
        if not weights or len(weights) != len(biases):
            raise RepresentationError(f"QueryNets: {len(weights)} matrices and {len(biases)} biases: one of each per layer")
        sizes = (weights[0].shape[-1], *(each.shape[1] for each in weights))
        layers = [each.reshape(len(outputs), -1) for pair in zip(weights, biases, strict=True) for each in pair]
        return cls(sizes, np.concatenate([*layers, outputs], axis=1).astype(np.float32))

    def _place(self, layer: int) -> int:
        if not 0 <= layer < self.n_layers:
            raise IndexError(f"layer {layer} of {self.n_layers}")
        return n_numbers(self.sizes[: layer + 1]) - self.sizes[layer]


def n_numbers(sizes: Sequence[int]) -> int:
    """Numbers of one query's network: matrices and biases of the hidden layers, and the output's weights."""
    return sum(width * (before + 1) for before, width in pairwise(sizes)) + sizes[-1]


def check_sizes(sizes: Sequence[int]) -> None:
    """Raise RepresentationError unless there are networks of these sizes."""
    if len(sizes) < 2 or min(sizes) < 1 or len(set(sizes[:-1])) != 1:
        raise RepresentationError(
            f"a query's network of sizes {tuple(sizes)}: expected the numbers of a vector and of one or more hidden layers, "
            "all but the last equal, since these layers add what they read"
        )
