"""The report of `lexmax bench multivector`: rows, Markdown, and latency against recall as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...index.arrays import Floats
from ..tables import markdown_table
from .report import Report, Row, make_row
from .timing import Stream

LEXMAX = "lexmax"
RECALL_DIGITS = 4


@dataclass(frozen=True, eq=False)
class Answers:
    """What one row of an engine answered and took.

    Attributes
    ----------
    row, index, curve : str
        The row's name, the index that answered, and the curve of the picture.
    stream : Stream
        Answers are document numbers, best first.
    together : mapping or None
        ``cpu_us`` and ``wall_us`` of all queries at once, by several threads.
    cost : mapping
        ``build_cpu_s``, ``build_wall_s`` and ``bytes_per_token``.
    """

    row: str
    index: str
    curve: str
    stream: Stream
    together: Mapping[str, float] | None
    cost: Mapping[str, float]


class TokenReport(Report):
    """What the comparison found; ``ratio_at_recall`` is the row's mean CPU time by that of the cheapest row of lexmax whose
    recall@k over the same queries is no lower (None: there is none), so above 1 lexmax is cheaper.
    """  # noqa: D205

    def to_markdown(self) -> str:
        """Return the rows as a table, what indexes cost as another, and the setup as a list."""
        header = ["k", "engine", "p50 µs", "p99 µs", "recall@10", "recall@k", "× at equal recall", "CPU, wall µs together"]
        answers, costs = [header], {}
        for row in self.rows:
            ratio = "" if row["ratio_at_recall"] is None else f"{row['ratio_at_recall']:.2f}"
            times, quality = [f"{row[name]:.0f}" for name in ("p50_us", "p99_us")], [f"{row['recall@10']:.3f}"]
            together = "" if row["batch_cpu_us"] is None else f"{row['batch_cpu_us']:.0f}, {row['batch_wall_us']:.0f}"
            answers.append([str(row["k"]), row["engine"], *times, *quality, f"{row['recall@k']:.3f}", ratio, together])
            costs[row["index"]] = [f"{row[name]:.1f}" for name in ("build_cpu_s", "build_wall_s", "bytes_per_token")]
        indexes = [["index", "build CPU s", "build s", "bytes/token"], *([name, *cost] for name, cost in costs.items())]
        facts = [f"- {name}: {value}" for name, value in self.setup.items()]
        return "\n".join([*markdown_table(answers), "", *markdown_table(indexes), "", *facts]) + "\n"


def make_rows(answers: Sequence[Answers], scores: Floats, k: int, n_threads: int) -> list[Row]:
    """Judge all rows of one k by exact scores (n_queries, n_docs); the first answers are lexmax's.

    ``batch_cpu_us`` and ``batch_wall_us`` are microseconds a query when ``n_threads`` threads share the queries.
    """
    quality = {found.row: recalls(found.stream.answers, scores, k) for found in answers}
    ours = [found for found in answers if found.row.startswith(LEXMAX)]
    rows = []
    for found in answers:
        stream, recall = found.stream, quality[found.row]
        n = len(stream.cpu_us)
        baseline = answers[0].stream
        shallow = recalls(stream.answers, scores, min(10, k))
        verdict = (float(shallow.mean()), float(recall.mean()), int(np.sum(recall < 1)))
        row = make_row(found.row, k, stream, Stream(baseline.cpu_us[:n], baseline.wall_us[:n], [], 0.0), verdict)
        rivals = [(quality[other.row][:n], other.stream.cpu_us[:n]) for other in ours if len(other.stream.cpu_us) >= n]
        rows.append({
            "index": found.index, "curve": found.curve, "n_queries": n, **row,
            "recall@100": row["recall@k"] if k == 100 else None,
            "wall_p99_us": round(float(np.percentile(stream.wall_us, 99)), 1),
            "ratio_at_recall": ratio_at_recall(recall, stream.cpu_us, rivals),
            "batch_threads": n_threads,
            "batch_cpu_us": None if found.together is None else round(found.together["cpu_us"] / n, 1),
            "batch_wall_us": None if found.together is None else round(found.together["wall_us"] / n, 1),
            **{name: round(value, 2) for name, value in found.cost.items()},
        })  # fmt: skip
    return rows


def recalls(answers: Sequence[npt.NDArray[np.int64]], scores: Floats, k: int) -> npt.NDArray[np.float64]:
    """Share of each query's exact top k that its answer holds; documents that tie at the k-th score replace each other."""
    found = np.empty(len(answers))
    for number, documents in enumerate(answers):
        exact = scores[number]
        kth = np.partition(exact, len(exact) - k)[len(exact) - k]
        found[number] = np.sum(exact[np.unique(documents[:k])] >= kth) / k
    return np.minimum(found, 1.0)


def ratio_at_recall(
    recall: npt.NDArray[np.float64], cpu_us: npt.NDArray[np.float64],
    rivals: Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]],
) -> float | None:  # fmt: skip
    """Mean CPU time by that of the cheapest rival (recalls, CPU times) of at least equal mean recall; None without one."""
    wanted = recall.mean() - 1e-9
    costs = [float(cpu.mean()) for found, cpu in rivals if found.mean() >= wanted]
    return round(float(cpu_us.mean()) / min(costs), 3) if costs else None


def plot_tokens(report: Report, path: Path | str) -> None:
    """Write a PNG: median CPU time against recall@k, a panel for each k and a line for each engine.

    Raises
    ------
    ValueError
        There are no rows.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    depths = list(dict.fromkeys(row["k"] for row in report.rows))
    if not depths:
        raise ValueError("there is nothing to plot")
    figure = Figure(figsize=(6.0 * len(depths), 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    curves = list(dict.fromkeys(row["curve"] for row in report.rows))
    for k, axes in zip(depths, figure.subplots(1, len(depths), squeeze=False)[0], strict=True):
        for number, curve in enumerate(curves):
            rows = [row for row in report.rows if row["k"] == k and row["curve"] == curve]
            rows.sort(key=lambda row: float(row["p50_us"]))
            style = "o-" if curve.startswith(LEXMAX) else "s--"
            points = [row["recall@k"] for row in rows], [row["p50_us"] / 1000 for row in rows]
            axes.plot(*points, style, color=f"C{number}", label=curve, markersize=4, linewidth=1)
        axes.set_yscale("log")
        axes.set_title(f"k = {k}", fontsize=10)
        axes.set_xlabel(f"recall@{k} against exact MaxSim", fontsize=9)
        axes.set_ylabel("CPU ms a query, one thread: median", fontsize=9)
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)
