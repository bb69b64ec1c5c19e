"""TopK over latents of a sparse autoencoder (arXiv 2406.04093), and their pooling over the tokens of a text."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from . import Integer, kernel

Floats = npt.NDArray[np.float32]
Int32s = npt.NDArray[np.int32]


@kernel
def largest(activations: Floats, k: Integer, latents: Int32s, values: Floats) -> None:
    """Write the ``k`` largest numbers of each row and where they are; of equal ones the first.

    Parameters
    ----------
    activations : (n, n_latents) float32
    k : int
        At most ``n_latents``.
    latents, values : (n, k) int32 and float32
        Filled, largest first.
    """
    for row in range(len(activations)):
        n: Integer = 0
        floor = np.float32(-np.inf)
        for latent in range(activations.shape[1]):
            value = activations[row, latent]
            if n == k and not value > floor:
                continue
            at: Integer = n if n < k else k - 1
            while at > 0 and values[row, at - 1] < value:
                values[row, at] = values[row, at - 1]
                latents[row, at] = latents[row, at - 1]
                at -= 1
            values[row, at] = value
            latents[row, at] = latent
            n = min(n + 1, k)
            floor = values[row, n - 1]


@kernel
def pooled(latents: Int32s, values: Floats, total: bool, out: Floats) -> None:
    """Add the activations above zero of each token to a text's latents, or keep the largest.

    Parameters
    ----------
    latents, values : (n_tokens, k) int32 and float32
        As `largest` writes them.
    total : bool
        Whether activations are added up.
    out : (n_latents,) float32
        Zero before the first token.
    """
    for row in range(len(latents)):
        for at in range(latents.shape[1]):
            value = values[row, at]
            if value > 0:
                latent = latents[row, at]
                out[latent] = out[latent] + value if total else max(out[latent], value)
