"""Candidate generation: which documents have tokens near those of the query, judged by centroids alone.

Each query token probes its nearest centroids; a document scores, token by token, the best of its probed centroids, or for a
token without one the worst score that was probed (WARP's imputation, arXiv 2501.17788; PLAID's first stage, 2205.09707,
has none). Scores are 32-bit integers in steps of `STEP`, and differences from that worst score, so absence costs nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...index.kernels import Intrinsic, kernel_or
from ...index.kernels.dot_products import LANES
from ...index.kernels.sorting import sort
from . import kernel

Floats = npt.NDArray[np.float32]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint16]
Mask = npt.NDArray[np.bool_]

BLOCK = 16
"""Centroids whose maximum is looked at before themselves."""
STEP = np.float32(1 / 4096)
N_BINS = 4096


def _emit_max_rows(context: Any, dots: Any, codes: Any, n: Any, out: Any) -> Any:
    from .token_emitters import max_rows_emitter

    return max_rows_emitter(coded=False)(context, dots, codes, n, out)


def _emit_max_coded(context: Any, dots: Any, codes: Any, n: Any, out: Any) -> Any:
    from .token_emitters import max_rows_emitter

    return max_rows_emitter(coded=True)(context, dots, codes, n, out)


_max_rows, _max_coded = Intrinsic(_emit_max_rows), Intrinsic(_emit_max_coded)


def _row_maxima_compiled(dots: Int32s, first: int, last: int, out: Int32s) -> None:
    _max_rows(dots.ctypes.data + first * (4 * LANES), 0, last - first, out.ctypes.data)


def _code_maxima_compiled(dots: Int32s, codes: Codes, first: int, last: int, out: Int32s) -> None:
    _max_coded(dots.ctypes.data, codes.ctypes.data + 2 * first, last - first, out.ctypes.data)


def row_maxima_plain(dots: Int32s, first: int, last: int, out: Int32s) -> None:
    """Plain loops of `row_maxima`."""
    out[:] = dots[first]
    for i in range(first + 1, last):
        for j in range(LANES):
            out[j] = max(out[j], dots[i, j])


def code_maxima_plain(dots: Int32s, codes: Codes, first: int, last: int, out: Int32s) -> None:
    """Plain loops of `code_maxima`."""
    out[:] = dots[codes[first]]
    for t in range(first + 1, last):
        for j in range(LANES):
            out[j] = max(out[j], dots[codes[t], j])


row_maxima = kernel_or(row_maxima_plain)(_row_maxima_compiled)
"""``out[j] = max(dots[first:last, j])``: dots (n, 32) i32 C-contiguous, first < last, out (32,) i32."""
code_maxima = kernel_or(code_maxima_plain)(_code_maxima_compiled)
"""``out[j] = max(dots[codes[first:last], j])``: codes (T,) u16, first < last."""


@kernel
def probe(dots: Int32s, n_probe: int, nearest: Int32s, values: Int32s) -> None:
    """Find each lane's ``n_probe`` largest dot products, best first; ties by centroid number.

    dots (n_centroids, 32) i32; nearest, values (32, n_probe) i32 are written. ``n_probe`` <= n_centroids.
    """
    n_centroids = len(dots)
    n_blocks = -(-n_centroids // BLOCK)
    maxima = np.empty((LANES, n_blocks), np.int32)
    top = np.empty(LANES, np.int32)
    for b in range(n_blocks):
        row_maxima(dots, b * BLOCK, min((b + 1) * BLOCK, n_centroids), top)
        maxima[:, b] = top
    for j in range(LANES):
        n = 0
        for b in range(n_blocks):
            if n == n_probe and maxima[j, b] <= values[j, n - 1]:
                continue
            for i in range(b * BLOCK, min((b + 1) * BLOCK, n_centroids)):
                value = dots[i, j]
                if n < n_probe:
                    at = n
                    n += 1
                elif value > values[j, n - 1]:
                    at = n - 1
                else:
                    continue
                while at > 0 and values[j, at - 1] < value:
                    values[j, at], nearest[j, at] = values[j, at - 1], nearest[j, at - 1]
                    at -= 1
                values[j, at], nearest[j, at] = value, i


@kernel
def gather(
    nearest: Int32s, values: Int32s, scales: Floats, list_starts: Int64s, list_documents: Int32s, base: int, allowed: Mask,
    round_: int, mark: int, stamps: Int32s, totals: Int32s, touched: Int32s, n_touched: int,
) -> int:  # fmt: skip
    """Add one segment's lists of the probed centroids to the documents' totals; returns how many documents are touched.

    Parameters
    ----------
    nearest, values : (32, n_probe) int32
        From `probe`.
    scales : (32,) float32
        Similarity a step of ``values``, the lane's weight included; 0 for a lane without a query token.
    list_starts, list_documents : (n_centroids + 1,) int64, (L,) int32
        Documents (positions in the segment) with a token of each centroid.
    base : int
        doc_num of the segment's first document.
    allowed : (n_docs,) bool, or empty for all
        By position in the segment.
    round_, mark : int
        Stamps up to ``round_`` are of earlier queries; this block's lane ``j`` stamps ``mark + j``, above ``round_``.
    stamps, totals, touched : (n_docs of the index,) int32
        Scratch by doc_num; ``touched[:n_touched]`` are the documents met so far.
    """
    filtered = len(allowed) > 0
    n_probe = nearest.shape[1]
    for j in range(LANES):
        if scales[j] == 0:
            continue
        own = mark + j
        worst = values[j, n_probe - 1]
        for i in range(n_probe):
            gain = np.int32(np.float32(values[j, i] - worst) * scales[j] / STEP) + np.int32(1)
            centroid = nearest[j, i]
            for p in range(list_starts[centroid], list_starts[centroid + 1]):
                position = list_documents[p]
                if filtered and not allowed[position]:
                    continue
                document = base + position
                stamp = stamps[document]
                if stamp == own:
                    continue
                if stamp <= round_:
                    totals[document] = gain
                    touched[n_touched] = document
                    n_touched += 1
                else:
                    totals[document] += gain
                stamps[document] = own
    return n_touched


@kernel
def best_touched(touched: Int32s, n_touched: int, totals: Int32s, n: int) -> Int32s:
    """Return about the ``n`` touched documents of the largest totals, ascending; ties at the edge are all kept.

    Documents are binned by total, so a few more than ``n`` come back, never fewer while there are as many.
    """
    if n_touched <= n:
        kept = touched[:n_touched].copy()
        sort(kept)
        return kept
    highest = np.int32(0)
    for i in range(n_touched):
        highest = max(highest, totals[touched[i]])
    shift = 0
    while (highest >> shift) >= N_BINS:
        shift += 1
    bins = np.zeros(N_BINS, np.int32)
    for i in range(n_touched):
        bins[max(totals[touched[i]], np.int32(0)) >> shift] += 1  # no codec is so damaged that a total is negative
    edge, n_kept = N_BINS - 1, bins[N_BINS - 1]
    while n_kept < n:
        edge -= 1
        n_kept += bins[edge]
    kept = np.empty(n_kept, np.int32)
    at = 0
    for i in range(n_touched):
        if (totals[touched[i]] >> shift) >= edge:
            kept[at] = touched[i]
            at += 1
    sort(kept)
    return kept


@kernel
def score_codes(
    documents: Int32s, offsets: Int64s, codes: Codes, dots: Int32s, scales: Floats, mean: float, scores: Floats
) -> None:  # fmt: skip
    """Add the MaxSim that centroids alone give, the residual left out; none for an empty document.

    Parameters as in `gather` and `maxsim`; ``mean`` is the similarity of all lanes to the mean of all tokens.
    """
    best = np.empty(LANES, np.int32)
    for i in range(len(documents)):
        first, last = offsets[documents[i]], offsets[documents[i] + 1]
        if first == last:
            continue
        code_maxima(dots, codes, first, last, best)
        total = np.float32(mean)
        for j in range(LANES):
            total += np.float32(best[j]) * scales[j]
        scores[i] += total
