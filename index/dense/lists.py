"""The lists of a dense part: which rows are in which list, and the codes that a scan reads in their place.

Arrays of ``lists.lex``; n vectors::

    starts (n_lists + 1,) i64    list l has the rows starts[l]:starts[l + 1] of ``dense.lex``
    codes (n, pq_bytes) u8       of product quantisation, or (n, search_dim + 4) u8: signed bytes and the value of a step, f32
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..array_files import ArrayFile, ArrayFileWriter
from ..arrays import Int64s, is_indptr
from .config import DenseFieldConfig
from .quantiser import Quantiser
from .rows import Rows, width_of

KIND = "dense lists"
LISTS_NAME = "lists.lex"


class Lists:
    """Lists of one segment, memory-mapped.

    Attributes
    ----------
    starts : (n_lists + 1,) int64
    codes : (n, pq_bytes) uint8 or (n, search_dim + 4) int8, or None
        Unverified; None: the kept rows are scanned.

    Raises
    ------
    IndexFormatError
        Damaged file, or lists that do not fit the quantiser.
    """

    def __init__(self, folder: Path, config: DenseFieldConfig, quantiser: Quantiser | None, n_vectors: int) -> None:
        file = self.file = ArrayFile(folder / LISTS_NAME, KIND)
        n_lists = 0 if quantiser is None else quantiser.n_lists
        self.starts: Int64s = file.array("starts", "int64", (n_lists + 1,))
        file.require(is_indptr(self.starts, n_vectors))
        self.codes: Rows | None = None
        if config.quantise != "none":
            codes = file.unverified("codes", "uint8", (n_vectors, code_width(config)))
            self.codes = codes.view(np.int8) if config.quantise == "int8" else codes

    @property
    def n_lists(self) -> int:
        """Number of lists."""
        return len(self.starts) - 1


def code_width(config: DenseFieldConfig) -> int:
    """Bytes of a row of codes."""
    return width_of(config.scan_dim, "int8") if config.quantise == "int8" else config.code_bytes


class ListsWriter(ArrayFileWriter):
    """Writes ``lists.lex``."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / LISTS_NAME, KIND)
