"""Round-trip filter of generated queries (Promptagator, arXiv 2209.11755).

A query that a language model wrote for a passage is kept when a retriever, asked with it, finds the passage again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..progress import Progress
from ..retriever import Retriever
from .data import read_examples, writing_records
from .mining import content, normal, ranked


@dataclass(frozen=True, kw_only=True)
class FilterReport:
    """How many pairs were read and kept."""

    n_read: int
    n_kept: int


def round_trip(
    path: Path | str, retriever: Retriever, out: Path | str, *, k: int = 1, progress: Progress | None = None
) -> FilterReport:  # fmt: skip
    """Write the pairs whose passage is among the ``k`` best documents of its query.

    Parameters
    ----------
    path : Path or str
        Pairs of a generated query and its passage.
    retriever : Retriever
        Over a corpus in which the passages are; a passage is found when its text is, spaces aside.
    out : Path or str
        Pairs.
    k : int
        The paper's is 1.
    progress : callable, optional
        Called with the number of pairs done.

    Raises
    ------
    ValueError
        k < 1.
    DatasetError
        As `read_examples`.
    """
    if k < 1:
        raise ValueError(f"k is {k}: it must be >= 1")
    n_read = n_kept = 0
    with writing_records(out) as write:
        for example, results in ranked(read_examples(path), retriever, k):
            positive = example.positive_passage
            if normal(positive) in {normal(content(result)) for result in results}:
                write({"query": example.query, "positive": positive})
                n_kept += 1
            n_read += 1
            if progress:
                progress(n_read)
    return FilterReport(n_read=n_read, n_kept=n_kept)
