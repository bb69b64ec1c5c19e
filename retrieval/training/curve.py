"""A picture of a run's log."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from .log import read_log

N_COLUMNS = 4
SKIPPED = {"step", "epoch", "learning_rate", "passages_per_s", "max_norm", "best"}


def plot_log(log: Path, path: Path) -> bool:
    """Write a PNG with a panel for each number of the log; return False where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = read_log(log)
    names = list(dict.fromkeys(name for line in lines for name in line if name not in SKIPPED))
    n_rows = max(1, -(-len(names) // N_COLUMNS))
    figure = Figure(figsize=(3.5 * N_COLUMNS, 2.6 * n_rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(n_rows, N_COLUMNS, squeeze=False).flat
    for name, axes in zip(names, panels, strict=False):  # names first: zip takes one panel too many otherwise
        points = [(line["step"], line[name]) for line in lines if name in line]
        axes.plot(*zip(*points, strict=True), marker="." if len(points) < 50 else None)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.grid(alpha=0.3)
    for axes in panels:  # those left over
        axes.set_axis_off()
    figure.savefig(path, dpi=110)
    return True
