"""MUVERA's fixed dimensional encodings: cells by SimHash (arXiv 2405.19504).

Cells, projections and their layout are those of Google's reference (graph-mining, ``fixed_dimensional_encoding.cc``): Gray
code of the signs, inner projection with one sign per coordinate and without a scale ("AMS sketch"), a final count sketch, empty
cells of documents filled from the token that the fewest bits part from them. Random numbers are NumPy's, and stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..array_files import ArrayFile, ArrayFileWriter
from ..arrays import Floats, Int32s
from ..kernels import read_only
from ..kernels.fde import count_sketch, sign_cells, simhash_encode
from ..representations import MultiVectors
from .config import FdeConfig


@dataclass(frozen=True, eq=False)
class SimHashEncoding:
    """An `encoding.Encoding` of random cells.

    Attributes
    ----------
    config : FdeConfig
    planes : (n_repetitions * n_planes, token_dim) float32
    targets, signs : (n_repetitions, token_dim) int32 and float32
        Inner projection: where a coordinate goes, with which sign.
    final_targets, final_signs : (full_dim,) int32 and float32, or (0,)
        Final projection.
    """

    config: FdeConfig
    planes: Floats
    targets: Int32s
    signs: Floats
    final_targets: Int32s
    final_signs: Floats
    n_docs = 0

    @classmethod
    def random(cls, config: FdeConfig) -> SimHashEncoding:
        """Draw planes and projections."""
        rng = np.random.default_rng(config.seed)
        n_repetitions, dim = config.n_repetitions, config.token_dim
        planes = rng.standard_normal((n_repetitions * config.n_planes, dim), np.float32)
        if config.inner_dim is None:
            targets = np.tile(np.arange(dim, dtype=np.int32), (n_repetitions, 1))
            inner = targets, np.ones((n_repetitions, dim), np.float32)
        else:
            inner = _sketch(rng, (n_repetitions, dim), config.inner_dim)
        n_final = 0 if config.final_dim is None else config.full_dim
        return cls(config, planes, *inner, *_sketch(rng, (n_final,), config.final_dim or 1))

    @property
    def n_bytes(self) -> int:
        """Size of the arrays in bytes."""
        arrays = (self.planes, self.targets, self.signs, self.final_targets, self.final_signs)
        return sum(array.nbytes for array in arrays)

    def encode_documents(self, vectors: MultiVectors) -> Floats:
        """Encode documents, (n, dim) float32: means of each cell; zeros for a document without tokens."""
        return self._encode(vectors, is_query=False)

    def encode_queries(self, vectors: MultiVectors) -> Floats:
        """Encode queries, (n, dim) float32: sums of each cell."""
        return self._encode(vectors, is_query=True)

    def _encode(self, vectors: MultiVectors, *, is_query: bool) -> Floats:
        config = self.config
        cells = np.empty((config.n_repetitions, vectors.n_tokens), np.int32)
        sign_cells(read_only(self.planes @ vectors.tokens.T), config.n_planes, cells)
        encoded = np.zeros((len(vectors), config.full_dim), np.float32)
        simhash_encode(
            read_only(vectors.tokens), read_only(vectors.offsets), read_only(cells), 1 << config.n_planes,
            *self._by_target, is_query, encoded,
        )  # fmt: skip
        if config.final_dim is None:
            return encoded
        final = np.zeros((len(vectors), config.final_dim), np.float32)
        count_sketch(read_only(encoded), read_only(self.final_targets), read_only(self.final_signs), final)
        return final

    @cached_property
    def _by_target(self) -> tuple[Int32s, Int32s, Floats]:
        """Inner projection as `simhash_encode` takes it: where each target's coordinates begin, coordinates, their signs."""
        inner = self.config.inner_dim or self.config.token_dim
        order = np.argsort(self.targets, axis=1, kind="stable")
        counts = np.stack([np.bincount(row, minlength=inner) for row in self.targets])
        starts = np.concatenate([np.zeros((len(counts), 1), np.int64), np.cumsum(counts, axis=1)], axis=1)
        signs = np.take_along_axis(self.signs, order, axis=1)
        return read_only(starts.astype(np.int32)), read_only(order.astype(np.int32)), read_only(signs)

    def add_to(self, out: ArrayFileWriter) -> None:
        """Write the arrays."""
        for name in ("planes", "targets", "signs", "final_targets", "final_signs"):
            out.add(name, getattr(self, name))

    @classmethod
    def read(cls, file: ArrayFile, config: FdeConfig) -> SimHashEncoding:
        """Read the arrays; raises IndexFormatError for any that kernels could not rely on."""
        inner, n_final = config.inner_dim or config.token_dim, 0 if config.final_dim is None else config.full_dim
        n_repetitions, dim = config.n_repetitions, config.token_dim
        planes = file.array("planes", "float32", (n_repetitions * config.n_planes, dim))
        targets, signs = (file.array(*each, (n_repetitions, dim)) for each in (("targets", "int32"), ("signs", "float32")))
        final_targets, final_signs = (
            file.array(*each, (n_final,)) for each in (("final_targets", "int32"), ("final_signs", "float32"))
        )
        for numbers, bound in ((targets, inner), (final_targets, config.final_dim or 1)):
            file.require(bool(np.all((numbers >= 0) & (numbers < bound))), f"targets below {bound}", "others")
        for factors in (signs, final_signs):
            file.require(bool(np.all(np.abs(factors) == 1)), "signs", "other numbers")
        file.require(bool(np.isfinite(planes).all()), "planes of finite numbers", "others")
        return cls(config, planes, targets, signs, final_targets, final_signs)


def _sketch(rng: np.random.Generator, shape: tuple[int, ...], n_targets: int) -> tuple[Int32s, Floats]:
    """Draw where coordinates go, and with which sign."""
    targets: Int32s = rng.integers(0, n_targets, shape, np.int32)
    return targets, rng.choice(np.array([-1, 1], np.float32), shape)
