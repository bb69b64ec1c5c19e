"""How a dense field keeps its vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

PRECISIONS: dict[str, np.dtype[Any]] = {"float16": np.dtype(np.float16), "float32": np.dtype(np.float32)}
MAX_DIM = 1 << 16


@dataclass(frozen=True, kw_only=True)
class DenseFieldConfig:
    """How a dense field keeps its vectors.

    Attributes
    ----------
    dim : int
        Numbers of a vector.
    keep : {"float16", "float32"}
        Numbers as they are kept. float16 halves size and time; it rounds numbers by at most 2^-11 of their size.
    """

    dim: int
    keep: str = "float16"

    def __post_init__(self) -> None:
        if self.keep not in PRECISIONS:
            raise ValueError(f"keep is {self.keep!r}: it must be {' or '.join(PRECISIONS)}")
        if not 1 <= self.dim <= MAX_DIM:
            raise ValueError(f"dim is {self.dim}: it must be 1 to {MAX_DIM}")

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of kept vectors."""
        return PRECISIONS[self.keep]
