"""The residual codec: a token vector as the nearest centroid and what is left over, in 1, 2, 4 or 8 bits a dimension.

ColBERTv2 (arXiv 2112.01488) quantises each coordinate of ``x - centroid`` by quantiles and normalises the sum. Ours differs
in four ways, which at 2 bits keep nearly as many of the exact top 10 as ColBERTv2's codec at 4 (README, "Measured"):

1. everything is rotated by one random orthogonal matrix, so a residual's coordinates are alike and nearly Gaussian;
2. the residual's *direction* is quantised, uniformly, with the Gaussian's best step; its length is stored;
3. the reconstruction is normalised, and the factor stored rather than computed;
4. centroids are stored as bytes around the mean of all tokens, and residuals are taken from those.

With levels ``l`` and centroid ``c`` a token is ``inverse * (mean + c) + scale * (l - (2^nbits - 1) / 2)``, so a dot
product needs an integer one with ``c``, an integer one with ``l``, and two scalars.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..array_files import ArrayFile, ArrayFileWriter
from ..arrays import Floats, Int32s, Int64s
from ..errors import IndexFormatError
from ..kernels import residual as kernels
from ..kernels.dot_products import LANES, SignedBytes, pack_lanes
from ..kernels.residual import MISSING

KIND = "codec"
STEPS = {1: 1.596, 2: 0.9957, 4: 0.3352, 8: 0.0308}
"""Best steps of a uniform quantiser for a unit Gaussian, by bits (J. Max, 1960)."""
N_PROBE = 4
"""Groups of centroids that are searched for a token's nearest one."""
ENCODE_TOKENS = 1 << 13
LONGEST = 2.0
"""Length of a residual that can be stored, however short the training tokens' are: later tokens may be anywhere."""
MAX_CENTROIDS = 1 << 16
"""Codes are 16 bits wide."""
MAX_SCALE = 0.04
"""A centroid's coordinates are less than 4 from the mean's, in 255 steps: no sum over a query's tokens overflows."""
Bytes = npt.NDArray[np.uint8]


