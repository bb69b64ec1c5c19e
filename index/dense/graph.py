"""The graph of a dense part: hierarchical navigable small world (Malkov and Yashunin, arXiv 1603.09320).

Arrays of ``graph.lex``; n vectors, m links::

    entry (1,) i64            the vector where a search begins; it is on the top level
    levels (n,) u8            the top level of each vector
    links (n, 2 m) i32        neighbours on level 0, ended by -1
    upper (sum of levels, m) i32
                              neighbours on levels 1, 2, ... of each vector, in order

Kernels follow links, so everything is verified and its bounds are checked before the first search.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..array_files import ArrayFile, ArrayFileWriter
from ..arrays import Floats, Int64s
from ..kernels import read_only
from ..kernels.checksums import Checked
from ..kernels.graphs import Links, build_graph
from .config import DenseFieldConfig
from .rows import Rows

KIND = "dense graph"
GRAPH_NAME = "graph.lex"
MAX_LEVEL = 31
SEED = 1


class Graph:
    """The graph of one segment, memory-mapped.

    Raises
    ------
    IndexFormatError
        Damaged file, or arrays that do not fit each other.
    """

    def __init__(self, folder: Path, n_vectors: int) -> None:
        file = self.file = ArrayFile(folder / GRAPH_NAME, KIND)
        self._n_vectors, self.entry = n_vectors, int(file.array("entry", "int64", (1,))[0])
        file.require(0 <= self.entry < n_vectors)

    @cached_property
    def links(self) -> Links:
        """What kernels walk along, verified."""
        file = self.file
        levels = file.array("levels", "uint8", (self._n_vectors,))
        lowest = file.array("links", "int32", (self._n_vectors, None))
        upper = file.array("upper", "int32", (int(levels.sum(dtype=np.int64)), None))
        file.require(int(levels.max()) <= MAX_LEVEL and lowest.shape[1] > 0 and upper.shape[1] > 0)
        for each in (lowest, upper):
            file.require(not each.size or -1 <= int(each.min()) <= int(each.max()) < self._n_vectors, "links to vectors")
        level = np.concatenate([np.arange(1, n + 1) for n in levels[levels > 0].tolist()] or [np.empty(0, np.int64)])
        file.require(np.all((upper < 0) | (levels[upper] >= level[:, None])), "links to vectors of the level")
        file.require(int(levels[self.entry]) == int(levels.max()), "an entry on the top level")
        return Links(levels, starts_of(levels), lowest, upper)

    def check(self) -> None:
        """Verify what must hold between arrays; raises IndexFormatError."""
        _ = self.links


def starts_of(levels: npt.NDArray[np.uint8]) -> Int64s:
    """Where each vector's links on upper levels begin, (n + 1,) int64."""
    return read_only(np.concatenate([[0], np.cumsum(levels, dtype=np.int64)]).astype(np.int64))


def write_graph(folder: Path, checked: Checked, rows: Rows, extras: Floats, order: Int64s, config: DenseFieldConfig) -> None:
    """Build the graph of a segment's rows, in one thread, and write ``graph.lex``.

    Parameters
    ----------
    folder : Path
    checked : Checked
        Of the file that holds the rows.
    rows : (n, ...)
    extras : (n,) float32
        One more coordinate of each vector, with which all are equally long: then the nearest neighbours are those of largest
        product (Bachrach et al., 2014).
    order : (n,) int64
        In which order they enter.
    config : DenseFieldConfig
    """
    n, n_links = len(rows), config.n_links
    draws = np.random.default_rng(SEED).random(n)
    drawn = np.minimum(-np.log(1 - draws) / np.log(n_links), MAX_LEVEL).astype(np.uint8)
    levels = np.empty(n, np.uint8)
    levels[order] = drawn
    lowest, upper = np.full((n, 2 * n_links), -1, np.int32), np.full((int(levels.sum(dtype=np.int64)), n_links), -1, np.int32)
    starts = starts_of(levels)
    entry = build_graph(checked, rows, config.dim, extras, order, levels, starts, lowest, upper, config.ef_construction)
    with ArrayFileWriter(folder / GRAPH_NAME, KIND) as out:
        out.add("entry", np.array([entry], np.int64))
        out.add("levels", levels)
        out.add("links", lowest)
        out.add("upper", upper)
