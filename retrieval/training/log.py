"""A run's log: JSON lines, which an interrupted run cuts back to its checkpoint."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class TrainingLog:
    """Averages the numbers of batches, and writes them when told.

    Parameters
    ----------
    path : Path
        The file; it is gone on with.
    step : int
        Lines of later steps are dropped: they will be written again.
    """

    def __init__(self, path: Path, step: int) -> None:
        self._path = path
        lines = [line for line in read_log(path) if line["step"] <= step]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        self._norm = 0.0
        self._reset()

    def add(self, numbers: Mapping[str, float], *, n_passages: int) -> None:
        """Take in one batch."""
        for name, number in numbers.items():
            self._sums[name] += number
        self._n_batches += 1
        self._n_passages += n_passages

    def add_norm(self, norm: float) -> None:
        """Take in a gradient's norm, before clipping; the largest is kept."""
        self._norm = max(self._norm, norm)

    def write(self, step: int, **numbers: float) -> None:
        """Write a line with the means since the last one."""
        means = {name: round(total / self._n_batches, 6) for name, total in self._sums.items()}
        rate = round(self._n_passages / max(time.monotonic() - self._start, 1e-9), 1)
        self._append({"step": step, **numbers, **means, "max_norm": self._norm, "passages_per_s": rate})
        self._reset()

    def write_validation(self, step: int, score: float, best: float) -> None:
        """Write a line about a validation."""
        self._append({"step": step, "validation": score, "best": best})

    def _reset(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._n_batches = self._n_passages = 0
        self._norm, self._start = 0.0, time.monotonic()

    def _append(self, line: Mapping[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """Lines of a log; a line cut short by a kill ends it."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines
