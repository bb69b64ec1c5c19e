"""ColBERTv2's residual codec (arXiv 2112.01488), byte for byte: what Stanford's, PyLate's and fast-plaid's indexes are made of.

A token is the number of the centroid that it has the largest dot product with, and for each coordinate of what is left over
one of ``2^nbits`` buckets, whose borders and values all dimensions share. The sum is brought to unit length when decoded::

    codes (n,) i32 | packed (n, dim * nbits / 8) u8    coordinates in order from the highest bit of the first byte down, each
                                                       with its lowest bit first: buckets 1, 2, 3, 0 of two bits are 0x9C

lexmax keeps its own tokens in another codec (`residual`); this one reads what others wrote, and is compared with.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..arrays import Floats, Int32s

BITS = (1, 2, 4, 8)
CHUNK_PRODUCTS = 1 << 24
"""Dot products with centroids that are held at a time."""
CHUNK_TOKENS = 1 << 14
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class ColbertV2Codec:
    """Centroids, and the buckets of what they leave over; make one with `fit`, or from what another program stored.

    Attributes
    ----------
    centroids : (n_centroids, dim) float32
        Of unit length, by convention; ``dim`` is a multiple of 8.
    cutoffs : (2^nbits - 1,) float32
        Rising borders of the buckets; a coordinate that lies on one belongs to the bucket below.
    weights : (2^nbits,) float32
        What the coordinates of each bucket are decoded to.

    Raises
    ------
    ValueError
        Arrays of other types or shapes, numbers that are not finite, or cutoffs that fall.
    """

    centroids: Floats
    cutoffs: Floats
    weights: Floats

    def __post_init__(self) -> None:
        for name, n_axes in (("centroids", 2), ("cutoffs", 1), ("weights", 1)):
            array = getattr(self, name)
            if array.dtype != np.float32 or array.ndim != n_axes or not np.all(np.isfinite(array)):
                raise ValueError(f"{name} must be a finite float32 array of {n_axes} axes")
        if not len(self.centroids) or self.dim % 8 or not self.dim:
            raise ValueError(f"centroids of shape {self.centroids.shape}: there must be some, of a dim that is a multiple of 8")
        if len(self.weights) not in [1 << nbits for nbits in BITS] or len(self.cutoffs) != len(self.weights) - 1:
            raise ValueError(f"{len(self.cutoffs)} cutoffs and {len(self.weights)} weights are not those of 1, 2, 4 or 8 bits")
        if np.any(np.diff(self.cutoffs) < 0):
            raise ValueError("cutoffs must rise")

    @classmethod
    def fit(cls, centroids: Floats, heldout: Floats, nbits: int) -> ColbertV2Codec:
        """Make the buckets from tokens that did not make the centroids: each holds as many coordinates as the next.

        Parameters
        ----------
        centroids : (n_centroids, dim) float32
        heldout : (n, dim) float32
            At least one token; ColBERTv2 holds out 5 %, up to 50,000.
        nbits : {1, 2, 4, 8}

        Raises
        ------
        ValueError
            No tokens, tokens of another dim, or other bits.
        """
        if nbits not in BITS:
            raise ValueError(f"nbits is {nbits}: it must be one of {', '.join(map(str, BITS))}")
        if not len(heldout):
            raise ValueError("buckets need held-out tokens")
        n = 1 << nbits
        alone = cls(centroids, np.zeros(n - 1, np.float32), np.zeros(n, np.float32))
        residuals = heldout - centroids[alone.assign(heldout)]
        points = np.arange(2 * n - 1) + 1  # in units of 1 / 2n: weights at odd ones, cutoffs at even ones
        quantiles = np.quantile(residuals, points / (2 * n)).astype(np.float32)
        return cls(centroids, quantiles[1::2].copy(), quantiles[::2].copy())

    @property
    def dim(self) -> int:
        """Numbers of a token vector."""
        return int(self.centroids.shape[1])

    @property
    def nbits(self) -> int:
        """Bits a coordinate."""
        return len(self.weights).bit_length() - 1

    @property
    def width(self) -> int:
        """Bytes of a token's packed residual."""
        return self.dim * self.nbits // 8

    def assign(self, tokens: Floats) -> Int32s:
        """Return the number of the centroid with the largest dot product, (n,) int32; the first of equals."""
        self._check(tokens)
        codes = np.empty(len(tokens), np.int32)
        step = max(1, CHUNK_PRODUCTS // len(self.centroids))
        for first in range(0, len(tokens), step):
            span = slice(first, first + step)
            codes[span] = (tokens[span] @ self.centroids.T).argmax(axis=1)
        return codes

    def encode(self, tokens: Floats, codes: Int32s | None = None) -> tuple[Int32s, Bytes]:
        """Encode tokens.

        Parameters
        ----------
        tokens : (n, dim) float32
        codes : (n,) int32 or None
            Centroids, when they are known; None: `assign` finds them.

        Returns
        -------
        codes : (n,) int32
        packed : (n, dim * nbits / 8) uint8

        Raises
        ------
        ValueError
            Tokens of another dim.
        """
        codes = self.assign(tokens) if codes is None else codes
        self._check(tokens)
        packed = np.empty((len(tokens), self.width), np.uint8)
        for first in range(0, len(tokens), CHUNK_TOKENS):
            span = slice(first, first + CHUNK_TOKENS)
            buckets = np.searchsorted(self.cutoffs, tokens[span] - self.centroids[codes[span]], side="left")
            packed[span] = pack(buckets.astype(np.uint8), self.nbits)
        return codes, packed

    def decode(self, codes: npt.NDArray[np.integer], packed: Bytes) -> Floats:
        """Reconstruct tokens, (n, dim) float32, of unit length.

        Raises
        ------
        ValueError
            Arrays that do not fit each other or this codec.
        """
        if codes.ndim != 1 or packed.shape != (len(codes), self.width) or packed.dtype != np.uint8:
            raise ValueError(f"codes {codes.shape} and residuals {packed.shape} {packed.dtype}, of {self.width} bytes a token")
        if len(codes) and not 0 <= codes.min() <= codes.max() < len(self.centroids):
            raise ValueError(f"codes from {codes.min()} to {codes.max()}, of {len(self.centroids)} centroids")
        tokens = np.empty((len(codes), self.dim), np.float32)
        for first in range(0, len(codes), CHUNK_TOKENS):
            span = slice(first, first + CHUNK_TOKENS)
            sums = self.centroids[codes[span]]
            sums += self._weights_of_bytes[packed[span]].reshape(len(sums), self.dim)
            tokens[span] = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
        return tokens

    @cached_property
    def _weights_of_bytes(self) -> Floats:
        """Weights of the coordinates in each byte, (256, 8 / nbits)."""
        return self.weights[unpack(np.arange(256, dtype=np.uint8)[:, None], self.nbits)]

    def _check(self, tokens: Floats) -> None:
        if tokens.ndim != 2 or tokens.shape[1] != self.dim:
            raise ValueError(f"tokens of shape {tokens.shape} for a codec of dim {self.dim}")


def pack(buckets: Bytes, nbits: int) -> Bytes:
    """Pack bucket numbers (n, dim) into (n, dim * nbits / 8) bytes, as the module says; ``dim * nbits`` fills whole bytes."""
    bits = buckets[:, :, None] >> np.arange(nbits, dtype=np.uint8) & np.uint8(1)
    return np.packbits(bits.reshape(len(buckets), buckets.shape[1] * nbits), axis=1)


def unpack(packed: Bytes, nbits: int) -> Bytes:
    """Return the bucket numbers (n, dim) that `pack` packed."""
    bits = np.unpackbits(packed, axis=1).reshape(len(packed), 8 * packed.shape[1] // nbits, nbits)
    return np.asarray(np.bitwise_or.reduce(bits << np.arange(nbits, dtype=np.uint8), axis=2), np.uint8)
