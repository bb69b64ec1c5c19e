"""How a token field keeps its vectors."""

from __future__ import annotations

from dataclasses import dataclass

from .residual import MAX_CENTROIDS, STEPS, allowed_bits


@dataclass(frozen=True, kw_only=True)
class MultiVectorConfig:
    """How a token field keeps its vectors.

    Attributes
    ----------
    dim : int
        Numbers of a token vector; a multiple of 4 times (8 / nbits).
    nbits : {1, 2, 4, 8}
        Bits per dimension of the residuals that the search reads.
    exact : bool
        Keep the tokens at 8 bits too, in a file of their own, from which the best documents are scored again.
    n_centroids : int or None
        None: by the number of tokens, see `clustering.default_n_centroids`.
    """

    dim: int
    nbits: int = 2
    exact: bool = True
    n_centroids: int | None = None

    def __post_init__(self) -> None:
        if self.nbits not in STEPS:
            raise ValueError(f"nbits is {self.nbits}: it must be one of {', '.join(map(str, STEPS))}")
        if self.dim < 1 or self.nbits not in allowed_bits(self.dim):
            raise ValueError(f"dim is {self.dim}: with {self.nbits} bits it must be a multiple of {32 // self.nbits}")
        if self.n_centroids is not None and not 1 <= self.n_centroids <= MAX_CENTROIDS:
            raise ValueError(f"n_centroids is {self.n_centroids}: it must be 1 to {MAX_CENTROIDS}, or None")
