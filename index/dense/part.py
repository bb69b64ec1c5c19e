"""The dense part of a segment: the kept vectors of its documents, and lists or a graph to search them by.

Arrays of ``dense.lex``; n vectors, those of a document one after the other by number::

    shape (2,) i64          n, dim
    longest (1,) f32        length of the longest vector
    rows (n, dim) u16 f32   vectors: 16-bit floats, 32-bit floats, or (n, dim + 4) u8: signed bytes and the value of a step, f32
    documents (n,) i32      the vector of each row, where rows are in the order of lists

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
from .config import MAX_LENGTH, DenseFieldConfig
from .graph import GRAPH_NAME, Graph
from .lists import LISTS_NAME, Lists
from .quantiser import Quantiser
from .rows import STORED, Rows, block_rows, decode, lengths, width_of

KIND = "dense"
FILE_NAME = "dense.lex"
Gather = Callable[[Int64s], Rows]
"""Numbers of vectors -> their rows."""
EVERY_ROW = read_only(np.empty(0, np.int32))


class DensePart:
    """One segment's vectors, memory-mapped.

    Attributes
    ----------
    n_docs, n_vectors : int
        A document has ``config.vectors_per_doc``.
    longest : float
        No vector is longer.
    rows : (n, dim) uint16 or float32, or (n, dim + 4) int8
        Unverified; see `rows.decode`.
    documents : (n,) int32
        The vector of each row; (0,): rows are in the order of vectors.
    lists : Lists or None
    graph : Graph or None
    structure : {"flat", "codes", "ivf", "hnsw"}
        What a search looks through.
    whole : (2,) int64
        All rows, as one list.
    files : list of ArrayFile

    Raises
    ------
    IndexFormatError
        Damaged file, vectors of another dim or precision, or lists of another quantiser.
    """

    def __init__(self, folder: Path, config: DenseFieldConfig, quantiser: Quantiser | None = None) -> None:
        file = self.file = ArrayFile(folder / FILE_NAME, KIND)
        self.longest = float(file.array("longest", "float32", (1,))[0])
        self.n_vectors, dim = (int(number) for number in file.array("shape", "int64", (2,)))
        self.n_docs, left_over = divmod(self.n_vectors, config.vectors_per_doc)
        file.require(left_over == 0, f"{config.vectors_per_doc} vectors per document", f"{self.n_vectors} in all")
        file.require(dim == config.dim, f"vectors of {config.dim} numbers", f"of {dim}")
        file.require(0 <= self.longest <= 2 * MAX_LENGTH, f"vectors up to {MAX_LENGTH:.0e} long", self.longest)  # not NaN
        rows = file.unverified("rows", STORED[config.keep], (self.n_vectors, width_of(dim, config.keep)))
        self.rows: Rows = rows.view(np.int8) if rows.dtype == np.uint8 else rows
        self.documents: Int32s = EVERY_ROW
        if "documents" in file:
            self.documents = file.array("documents", "int32", (self.n_vectors,))
            file.require(is_permutation(self.documents))
        self.lists = Lists(folder, config, quantiser, self.n_vectors) if (folder / LISTS_NAME).exists() else None
        self.graph = Graph(folder, self.n_vectors) if (folder / GRAPH_NAME).exists() else None
        self.files = [file, *(each.file for each in (self.lists, self.graph) if each is not None)]
        self.structure = "flat" if self.graph is None else "hnsw"
        if self.lists is not None:
            self.structure = "ivf" if self.lists.n_lists > 1 else "codes"
        self.whole = read_only(np.array([0, self.n_vectors], np.int64))
        self._config = config

    @cached_property
    def row_of(self) -> Int32s:
        """Row of each vector, (n,) int32; (0,): its number."""
        found = np.empty(len(self.documents), np.int32)
        found[self.documents] = np.arange(len(found))
        return read_only(found)

    def totals(self) -> dict[str, int]:
        """Vectors."""
        return {"n_vectors": self.n_vectors}

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

    def raise_damage(self) -> None:
        """Raise IndexFormatError when a kernel has found damage in one of the files."""
        for file in self.files:
            file.raise_damage()

    def check(self) -> None:
        """Verify every checksum and what must hold between arrays; raises IndexFormatError."""
        self.verify()
        for first in range(0, self.n_vectors, block_rows(self._config.dim)):
            vectors = decode(self.rows[first : first + block_rows(self._config.dim)])
            short = lengths(vectors) <= self.longest  # False for NaN
            self.file.require(short.all(), f"vectors of length <= {self.longest}", f"vector {first + int(np.argmin(short))}")
        if self.graph is not None:
            self.graph.check()

    def kept(self, numbers: npt.NDArray[np.integer[Any]]) -> Rows:
        """Rows of some vectors as they are kept, verified; document d has ``d * m`` to ``d * m + m - 1``, m to each."""
        places: Int64s = (self.row_of[numbers] if len(self.row_of) else numbers).astype(np.int64)
        verify_rows(self.file.checked, self.rows, places)
        self.file.raise_damage()
        found: Rows = self.rows[places]
        return found

    def vectors(self, numbers: npt.NDArray[np.integer[Any]]) -> Floats:
        """Some vectors by number, (n, dim) float32, verified."""
        return decode(self.kept(numbers))


def write_rows(path: Path, order: Int64s, gather: Gather, config: DenseFieldConfig, *, listed: bool) -> Iterator[Rows]:
    """Write ``dense.lex``, and yield the rows that are written, a block at a time.

    Parameters
    ----------
    path : Path
    order : (n,) int64
        The vector of each row.
    gather : callable
    config : DenseFieldConfig
    listed : bool
        Rows are not in the order of vectors.
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
