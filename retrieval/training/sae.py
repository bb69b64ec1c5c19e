"""A TopK sparse autoencoder and its loss (arXiv 2406.04093).

::

    x = scale (v - mean)          v: a vector; mean and scale bring the training vectors to mean 0 and mean squared length 1
    z = TopK(W_e (x - b_d) + b_e)                 the n_active largest, those above zero
    x' = W_d z + b_d                              rows of ``decoder`` are columns of W_d, of unit length
    loss = |x - x'|² / |x|² + |e - W_d z_dead|² / 32 |e|²         e = x - x', which latents that are dead learn to explain

Of a batch's gradients only those of active latents are above zero, so the decoder and the backward pass touch them alone: a
step costs the one product of all vectors with all latents that finds them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, normalize

DEAD_WEIGHT = 1 / 32


class SaeLosses(NamedTuple):
    """What a batch says of an autoencoder.

    Attributes
    ----------
    unexplained : scalar
        Share of the batch's variance that is not reconstructed.
    dead : scalar
        Share of the error that dead latents do not explain; 0 where none is dead.
    active : (n, n_active) int64
        The latents of each vector.
    values : (n, n_active) float32
        Their activations, some of them 0.
    """

    unexplained: Tensor
    dead: Tensor
    active: Tensor
    values: Tensor

    @property
    def total(self) -> Tensor:
        """What is minimised."""
        return self.unexplained + DEAD_WEIGHT * self.dead


class SparseAutoencoder(nn.Module):
    """The network; encoder and decoder start as each other's transpose.

    Parameters
    ----------
    dim, n_latents, n_active : int
        Numbers of a vector, latents, and how many of them a vector has.
    mean : (dim,) float32
    scale : float
        Of the vectors that it is trained on.
    seed : int
        Of the directions that it starts with.

    Raises
    ------
    ValueError
        Numbers below 1, or more active latents than there are.
    """

    mean: Tensor

    def __init__(self, dim: int, n_latents: int, n_active: int, *, mean: Tensor, scale: float, seed: int = 0) -> None:
        super().__init__()
        if not 1 <= n_active <= n_latents:
            raise ValueError(f"{n_active} active of {n_latents} latents: expected 1 or more, and no more than there are")
        self.n_active, self.scale = n_active, scale
        directions = normalize(torch.randn(n_latents, dim, generator=torch.Generator().manual_seed(seed)), dim=1)
        self.encoder, self.decoder = nn.Parameter(directions), nn.Parameter(directions.clone())
        self.encoder_bias, self.decoder_bias = nn.Parameter(torch.zeros(n_latents)), nn.Parameter(torch.zeros(dim))
        self.register_buffer("mean", mean)

    def normalized(self, vectors: Tensor) -> Tensor:
        """Vectors (n, dim) as the network takes them."""
        return self.scale * (vectors.float() - self.mean)

    def active(self, inputs: Tensor, among: Tensor | None = None) -> Tensor:
        """Numbers of each input's largest latents, (n, n_active) int64; ``among``: of those alone."""
        with torch.no_grad():
            weights: Tensor = self.encoder
            biases: Tensor = self.encoder_bias
            if among is not None:
                weights, biases = weights[among], biases[among]
            products = torch.addmm(biases, inputs - self.decoder_bias, weights.T)
            found = products.topk(min(self.n_active, len(weights)), dim=1).indices
        return found if among is None else among[found]

    def activations(self, inputs: Tensor, active: Tensor) -> Tensor:
        """Activations (n, n_active) of latents of inputs, with gradient."""
        products = (embedding(active, self.encoder) @ (inputs - self.decoder_bias)[:, :, None])[:, :, 0]
        return (products + self.encoder_bias[active]).relu()

    def decoded(self, active: Tensor, values: Tensor) -> Tensor:
        """W_d z of activations, (n, dim)."""
        return (values[:, None] @ embedding(active, self.decoder))[:, 0]

    def losses(self, vectors: Tensor, dead: Tensor) -> SaeLosses:
        """Losses of a batch.

        Parameters
        ----------
        vectors : (n, dim)
        dead : (n_dead,) int64
            Latents that no vector has had for long.
        """
        inputs = self.normalized(vectors)
        active = self.active(inputs)
        values = self.activations(inputs, active)
        errors = inputs - self.decoded(active, values) - self.decoder_bias
        unexplained = errors.square().sum() / inputs.square().sum()
        if not len(dead):
            return SaeLosses(unexplained, torch.zeros(()), active, values)
        target = errors.detach()
        some = self.active(inputs, among=dead)
        missed = (target - self.decoded(some, self.activations(inputs, some))).square().sum()
        return SaeLosses(unexplained, missed / target.square().sum().clamp(min=1e-12), active, values)

    @torch.no_grad()
    def to_unit_columns(self) -> None:
        """Bring the decoder's columns back to unit length, after a step."""
        self.decoder.copy_(normalize(self.decoder, dim=1))
