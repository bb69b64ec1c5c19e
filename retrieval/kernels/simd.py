"""Explicit vectors for sparse scores: 64 of them against a threshold, and a document's row against the query's terms.

LLVM does not make these of plain loops. Where kernels are interpreted NumPy stands in; results are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...index.kernels import Intrinsic
from . import Integer

LANES = 64
"""Scores that are compared at once."""


def _emit_passing(context: Any, scores: Any, start: Any, threshold: Any) -> Any:
    from .emitters import passing

    return passing(context, scores, start, threshold)


def _emit_lowest(context: Any, bits: Any) -> Any:
    from .emitters import lowest

    return lowest(context, bits)


def _emit_narrow_row(context: Any, rows: Any, start: Any, n: Any, terms: Any, weights: Any) -> Any:
    from .emitters import row_scorer

    return row_scorer(2)(context, rows, start, n, terms, weights)


def _emit_wide_row(context: Any, rows: Any, start: Any, n: Any, terms: Any, weights: Any) -> Any:
    from .emitters import row_scorer

    return row_scorer(4)(context, rows, start, n, terms, weights)


def _passing_plain(scores: Any, start: Any, threshold: Any) -> Any:
    bits = np.packbits(scores[start : start + LANES] > threshold, bitorder="little")
    return int.from_bytes(bits.tobytes(), "little")


def _lowest_plain(bits: Any) -> Any:
    return (int(bits) & -int(bits)).bit_length() - 1


def _plain_row_scorer(width: int) -> Any:
    def score_row(rows: Any, start: Any, n: Any, terms: Any, weights: Any) -> Any:
        weight_of = dict(zip(map(int, terms), map(int, weights), strict=True))
        ranks = rows[start : start + width * n].view(f"<u{width}")
        impacts = rows[start + width * n : start + (width + 1) * n]
        return sum(weight_of.get(int(rank), 0) * int(impact) for rank, impact in zip(ranks, impacts, strict=True))

    return score_row


passing: Callable[[Any, Any, Any], Any] = Intrinsic(_emit_passing, _passing_plain)
"""``passing(scores, start, threshold)``: bit i, for 64 of them, says whether ``scores[start + i] > threshold``.

``scores`` is uint16 or uint32 and ends no earlier than ``start + 64``; ``threshold`` is not negative and fits its type. The
bits are an int64; walk them with ``bits & (bits - 1)``, which drops the lowest.
"""
lowest: Callable[[Any], Any] = Intrinsic(_emit_lowest, _lowest_plain)
"""``lowest(bits)``: number of the lowest bit that is set, of at least one."""
score_narrow_row: Callable[..., Integer] = Intrinsic(_emit_narrow_row, _plain_row_scorer(2))
"""``score_narrow_row(rows, start, n, terms, weights)``: sum of weight x impact over the record of n entries at byte ``start``.

``rows`` as `index.kernels.rows` packs them, with ranks of 2 bytes; ``terms`` are ranks, ``weights`` 1..255.
"""
score_wide_row: Callable[..., Integer] = Intrinsic(_emit_wide_row, _plain_row_scorer(4))
"""The same with ranks of 4 bytes."""
