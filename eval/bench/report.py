"""The report of a comparison: rows of numbers, JSON and Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..tables import markdown_table
from .timing import Stream

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a comparison found.

    Attributes
    ----------
    rows : list of mapping
        One for each kind of queries, k and engine. Times are microseconds of the thread's CPU, ``wall_p50_us`` aside and
        those of ``lexmax-N-threads``, which are on the wall; ``batch_wall_us``, where N threads were asked for, is what a
        query takes when all are asked at once.
        ``ratio_to_lexmax_median`` is the median over queries of the engine's time by lexmax's: above 1, lexmax is faster;
        ``ratio_to_lexmax_p1`` is what 99 % of the queries exceed: above 1, it is faster on nearly all.
        ``best`` marks the fastest block size of BMP, and the fastest setting of Seismic with recall@k >= 0.99.
    setup : mapping
        Collection, queries, machine and versions.
    """

    rows: Sequence[Row]
    setup: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return ``{"rows", "setup"}`` as ``json.dumps`` takes it."""
        return {"rows": list(self.rows), "setup": dict(self.setup)}

    def to_markdown(self) -> str:
        """Return the rows as a table, what indexes cost as another, and the setup as a list."""
        answers = [["queries", "k", "engine", "p50 µs", "p99 µs", "× lexmax", "1 %", "recall@10", "recall@k", "inexact"]]
        costs = {}
        for row in self.rows:
            name = f"**{row['engine']}**" if row["best"] else row["engine"]
            times = [f"{row['p50_us']:.0f}", f"{row['p99_us']:.0f}"]
            ratios = [f"{row['ratio_to_lexmax_median']:.2f}", f"{row['ratio_to_lexmax_p1']:.2f}"]
            quality = [f"{row['recall@10']:.3f}", f"{row['recall@k']:.3f}", str(row["n_inexact"])]
            answers.append([row["queries"], str(row["k"]), name, *times, *ratios, *quality])
            costs[row["index"]] = [_shown(row[name]) for name in ("build_s", "bytes_per_posting", "peak_mb")]
        header = ["index", "build s", "bytes/posting", "build peak MiB"]
        facts = [f"- {name}: {value}" for name, value in self.setup.items()]
        indexes = [header, *([name, *cost] for name, cost in costs.items())]
        return "\n".join([*markdown_table(answers), "", *markdown_table(indexes), "", *facts]) + "\n"


def make_row(engine: str, k: int, stream: Stream, baseline: Stream, verdict: tuple[float, float, int]) -> Row:
    """Return one engine's row; ``baseline`` is lexmax's stream over the same queries, ``verdict`` the judge's."""
    at_10, at_k, n_inexact = verdict
    ratios = stream.cpu_us / np.maximum(baseline.cpu_us, 0.1)
    return {
        "engine": engine,
        "k": k,
        "p50_us": round(float(np.percentile(stream.cpu_us, 50)), 1),
        "p99_us": round(float(np.percentile(stream.cpu_us, 99)), 1),
        "mean_us": round(float(stream.cpu_us.mean()), 1),
        "wall_p50_us": round(float(np.percentile(stream.wall_us, 50)), 1),
        "ratio_to_lexmax_median": round(float(np.median(ratios)), 3),
        "ratio_to_lexmax_p1": round(float(np.percentile(ratios, 1)), 3),
        "recall@10": round(at_10, 4),
        "recall@k": round(at_k, 4),
        "n_inexact": n_inexact,
        "other_threads": round(stream.other_threads, 3),
        "best": False,
    }


def mark_best(rows: Sequence[Row], families: Mapping[str, float]) -> None:
    """Set ``best`` on each family's fastest row of at least a given recall@k; a family's names start with its own."""
    for family, enough in families.items():
        found = [row for row in rows if row["engine"].startswith(f"{family}-") and row["recall@k"] >= enough]
        if found:
            min(found, key=lambda row: float(row["ratio_to_lexmax_median"]))["best"] = True


def shortlist(rows: Sequence[Row]) -> list[Row]:
    """Leave one row of each family with a best: of engines tried with several settings, the one to compare with."""
    decided = {row["engine"].split("-")[0] for row in rows if row["best"]}
    return [row for row in rows if row["best"] or row["engine"].split("-")[0] not in decided]


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
