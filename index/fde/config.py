"""How token vectors become fixed dimensional encodings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from ..dense.config import DenseFieldConfig

CELLS = ("learnt", "simhash")
VALUES = ("fitted", "mean")
MAX_CELLS = 4096
MAX_REPETITIONS = 1024
MAX_PLANES = 12
MAX_SAMPLES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class FdeConfig:
    """How token vectors become one vector: which cells divide their space, and what a document says of each cell.

    Attributes
    ----------
    of : str
        The token field whose vectors are encoded.
    token_dim : int
        Numbers of a token vector.
    cells : {"learnt", "simhash"}
        "learnt": clusters of the field's own tokens. "simhash": signs of random products, MUVERA's (arXiv 2405.19504).
    n_cells : int
        Learnt cells. The encoding has ``n_cells * token_dim`` numbers.
    values : {"fitted", "mean"}
        What a document says of a learnt cell: the vector whose products are closest to the document's MaxSim for tokens of that
        cell, by least squares; or the mean of its own tokens there.
    n_samples : int
        Tokens that values are fitted to.
    n_repetitions, n_planes : int
        SimHash: independent divisions of the space, and random planes of each, which make ``2 ** n_planes`` cells.
    inner_dim, final_dim : int or None
        SimHash: numbers that tokens are projected to, and that the whole encoding is projected to; None: no projection.
    seed : int
        Of all that is random.
    """

    of: str
    token_dim: int
    cells: str = "learnt"
    n_cells: int = 20
    values: str = "fitted"
    n_samples: int = 4096
    n_repetitions: int = 20
    n_planes: int = 4
    inner_dim: int | None = 8
    final_dim: int | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        for name, allowed in (("cells", CELLS), ("values", VALUES)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}: it must be {' or '.join(allowed)}")
        if not isinstance(self.of, str) or not self.of:
            raise ValueError(f"of is {self.of!r}: it must be the name of a token field")
        bounds = {
            "token_dim": (1, 1 << 16), "n_cells": (1, MAX_CELLS), "n_samples": (1, MAX_SAMPLES),
            "n_repetitions": (1, MAX_REPETITIONS), "n_planes": (0, MAX_PLANES), "inner_dim": (1, 1 << 16),
            "final_dim": (1, 1 << 16), "seed": (0, (1 << 31) - 1),
        }  # fmt: skip
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            optional = value is None and name in ("inner_dim", "final_dim")
            if not optional and not (type(value) is int and low <= value <= high):
                raise ValueError(f"{name} is {value!r}: it must be {low} to {high}")
        for name in self._idle:
            raise ValueError(f"{name} has no use with cells={self.cells} and values={self.values}: leave it out")

    @property
    def _idle(self) -> list[str]:
        """Settings that were given and change nothing."""
        learnt = self.cells == "learnt"
        uses = {
            **dict.fromkeys(("n_cells", "values"), learnt),
            "n_samples": learnt and self.values == "fitted",
            **dict.fromkeys(("n_repetitions", "n_planes", "inner_dim", "final_dim"), not learnt),
        }
        return [
            each.name for each in fields(self) if not uses.get(each.name, True) and getattr(self, each.name) != each.default
        ]

    @property
    def full_dim(self) -> int:
        """Numbers of an encoding before the final projection."""
        if self.cells == "learnt":
            return self.n_cells * self.token_dim
        return self.n_repetitions * (1 << self.n_planes) * (self.inner_dim or self.token_dim)

    @property
    def dim(self) -> int:
        """Numbers of an encoding."""
        return self.full_dim if self.final_dim is None else self.final_dim

    def options(self) -> dict[str, Any]:
        """Return what makes this again: ``of``, ``token_dim``, ``cells``, and what is not the default."""
        defaults = {each.name: each.default for each in fields(self) if each.name != "cells"}
        return {name: value for name, value in asdict(self).items() if value != defaults.get(name, ...)}


def check_options(encoding: dict[str, Any], vectors: dict[str, Any]) -> None:
    """Raise TypeError or ValueError for options of a field that fit neither an encoding nor the dense vectors of it."""
    config, kept = FdeConfig(**encoding), DenseFieldConfig(**vectors)
    if kept.dim != config.dim:
        raise ValueError(f"encodings of {config.dim} numbers are kept as {kept.dim}")
