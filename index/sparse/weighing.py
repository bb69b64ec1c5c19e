"""From weights to impacts and back, and the scale between them: one a field, so that scores of segments compare exactly.

The scale is fitted so that the largest weight becomes 255. Weights that come later may not fit it: they saturate, or fill less
than half of the range. A part of which that is true keeps its weights beside the impacts until the scale is fitted again, which
a commit does while the field is small, and a compaction always. BM25's weights are never kept: counts and lengths are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import floor, log2

import numpy as np

from ..arrays import Floats
from .bm25 import SCALE, Bm25
from .field import SparseSegment
from .inverted import ImpactRows
from .quantize import MAX_IMPACT, measured_error, quantize

MAX_SCALE = 3e38
"""The largest that is finite in 32 bits."""
GROWTH = 1.5
"""Least factor by which the range of a scale grows."""


def fitted_scale(top: float, scale: float | None) -> float:
    """Scale for weights of which ``top`` is the largest; ``scale`` is kept where they fit it.

    A scale that is too large shrinks by `GROWTH` at least: impacts are rounded again each time, and so lose two steps in all at
    most, however slowly weights grow.
    """
    if top == 0 or (scale is not None and MAX_IMPACT / 2 <= top * scale <= MAX_IMPACT + 0.5):
        return scale or 1.0
    if scale is not None and top * scale > MAX_IMPACT:
        top = max(top, GROWTH * MAX_IMPACT / scale)
    return min(MAX_IMPACT / top, MAX_SCALE)


def bm25_scale(top: float) -> float:
    """Scale for BM25's weights, which lie in (0, 1]: 255, doubled as long as the largest still fits, as with a large k1."""
    return min(SCALE * 2.0 ** floor(-log2(top)), MAX_SCALE) if top else SCALE


def with_impacts(rows: ImpactRows, weights: Floats, scale: float, *, keep: bool) -> tuple[ImpactRows, dict[str, float]]:
    """Round weights to impacts, and measure the error; with ``keep``, rows keep weights that do not fit the scale."""
    impacts = quantize(weights, scale)
    error = measured_error(weights, impacts, scale)
    unfit = error["saturated"] > 0 or 0 < impacts.max(initial=0) <= MAX_IMPACT // 2
    return replace(rows, impacts=impacts, weights=weights if keep and unfit else None), error


def weights_of(rows: Sequence[ImpactRows], scale: float) -> Floats:
    """Return the weights of parts that were written at one scale, end to end: those kept, or what impacts tell."""
    found = [each.impacts / np.float32(scale) if each.weights is None else each.weights for each in rows]
    return np.concatenate([np.empty(0, np.float32), *found])


def bm25_weights(rows: ImpactRows, bm25: Bm25, average_length: float) -> Floats:
    """BM25's weights of rows that have counts and lengths."""
    if rows.counts is None or rows.lengths is None:
        raise ValueError("BM25 needs counts and lengths")
    return bm25.document_weights(rows.counts, rows.indptr, rows.lengths.astype(np.int64), average_length)


def largest_weight(segments: Sequence[SparseSegment], scale: float, *, live: bool) -> float:
    """Return the largest weight of a learned field, 0 without any; with ``live``, of live documents."""
    top = 0.0
    for segment in segments:
        inverted, mask = segment.inverted, segment.live if live else None
        if mask is None and "weights" not in inverted.file:
            found = inverted.arrays.kth[:, 0].max(initial=0) / scale
        else:
            found = weights_of([inverted.rows(mask)], scale).max(initial=0)
        top = max(top, float(found))
    return top


def largest_bm25_weight(segments: Sequence[SparseSegment], bm25: Bm25, average_length: float, *, live: bool) -> float:
    """Do the same for a BM25 field, whose documents have their largest weights where their counts are largest."""
    top = 0.0
    for segment in segments:
        inverted, indptr = segment.inverted, segment.inverted.arrays.forward_indptr
        if inverted.counts is None or inverted.lengths is None:
            raise ValueError("BM25 needs counts and lengths")
        chosen = np.diff(indptr) > 0
        highest = np.maximum.reduceat(inverted.counts, indptr[:-1][chosen]) if chosen.any() else np.empty(0, np.uint8)
        lengths = inverted.lengths[chosen].astype(np.int64)
        if live and segment.live is not None:
            highest, lengths = highest[segment.live[chosen]], lengths[segment.live[chosen]]
        one_each = np.arange(len(highest) + 1, dtype=np.int64)
        top = max(top, float(bm25.document_weights(highest, one_each, lengths, average_length).max(initial=0)))
    return top
