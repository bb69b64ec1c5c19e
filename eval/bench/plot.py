"""A picture of a report: each engine's median and 99th percentile, one panel for each kind of queries and k."""

from __future__ import annotations

from pathlib import Path

from .report import Report, shortlist


def plot_report(report: Report, path: Path | str) -> None:
    """Write a PNG; approximate engines are hollow, with their recall beside the name.

    Raises
    ------
    ValueError
        There are no rows.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    kinds = list(dict.fromkeys(row["queries"] for row in report.rows))
    depths = list(dict.fromkeys(row["k"] for row in report.rows))
    if not kinds:
        raise ValueError("there is nothing to plot")
    n_engines = len({row["engine"] for row in report.rows})
    figure = Figure(figsize=(5.2 * len(depths), (0.8 + 0.26 * n_engines) * len(kinds)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(kinds), len(depths), squeeze=False)
    for kind, line in zip(kinds, panels, strict=True):
        for k, axes in zip(depths, line, strict=True):
            rows = shortlist([row for row in report.rows if row["queries"] == kind and row["k"] == k])
            rows.sort(key=lambda row: -float(row["p50_us"]))
            for y, row in enumerate(rows):
                color = "tab:red" if row["engine"].startswith("lexmax") else "tab:blue"
                exact = row["n_inexact"] == 0
                axes.plot([row["p50_us"], row["p99_us"]], [y, y], color=color, linewidth=1)
                axes.plot(row["p50_us"], y, "o", color=color, markerfacecolor=color if exact else "white")
            names = [row["engine"] if row["n_inexact"] == 0 else f"{row['engine']} ({row['recall@k']:.3f})" for row in rows]
            axes.set_yticks(range(len(rows)), names, fontsize=7)
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_title(f"{kind} queries, k = {k}", fontsize=9)
            axes.set_xlabel("µs a query, one thread: median to 99th percentile", fontsize=8)
            axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=130)
