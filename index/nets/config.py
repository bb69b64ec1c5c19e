"""How a field whose queries are networks keeps its vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..dense.config import DenseFieldConfig

PRECISIONS = ("float16", "float32")
MAX_NEIGHBOURS = 1024


@dataclass(frozen=True, kw_only=True)
class NetFieldConfig:
    """How a field whose queries are networks keeps its vectors.

    Attributes
    ----------
    dim : int
        Numbers of a vector.
    keep : {"float16", "float32"}
        Numbers as they are kept; float16 rounds them by at most 2^-11 of their size.
    n_neighbours : int
        Nearest documents that are kept of each document, for ``algorithm=graph``; 4 bytes each. 0: none.
    """

    dim: int
    keep: str = "float16"
    n_neighbours: int = 0

    def __post_init__(self) -> None:
        if self.keep not in PRECISIONS:
            raise ValueError(f"keep is {self.keep!r}: it must be {' or '.join(PRECISIONS)}")
        if type(self.n_neighbours) is not int or not 0 <= self.n_neighbours <= MAX_NEIGHBOURS:
            raise ValueError(f"n_neighbours is {self.n_neighbours!r}: it must be 0 to {MAX_NEIGHBOURS}")
        self.dense()

    def dense(self) -> dict[str, Any]:
        """Return the options of the dense field that keeps the vectors; raises ValueError for a dim that it does not have."""
        return DenseFieldConfig(dim=self.dim, keep=self.keep, structure="flat").options()
