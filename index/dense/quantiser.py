"""What all parts of a dense field share: centroids of lists, and the codebooks of product quantisation (Jégou et al., 2011).

Arrays of the field's ``codec-*.lex``; d numbers are coded, in m bytes::

    n_trained (1,) i64                    documents that lists and codebooks were made for
    centroids (n_lists, coarse_dim) f32
    spreads (n_lists,) f32                root of the mean square of what a list's vectors have beside its centroid
    rotation (search_dim, d) f32          of OPQ (Ge et al., 2014): what is coded is turned by it
    codebooks (m, 256, d / m) f32         of PQ and OPQ

A code stands for what a vector has beside its list's centroid, so that its product with a query is the centroid's and the sum
of m numbers from the query's table.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..array_files import ArrayFile, ArrayFileWriter
from ..arrays import Floats, Int64s
from ..kernels import read_only
from ..kernels.dense import has_f16c
from .config import DenseFieldConfig
from .rows import encode

KIND = "dense quantiser"
LEVELS = 256


@dataclass(frozen=True, eq=False)
class Quantiser:
    """Lists and codes of a field; without codebooks codes are signed bytes, or there are none.

    Attributes
    ----------
    centroids : (n_lists, coarse_dim) float32
    spreads : (n_lists,) float32
    n_trained : int
    rotation : (search_dim, d) float32 or None
    codebooks : (m, 256, d / m) float32 or None
    n_bytes : int
        Size of the file; 0 before it is written.
    """

    centroids: Floats
    spreads: Floats
    n_trained: int
    rotation: Floats | None = None
    codebooks: Floats | None = None
    n_bytes: int = 0

    @property
    def n_lists(self) -> int:
        """Number of lists."""
        return len(self.centroids)

    def assign(self, vectors: Floats) -> Int64s:
        """The nearest centroid of each vector, (n,); the first one where no distance is finite."""
        if self.n_lists == 1:
            return np.zeros(len(vectors), np.int64)
        import faiss

        nearest: Any = faiss.IndexFlatL2(self.centroids.shape[1])
        nearest.add(np.ascontiguousarray(self.centroids))
        found: Int64s = nearest.search(np.ascontiguousarray(vectors[:, : self.centroids.shape[1]]), 1)[1][:, 0]
        return np.maximum(found, 0)  # faiss says -1 where distances overflow

    def left_over(self, vectors: Floats, lists: Int64s, scan_dim: int) -> Floats:
        """What the first dimensions of vectors have beside the centroids of their lists, (n, scan_dim)."""
        rest = vectors[:, :scan_dim].copy()
        rest[:, : self.centroids.shape[1]] -= self.centroids[lists]
        return rest

    def encode(self, vectors: Floats, lists: Int64s, config: DenseFieldConfig) -> npt.NDArray[np.uint8]:
        """Codes of vectors in lists, (n, code bytes)."""
        if self.codebooks is None:
            return encode(vectors[:, : config.scan_dim], "int8").view(np.uint8)
        import faiss

        n_parts, _, width = self.codebooks.shape
        coder: Any = faiss.ProductQuantizer(n_parts * width, n_parts, 8)
        faiss.copy_array_to_vector(np.ascontiguousarray(self.codebooks).reshape(-1), coder.centroids)
        rest = self.turned(self.left_over(vectors, lists, config.scan_dim))
        codes: npt.NDArray[np.uint8] = coder.compute_codes(np.ascontiguousarray(rest))
        return codes

    def turned(self, vectors: Floats) -> Floats:
        """Vectors (..., search_dim) as they are coded, (..., d): rotated, or filled up with zeros."""
        if self.rotation is not None:
            turned: Floats = vectors @ self.rotation
            return turned
        n_numbers = 0 if self.codebooks is None else len(self.codebooks) * self.codebooks.shape[2]
        return np.pad(vectors, [(0, 0)] * (vectors.ndim - 1) + [(0, n_numbers - vectors.shape[-1])])

    @cached_property
    def coarse(self) -> npt.NDArray[Any]:
        """The centroids to choose lists by, (n_lists, coarse_dim): 16-bit floats, or float32 where they are too large."""
        fits = has_f16c() and np.abs(self.centroids).max() < np.finfo(np.float16).max
        return read_only(self.centroids.astype(np.float16).view(np.uint16) if fits else self.centroids)

    @cached_property
    def columns(self) -> Floats:
        """The codebooks with levels side by side, (m, d / m, 256) float32."""
        if self.codebooks is None:
            raise ValueError("signed bytes are multiplied with the query itself")
        return read_only(self.codebooks.transpose(0, 2, 1))

    def write(self, path: Path) -> None:
        """Write the file."""
        with ArrayFileWriter(path, KIND) as out:
            out.add("n_trained", np.array([self.n_trained], np.int64))
            out.add("centroids", self.centroids)
            out.add("spreads", self.spreads)
            if self.rotation is not None:
                out.add("rotation", self.rotation)
            if self.codebooks is not None:
                out.add("codebooks", self.codebooks)

    @classmethod
    def read(cls, path: Path, config: DenseFieldConfig) -> Quantiser:
        """Read the file.

        Raises
        ------
        IndexFormatError
            Damaged file, or arrays that do not fit the field's settings.
        """
        file = ArrayFile(path, KIND)
        n_trained = int(file.array("n_trained", "int64", (1,))[0])
        centroids = file.array("centroids", "float32", (None, config.list_dim))
        rotation = codebooks = None
        if config.quantise in ("pq", "opq"):
            codebooks = file.array("codebooks", "float32", (config.code_bytes, LEVELS, None))
            n_numbers = codebooks.shape[0] * codebooks.shape[2]
            file.require(n_numbers > 0 and (config.quantise == "opq" or n_numbers >= config.scan_dim))
        if config.quantise == "opq" and codebooks is not None:
            rotation = file.array("rotation", "float32", (config.scan_dim, codebooks.shape[0] * codebooks.shape[2]))
        spreads = file.array("spreads", "float32", (len(centroids),))
        arrays = [each for each in (centroids, spreads, rotation, codebooks) if each is not None]
        file.require(len(centroids) > 0 and all(bool(np.isfinite(each).all()) for each in arrays), "finite numbers")
        rotation, codebooks = (None if each is None else read_only(np.array(each)) for each in (rotation, codebooks))
        return cls(read_only(np.array(centroids)), read_only(np.array(spreads)), n_trained, rotation, codebooks, file.n_bytes)
