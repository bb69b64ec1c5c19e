"""The dense part of a segment: the vectors of its documents, as faiss scans them.

Arrays of ``dense.lex``; n documents::

    shape (2,) i64      n, dim
    longest (1,) f32    length of the longest vector
    flat (B,) u8        a flat faiss index as faiss writes it: a header, then the vectors (n, dim) f16 or f32

faiss works on the memory map itself: nothing is copied when a part is opened. The header must be the one that this faiss
writes for n vectors of dim numbers, so that no field of it is taken on trust.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..array_files import ArrayFile, ArrayFileWriter
from ..arrays import Floats, Int64s, Mask
from ..errors import IndexFormatError
from ..kernels.dense import verify_rows
from .config import DenseFieldConfig

KIND = "dense"
FILE_NAME = "dense.lex"
BLOCK_ROWS = 4096
MAX_HEADER = 4096
Kept = npt.NDArray[np.floating[Any]]


class FlatPart:
    """One segment's vectors, memory-mapped.

    Raises
    ------
    IndexFormatError
        Damaged file, or vectors of another dim or precision.
    """

    def __init__(self, path: Path, config: DenseFieldConfig) -> None:
        file = self.file = ArrayFile(path, KIND)
        self._config, self.longest = config, float(file.array("longest", "float32", (1,))[0])
        self.n_docs, dim = (int(number) for number in file.array("shape", "int64", (2,)))
        self._flat = file.unverified("flat", "uint8", (None,))
        self._row_bytes = config.dim * config.dtype.itemsize
        self._n_header = len(self._flat) - self.n_docs * self._row_bytes
        file.require(dim == config.dim and self.n_docs >= 0, f"vectors of {config.dim} numbers", f"{self.n_docs} of {dim}")
        file.require(0 <= self._n_header <= MAX_HEADER, f"{config.keep} numbers", f"{len(self._flat)} bytes")
        file.require(0 <= self.longest < np.inf, "a finite length", self.longest)
        self._vectors: Kept = self._flat[self._n_header :].view(config.dtype).reshape(self.n_docs, dim)

    def totals(self) -> dict[str, int]:
        """Return nothing: a vector a document is no posting and no token."""
        return {}

    @property
    def n_bytes(self) -> int:
        """Size of the file in bytes."""
        return self.file.n_bytes

    def sizes(self) -> dict[str, int]:
        """Bytes of each array."""
        return self.file.sizes()

    def verify(self) -> None:
        """Verify every checksum; raises IndexFormatError."""
        self.file.verify()

    def check(self) -> None:
        """Verify every checksum, and that vectors are finite and not longer than stated; raises IndexFormatError."""
        self.verify()
        _ = self.faiss_index
        for first in range(0, self.n_docs, BLOCK_ROWS):
            short = _lengths(self._vectors[first : first + BLOCK_ROWS].astype(np.float32)) <= self.longest  # False for NaN
            self.file.require(short.all(), f"vectors of length <= {self.longest}", f"vector {first + int(np.argmin(short))}")

    def kept(self, positions: npt.NDArray[np.integer[Any]]) -> Kept:
        """Vectors at some positions, (n, dim) of the field's precision, verified."""
        first = self._flat.ctypes.data + self._n_header - self.file.checked.content.ctypes.data
        verify_rows(self.file.checked, first, self._row_bytes, positions.astype(np.int64))
        self.file.raise_damage()
        found: Kept = self._vectors[positions]
        return found

    def rows(self, positions: npt.NDArray[np.integer[Any]]) -> Floats:
        """Vectors at some positions, (n, dim) float32, verified."""
        return self.kept(positions).astype(np.float32)

    def candidates(self, query: Floats, n: int, allowed: Mask | None) -> tuple[Int64s, float]:
        """Let faiss scan the vectors.

        Parameters
        ----------
        query : (dim,) float32
        n : int
            At most the number of allowed documents.
        allowed : (n_docs,) bool or None
            None: all.

        Returns
        -------
        positions : (n,) int64
            Of the n largest inner products, as faiss rounds them.
        lowest : float
            The least of them: no other document's passes it.

        Raises
        ------
        IndexFormatError
            The header is not the one that this faiss writes.
        """
        bits = None if allowed is None else np.packbits(allowed, bitorder="little")
        chosen = None if bits is None else faiss().SearchParameters(sel=faiss().IDSelectorBitmap(bits))
        scores, positions = self.faiss_index.search(query[None], n, params=chosen)
        return positions[0], float(scores[0, -1])

    @cached_property
    def faiss_index(self) -> Any:
        """A faiss index over the memory map, which is verified before faiss scans it, where it was not read yet."""
        self.file.verify(self._flat)
        if self._flat[: self._n_header].tobytes() != _header(self.n_docs, self._config):
            advice = "another version of faiss wrote it: run lexmax compact"
            raise IndexFormatError(self.file.path, expected="the header of this faiss", found="another", advice=advice)
        reader = faiss().ZeroCopyIOReader(faiss().swig_ptr(self._flat), len(self._flat))
        return faiss().read_index(reader, faiss().IO_FLAG_MMAP_IFC)


def write_flat(path: Path, n_docs: int, blocks: Iterable[Kept], config: DenseFieldConfig) -> None:
    """Write ``dense.lex`` from blocks (n, dim) of kept vectors, one block in memory at a time."""
    longest = np.float32(0)
    with ArrayFileWriter(path, KIND) as out:
        with out.stream("flat") as sink:
            sink.write(_header(n_docs, config))
            for block in blocks:
                longest = np.maximum(longest, _lengths(block.astype(np.float32)).max(initial=0))
                sink.write(np.ascontiguousarray(block, config.dtype).view(np.uint8).data)
        out.add("shape", np.array([n_docs, config.dim], np.int64))
        out.add("longest", np.array([np.nextafter(longest, np.float32(np.inf))], np.float32))


def blocks_of(vectors: Kept) -> Iterator[Kept]:
    """Cut a matrix into blocks of rows."""
    for first in range(0, len(vectors), BLOCK_ROWS):
        yield vectors[first : first + BLOCK_ROWS]


def faiss() -> Any:
    """Import faiss when it is needed; its type stubs lack what is used here."""
    return import_module("faiss")


def _lengths(vectors: Floats) -> Floats:
    lengths: Floats = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)).astype(np.float32)
    return lengths


def _header(n_docs: int, config: DenseFieldConfig) -> bytes:
    """Return what faiss writes before the vectors."""
    if config.keep == "float32":
        index, n_units = faiss().IndexFlat(config.dim, faiss().METRIC_INNER_PRODUCT), n_docs * config.dim
    else:
        kind = faiss().ScalarQuantizer.QT_fp16
        index, n_units = faiss().IndexScalarQuantizer(config.dim, kind, faiss().METRIC_INNER_PRODUCT), n_docs * config.dim * 2
    index.ntotal = n_docs
    written: bytes = faiss().serialize_index(index).tobytes()
    return written[:-8] + n_units.to_bytes(8, "little")  # the number of units ends the header
