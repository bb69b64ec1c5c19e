"""Markdown tables of results."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, whose first row is its head: the first column to the left, the others to the right."""
    aligns = ["---", *["---:"] * (len(rows[0]) - 1)]
    return [f"| {' | '.join(row)} |" for row in (rows[0], aligns, *rows[1:])]
