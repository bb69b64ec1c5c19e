"""Pictures of evaluations: means of systems on collections, with 95 % intervals.

Intervals are percentiles of 10,000 bootstrap samples of the queries (Efron & Tibshirani, 1993, chapter 13). They tell how far a
mean would move with other queries; whether two systems differ is for the paired tests of `significance`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .significance import MEAN

N_SAMPLES = 10_000
LEVEL = 0.95
Values = Sequence[Sequence[float]]
"""Per collection, the value of each query."""


def interval(values: Values, *, seed: int = 0) -> tuple[float, float]:
    """Return the bootstrap interval of the mean of collections' means; with one collection, that of its mean.

    Raises
    ------
    ValueError
        A collection without queries, or none.
    """
    if not values or not all(len(each) for each in values):
        raise ValueError("an interval needs collections with queries")
    random = np.random.default_rng(seed)
    total = np.zeros(N_SAMPLES)
    for each in values:
        row = np.asarray(each, np.float64)
        for first in range(0, N_SAMPLES, 500):  # 500 samples at once, for collections of many queries
            picks = random.integers(0, len(row), (min(500, N_SAMPLES - first), len(row)))
            total[first : first + len(picks)] += row[picks].mean(axis=1)
    low, high = np.quantile(total / len(values), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def plot_systems(systems: Mapping[str, Mapping[str, Mapping[str, float]]], path: Path | str, *, measure: str) -> None:
    """Write a picture (PNG, SVG or PDF by its suffix): a panel per collection, and of the mean over several.

    Parameters
    ----------
    systems : mapping
        System -> collection -> query_id -> value.
    measure : str
        What the values are.
    """
    collections = list(next(iter(systems.values())))
    columns = {name: [name] for name in collections} | ({MEAN: collections} if len(collections) > 1 else {})
    _plot(
        {
            column: {system: [list(found[name].values()) for name in names] for system, found in systems.items()}
            for column, names in columns.items()
        },
        path,
        measure,
    )


def plot_measures(per_query: Mapping[str, Mapping[str, float]], path: Path | str, *, system: str) -> None:
    """Write a picture of one system's measures: measure -> query_id -> value."""
    _plot({system: {measure: [list(values.values())] for measure, values in per_query.items()}}, path, "mean over queries")


def _plot(panels: Mapping[str, Mapping[str, Values]], path: Path | str, label: str) -> None:
    """Draw panels of named rows, the first on top: the mean as a point, the interval as a line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n_rows = max(map(len, panels.values()))
    figure = Figure(figsize=(1.5 + 3.4 * len(panels), 1.1 + 0.34 * n_rows), layout="constrained")
    FigureCanvasAgg(figure)
    line: Any = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for (title, rows), axes in zip(panels.items(), line, strict=True):
        for y, values in enumerate(rows.values()):
            mean = float(np.mean([np.mean(each) for each in values]))
            axes.plot(interval(values), [y, y], color="tab:blue", linewidth=1.5)
            axes.plot(mean, y, "o", color="tab:blue")
            axes.annotate(f"{mean:.3f}", (mean, y), xytext=(0, 5), textcoords="offset points", ha="center", fontsize=7)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel(f"{label}, 95 % interval", fontsize=8)
        axes.grid(axis="x", alpha=0.3)
        axes.margins(y=0.25 / n_rows + 0.1)
    names = list(next(iter(panels.values())))
    line[0].set_yticks(range(len(names)), names, fontsize=8)
    line[0].invert_yaxis()
    figure.savefig(path, dpi=130)
