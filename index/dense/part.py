"""The dense part of a segment: the kept vectors of its documents, and lists or a graph to search them by.

Arrays of ``dense.lex``; n documents::

    shape (2,) i64          n, dim
    longest (1,) f32        length of the longest vector
    rows (n, dim) u16 f32   vectors: 16-bit floats, 32-bit floats, or (n, dim + 4) u8: signed bytes and the value of a step, f32
    documents (n,) i32      the document of each row, where rows are in the order of lists

The search scans the memory map itself: nothing is copied when a part is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..array_files import ArrayFile, ArrayFileWriter
from ..arrays import Floats, Int32s, Int64s, is_permutation
from ..kernels import read_only
from ..kernels.dense import verify_rows
from .config import DenseFieldConfig
from .graph import GRAPH_NAME, Graph
from .lists import LISTS_NAME, Lists
from .quantiser import Quantiser
from .rows import STORED, Rows, block_rows, decode, lengths, width_of

KIND = "dense"
FILE_NAME = "dense.lex"
Gather = Callable[[Int64s], Rows]
"""Numbers of documents -> their rows."""
EVERY_ROW = read_only(np.empty(0, np.int32))


class DensePart:
    """One segment's vectors, memory-mapped.

    Attributes
    ----------
    n_docs : int
    longest : float
        No vector is longer.
    rows : (n, dim) uint16 or float32, or (n, dim + 4) int8
        Unverified; see `rows.decode`.
    documents : (n,) int32, or (0,) where the row is the document
    lists : Lists or None
    graph : Graph or None

    Raises
    ------
    IndexFormatError
        Damaged file, vectors of another dim or precision, or lists of another quantiser.
    """

    def __init__(self, folder: Path, config: DenseFieldConfig, quantiser: Quantiser | None = None) -> None:
        file = self.file = ArrayFile(folder / FILE_NAME, KIND)
        self.longest = float(file.array("longest", "float32", (1,))[0])
        self.n_docs, dim = (int(number) for number in file.array("shape", "int64", (2,)))
        file.require(dim == config.dim, f"vectors of {config.dim} numbers", f"of {dim}")
        file.require(0 <= self.longest < np.inf, "a finite length", self.longest)
        rows = file.unverified("rows", STORED[config.keep], (self.n_docs, width_of(dim, config.keep)))
        self.rows: Rows = rows.view(np.int8) if rows.dtype == np.uint8 else rows
        self.documents: Int32s = EVERY_ROW
        if "documents" in file:
            self.documents = file.array("documents", "int32", (self.n_docs,))
            file.require(is_permutation(self.documents))
        self.lists = Lists(folder, config, quantiser, self.n_docs) if (folder / LISTS_NAME).exists() else None
        self.graph = Graph(folder, self.n_docs) if (folder / GRAPH_NAME).exists() else None
        self._config = config

    @cached_property
    def _row_of(self) -> Int64s:
        found = np.empty(self.n_docs, np.int64)
        found[self.documents] = np.arange(self.n_docs)
        return found

    def totals(self) -> dict[str, int]:
        """Vectors."""
        return {"n_vectors": self.n_docs}

    @property
    def structure(self) -> str:
        """What a search looks through: "flat", "codes", "ivf" or "hnsw"."""
        if self.lists is not None:
            return "ivf" if self.lists.n_lists > 1 else "codes"
        return "flat" if self.graph is None else "hnsw"

    @property
    def files(self) -> list[ArrayFile]:
        """The part's files."""
        return [self.file, *(each.file for each in (self.lists, self.graph) if each is not None)]

    @property
    def n_bytes(self) -> int:
        """Size of the files in bytes."""
        return sum(file.n_bytes for file in self.files)

    def sizes(self) -> dict[str, int]:
        """Bytes of each array."""
        return {name: n_bytes for file in reversed(self.files) for name, n_bytes in file.sizes().items()}

    def verify(self) -> None:
        """Verify every checksum; raises IndexFormatError."""
        for file in self.files:
            file.verify()

    def check(self) -> None:
        """Verify every checksum and what must hold between arrays; raises IndexFormatError."""
        self.verify()
        for first in range(0, self.n_docs, block_rows(self._config.dim)):
            vectors = decode(self.rows[first : first + block_rows(self._config.dim)])
            short = lengths(vectors) <= self.longest  # False for NaN
            self.file.require(short.all(), f"vectors of length <= {self.longest}", f"vector {first + int(np.argmin(short))}")
        if self.graph is not None:
            self.graph.check()

    def row_numbers(self, positions: npt.NDArray[np.integer[Any]]) -> Int64s:
        """Rows of documents at some positions, (n,) int64."""
        return self._row_of[positions] if len(self.documents) else positions.astype(np.int64)

    def kept(self, positions: npt.NDArray[np.integer[Any]]) -> Rows:
        """Rows of documents at some positions, as they are kept, verified."""
        numbers = self.row_numbers(positions)
        verify_rows(self.file.checked, self.rows, numbers)
        self.file.raise_damage()
        found: Rows = self.rows[numbers]
        return found

    def vectors(self, positions: npt.NDArray[np.integer[Any]]) -> Floats:
        """Vectors of documents at some positions, (n, dim) float32, verified."""
        return decode(self.kept(positions))


def write_rows(path: Path, order: Int64s, gather: Gather, config: DenseFieldConfig, *, listed: bool) -> Iterator[Rows]:
    """Write ``dense.lex``, and yield the rows that are written, a block at a time.

    Parameters
    ----------
    path : Path
    order : (n,) int64
        The document of each row.
    gather : callable
    config : DenseFieldConfig
    listed : bool
        Rows are not in the order of documents.
    """
    longest, width = np.float32(0), width_of(config.dim, config.keep)
    with ArrayFileWriter(path, KIND) as out:
        with out.stream("rows", dtype=STORED[config.keep], shape=(len(order), width)) as sink:
            for first in range(0, len(order), block_rows(config.dim)):
                block = gather(order[first : first + block_rows(config.dim)])
                longest = np.maximum(longest, lengths(decode(block)).max(initial=0))
                sink.write(np.ascontiguousarray(block).view(np.uint8).data)
                yield block
        out.add("shape", np.array([len(order), config.dim], np.int64))
        out.add("longest", np.array([np.nextafter(longest, np.float32(np.inf))], np.float32))
        if listed:
            out.add("documents", order.astype(np.int32))