def allowed_bits(dim: int) -> list[int]:
    """Bits that residuals of ``dim`` numbers can have: their planes must fill whole words (see `kernels.lanes`)."""
    return [nbits for nbits in STEPS if dim % (32 // nbits) == 0]


@dataclass(frozen=True, eq=False)
class Encoded:
    """Residual codes of ``n`` tokens.

    Attributes
    ----------
    levels : (n, dim * nbits / 8) uint8
    scalars : (n, 2) uint8
        ``inverse`` and ``scale``, in steps of the codec's ``ranges``.
    """

    levels: Bytes
    scalars: Bytes

    def take(self, tokens: slice | npt.NDArray[Any]) -> Encoded:
        """Return the codes of some tokens."""
        return Encoded(self.levels[tokens], self.scalars[tokens])


class Codec:
    """Centroids and the rotation around them; immutable. Make one with `train` or `read`.

    Attributes
    ----------
    rotation : (dim, dim) float32, orthogonal
    mean : (dim,) float32
        Of the training tokens, rotated.
    centroids : (n_centroids, dim) uint8
        ``mean + centroid_scale * (byte - 128)``, rotated.
    group_starts : (n_groups + 1,) int64
        Centroids of each group; the groups make finding the nearest one fast.
    ranges : mapping of nbits to (2, 2) float32
        Lowest value and step of both scalars of an encoded token.
    residual : float
        Mean length of the training tokens' residuals: what later tokens' drift is measured against.
    """

    def __init__(
        self, rotation: Floats, mean: Floats, centroids: Bytes, centroid_scale: float, group_starts: Int64s,
        ranges: Mapping[int, Floats], residual: float,
    ) -> None:  # fmt: skip
        self.rotation, self.mean, self.centroids = rotation, mean, centroids
        self.centroid_scale, self.group_starts, self.ranges, self.residual = centroid_scale, group_starts, ranges, residual
        self._tables: _Tables | None = None

    @property
    def dim(self) -> int:
        """Numbers of a token vector."""
        return len(self.rotation)

    @property
    def n_centroids(self) -> int:
        """Number of centroids."""
        return len(self.centroids)

    @property
    def n_bytes(self) -> int:
        """Size of the arrays in bytes."""
        return self.rotation.nbytes + self.mean.nbytes + self.centroids.nbytes + self.group_starts.nbytes

    def rotate(self, tokens: Floats) -> Floats:
        """Rotate token vectors (n, dim)."""
        return np.ascontiguousarray(tokens @ self.rotation, np.float32)

    def assign(self, rotated: Floats) -> Int32s:
        """Return the number of each rotated token's nearest centroid, (n,) int32."""
        if self._tables is None:
            self._tables = _Tables.of(self)
        tables = self._tables
        rows = np.empty(rotated.shape, np.uint8)
        kernels.centred_bytes(rotated, self.mean, tables.scale, rows)
        codes = np.empty(len(rotated), np.int32)
        kernels.assign(
            rows, tables.coarse, tables.coarse_starts, tables.fine, tables.fine_starts, tables.centroid_of,
            tables.group_blocks, N_PROBE, codes,
        )  # fmt: skip
        return codes

    def encode(self, rotated: Floats, codes: Int32s, nbits: int) -> tuple[Encoded, float]:
        """Quantise residuals; returns their codes and mean length."""
        levels, scalars, residual = self._quantise(rotated, codes, nbits)
        lowest, step = self.ranges[nbits].T
        coded = np.clip(np.rint((scalars - lowest) / step), 0, 255).astype(np.uint8)
        return Encoded(levels, coded), residual

    def fit(self, rotated: Floats) -> None:
        """Set ``ranges`` and ``residual`` from training tokens; a part of making a codec."""
        codes = self.assign(rotated)
        ranges = {}
        for nbits in allowed_bits(self.dim):
            _, scalars, self.residual = self._quantise(rotated, codes, nbits)
            low, high = np.quantile(scalars, [0.0001, 0.9999], axis=0)
            unit = STEPS[nbits] / self.dim**0.5  # a level's worth, where a residual is as long as a token
            low, high = np.minimum(low, [1 - unit, 0]), np.maximum(high, [1 + unit, LONGEST * unit])
            ranges[nbits] = np.stack([low, (high - low) / 255], axis=1).astype(np.float32)
        self.ranges = ranges

    def _quantise(self, rotated: Floats, codes: Int32s, nbits: int) -> tuple[Bytes, Floats, float]:
        n = len(rotated)
        levels, scalars = np.empty((n, self.dim * nbits // 8), np.uint8), np.empty((n, 2), np.float32)
        total = kernels.encode(
            rotated, self.mean, self.centroids, self.centroid_scale, codes, nbits, STEPS[nbits], levels, scalars
        )  # fmt: skip
        return levels, scalars, total / max(1, n)

    def decode(self, codes: npt.NDArray[np.uint16] | Int32s, encoded: Encoded, *, rotated: bool = False) -> Floats:
        """Reconstruct tokens, (n, dim) float32."""
        tokens = np.empty((len(codes), self.dim), np.float32)
        nbits = 8 * encoded.levels.shape[1] // self.dim
        kernels.decode(
            self.mean, self.centroids, self.centroid_scale, codes, nbits, encoded.levels, encoded.scalars,
            self.ranges[nbits], tokens,
        )  # fmt: skip
        return tokens if rotated else tokens @ self.rotation.T

    def write(self, path: Path) -> None:
        """Write the codec's file."""
        with ArrayFileWriter(path, KIND) as out:
            out.add("rotation", self.rotation)
            out.add("mean", self.mean)
            out.add("centroids", self.centroids)
            out.add("group_starts", self.group_starts)
            out.add("ranges", np.stack([self.ranges[nbits] for nbits in allowed_bits(self.dim)]))
            out.add("numbers", np.array([self.centroid_scale, self.residual], np.float32))

    def check(self, path: Path) -> None:
        """Raise IndexFormatError unless the rotation is one; ``path`` is the codec's file."""
        if not np.allclose(self.rotation.T @ self.rotation, np.eye(self.dim), atol=1e-3):
            raise IndexFormatError(path, expected="a rotation", found="another matrix")

    @classmethod
    def read(cls, path: Path) -> Codec:
        """Open a codec's file; raises IndexFormatError when it is damaged, does not fit itself or is none of unit vectors."""
        file = ArrayFile(path, KIND)
        mean = file.array("mean", "float32", (None,))
        dim = len(mean)
        widths = allowed_bits(dim)
        file.require(dim > 0 and bool(widths), "a dim that is a multiple of 4", dim)
        rotation = file.array("rotation", "float32", (dim, dim))
        centroids = file.array("centroids", "uint8", (None, dim))
        starts = file.array("group_starts", "int64", (None,))
        file.require(0 < len(centroids) <= MAX_CENTROIDS, f"1 to {MAX_CENTROIDS} centroids", len(centroids))
        file.require(len(starts) > 1 and starts[0] == 0 and starts[-1] == len(centroids) and np.all(starts[1:] > starts[:-1]))
        numbers, ranges = file.array("numbers", "float32", (2,)), file.array("ranges", "float32", (len(widths), 2, 2))
        scale, residual = (float(number) for number in numbers)
        bounded = all(np.all(np.abs(array) <= bound) for array, bound in ((rotation, 1.01), (mean, 2), (ranges, 1e6)))
        file.require(bounded and 0 < scale <= MAX_SCALE and 0 <= residual <= 4, "the numbers of a codec of unit vectors")
        return cls(rotation, mean, centroids, scale, starts, dict(zip(widths, ranges, strict=True)), residual)


@dataclass(frozen=True, eq=False)
class _Tables:
    """What `kernels.assign` needs, made from the centroids when tokens are to be encoded."""

    scale: float
    coarse: SignedBytes
    coarse_starts: Int32s
    fine: SignedBytes
    fine_starts: Int32s
    centroid_of: Int32s
    group_blocks: Int64s

    @classmethod
    def of(cls, codec: Codec) -> _Tables:
        starts = codec.group_starts
        centroids = codec.centroids.astype(np.int16) - 128
        means = np.add.reduceat(centroids.astype(np.float32), starts[:-1]) / np.diff(starts)[:, None]
        # Lengths of centred tokens and centroids are alike, so centroids' bytes times tokens' bytes share a scale.
        scale = 1 / codec.centroid_scale / 1.5
        blocks = -(-np.diff(starts) // LANES)
        group_blocks = np.concatenate([[0], np.cumsum(blocks)]).astype(np.int64)
        places = np.concatenate(
            [LANES * group_blocks[g] + np.arange(starts[g + 1] - starts[g]) for g in range(len(blocks))]
        )  # fmt: skip
        centroid_of = np.zeros(LANES * group_blocks[-1], np.int32)
        centroid_of[places] = np.arange(len(centroids))
        spread = np.zeros((len(centroid_of), codec.dim), np.int8)
        spread[places] = centroids
        fine_starts = np.full(len(centroid_of), MISSING, np.int32)
        fine_starts[places] = _starts(centroids.astype(np.float32), scale * codec.centroid_scale)
        coarse_starts = np.full(-(-len(means) // LANES) * LANES, MISSING, np.int32)
        coarse_starts[: len(means)] = _starts(np.rint(means), scale * codec.centroid_scale)
        return cls(
            scale, pack_lanes(np.rint(means).astype(np.int8)), coarse_starts.reshape(-1, LANES), pack_lanes(spread),
            fine_starts.reshape(-1, LANES), centroid_of, group_blocks,
        )  # fmt: skip


def _starts(centroids: Floats, ratio: float) -> Int32s:
    """Lane starts that turn dot products into (minus half of) squared distances; ``ratio``: token steps a centroid step."""
    half = ratio * np.square(centroids, dtype=np.float32).sum(axis=1) / 2
    return np.asarray(np.rint(-half - 128 * centroids.sum(axis=1)), np.int32)
