"""MaxSim over residual codes, without decompressing: integer dot products of 32 query tokens at once.

The score of a document is, summed over the query's tokens, the largest similarity to one of the document's
(ColBERT, arXiv 2004.12832). With the codec of `index.residual` the similarity of lane ``j`` to a token is::

    weights[j] * (inverse * (centroid_scale * S[code, j] + means[j]) + scale * (levels . lane j - middles[j]))

where ``S`` holds the integer dot products of all centroids with the lanes, computed once a query. Exact for the codes, with
the query's tokens rounded to bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...index.kernels import Intrinsic, kernel_or
from ...index.kernels.checksums import Checked, is_unread, position, verify_span
from ...index.kernels.dot_products import LANES
from ...index.kernels.records import SCALAR_BYTES, is_sound
from . import kernel

Bytes = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.uint16]
Floats = npt.NDArray[np.float32]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]

LOWEST = -1e30


def _maxima_intrinsic(nbits: int) -> Any:
    """Make the intrinsic for one width."""

    def emit_maxima(
        context: Any, levels: Any, codes: Any, scalars: Any, n_tokens: Any, n_words: Any, centroid_dots: Any, packed: Any,
        constants: Any, out: Any,
    ) -> Any:  # fmt: skip
        from .token_emitters import maxima_emitter

        return maxima_emitter(nbits)(
            context, levels, codes, scalars, n_tokens, n_words, centroid_dots, packed, constants, out
        )  # fmt: skip

    return Intrinsic(emit_maxima)


_maxima_1, _maxima_2, _maxima_4, _maxima_8 = (_maxima_intrinsic(nbits) for nbits in (1, 2, 4, 8))


def _maxima_compiled(
    nbits: int, levels: Bytes, codes: Codes, scalars: Bytes, first: int, n: int, dots: Int32s, packed: npt.NDArray[np.int8],
    constants: Floats, out: Floats,
) -> None:  # fmt: skip
    width = levels.shape[1]
    at = levels.ctypes.data + first * width
    code, pair = codes.ctypes.data + 2 * first, scalars.ctypes.data + 2 * first
    words = width // 4
    d, p, c, o = dots.ctypes.data, packed.ctypes.data, constants.ctypes.data, out.ctypes.data
    if nbits == 2:
        _maxima_2(at, code, pair, n, words, d, p, c, o)
    elif nbits == 8:
        _maxima_8(at, code, pair, n, words, d, p, c, o)
    elif nbits == 4:
        _maxima_4(at, code, pair, n, words, d, p, c, o)
    else:
        _maxima_1(at, code, pair, n, words, d, p, c, o)


def maxima_plain(
    nbits: int, levels: Bytes, codes: Codes, scalars: Bytes, first: int, n: int, dots: Int32s, packed: npt.NDArray[np.int8],
    constants: Floats, out: Floats,
) -> None:  # fmt: skip
    """Plain loops of `maxima`: what it is proven against, and its stand-in without compilation."""
    width = levels.shape[1]
    mask = (1 << nbits) - 1
    centroid_scale, low_inverse, step_inverse, low_scale, step_scale = constants[64:69]
    out[:] = np.float32(LOWEST)
    for t in range(first, first + n):
        inverse = np.float32(scalars[t, 0]) * step_inverse + low_inverse
        scale = np.float32(scalars[t, 1]) * step_scale + low_scale
        for j in range(LANES):
            total = np.int32(0)
            for plane in range(8 // nbits):
                for b in range(width):
                    d = plane * width + b
                    total += np.int32((levels[t, b] >> (plane * nbits)) & mask) * np.int32(packed[d // 4, j, d % 4])
            left = np.float32(dots[codes[t], j]) * centroid_scale + constants[j]
            right = np.float32(total) - constants[LANES + j]
            value = left * inverse + right * scale
            if value > out[j]:
                out[j] = value


maxima = kernel_or(maxima_plain)(_maxima_compiled)
"""Largest similarity, over its weight, of each lane to tokens ``first .. first + n`` of a segment.

Parameters: nbits 1, 2, 4 or 8; levels (T, dim * nbits / 8) u8; codes (T,) u16; scalars (T, 2) u8; dots (n_centroids, 32)
i32; packed (dim / 4, 32, 4) i8; constants (69,) f32: means (32), middles (32), centroid scale, lowest value and step of
``inverse``, and of ``scale``; out (32,) f32. Without tokens, ``out`` is `LOWEST`.
"""


@kernel
def score_documents(
    checked: Checked, documents: Int32s, offsets: Int64s, nbits: int, levels: Bytes, codes: Codes, scalars: Bytes,
    dots: Int32s, packed: npt.NDArray[np.int8], constants: Floats, weights: Floats, scores: Floats,
) -> None:  # fmt: skip
    """Add the MaxSim of one block of lanes to the ``scores`` of some of a segment's documents; none for an empty document.

    ``documents (n,)`` are positions in the segment, ``weights (32,)`` the lanes' (0 for a lane without a query token), and
    ``checked`` is the file of levels and scalars, which are verified as they are read.
    """
    best = np.empty(LANES, np.float32)
    levels_at, scalars_at, width = position(checked, levels), position(checked, scalars), levels.shape[1]
    for i in range(len(documents)):
        first = offsets[documents[i]]
        n = offsets[documents[i] + 1] - first
        if n == 0:
            continue
        levels_first, scalars_first = levels_at + width * first, scalars_at + 2 * first
        levels_end, scalars_end = levels_first + width * n, scalars_first + 2 * n
        if is_unread(checked.states, levels_first, levels_end) or is_unread(checked.states, scalars_first, scalars_end):
            verify_span(checked, levels_first, levels_end)
            verify_span(checked, scalars_first, scalars_end)
        maxima(nbits, levels, codes, scalars, first, n, dots, packed, constants, best)
        total = np.float32(0)
        for j in range(LANES):
            total += best[j] * weights[j]
        scores[i] += total


@kernel
def _add_record(
    source: Bytes, first: int, n: int, nbits: int, width: int, dots: Int32s, packed: npt.NDArray[np.int8], constants: Floats,
    weights: Floats, best: Floats, scores: Floats, target: int,
) -> None:  # fmt: skip
    codes = source[first : first + 2 * n].view(np.uint16)
    scalars = source[first + 2 * n : first + 4 * n].reshape(n, 2)
    levels = source[first + 4 * n : first + (4 + width) * n].reshape(n, width)
    maxima(nbits, levels, codes, scalars, 0, n, dots, packed, constants, best)
    total = np.float32(0)
    for j in range(LANES):
        total += best[j] * weights[j]
    scores[target] += total


@kernel
def score_records(
    numbers: Int64s, targets: Int64s, source: Bytes, at: Int64s, n_tokens: Int64s, nbits: int, width: int, dots: Int32s,
    packed: npt.NDArray[np.int8], constants: Floats, weights: Floats, scores: Floats,
) -> None:  # fmt: skip
    """Add the MaxSim of one block of lanes to the ``scores`` of the verified records ``numbers``; none for an empty one.

    Parameters
    ----------
    targets : (n,) int64
        Number of each record's score; negative: none.
    source : (n_bytes,) uint8
        Where records are, each from byte ``at (n,)`` on, of ``n_tokens (n,)`` tokens with ``width`` bytes of levels each.
    """
    best = np.empty(LANES, np.float32)
    for i in numbers:
        if n_tokens[i] and targets[i] >= 0:
            _add_record(source, at[i], n_tokens[i], nbits, width, dots, packed, constants, weights, best, scores, targets[i])


@kernel
def score_unverified(
    extents: Int64s, first_record: Int64s, documents: Int32s, firsts: Int64s, checks: npt.NDArray[np.uint32], n_centroids: int,
    damaged: Int64s, targets: Int64s, source: Bytes, at: Int64s, n_tokens: Int64s, nbits: int, width: int, dots: Int32s,
    packed: npt.NDArray[np.int8], constants: Floats, weights: Floats, scores: Floats,
) -> Any:  # fmt: skip
    """Verify the records of some extents, each scored while it is in the processor's cache; returns how many are damaged.

    Extent e has the records ``first_record[e]:first_record[e + 1]``. ``damaged (n,)`` int64 is written: records that are not
    sound, which add nothing. Others as in `score_records` and `index.kernels.records.verify_records`.
    """
    best, n_damaged = np.empty(LANES, np.float32), 0
    for extent in extents:
        for i in range(first_record[extent], first_record[extent + 1]):
            n = n_tokens[i]
            if not n or targets[i] < 0:
                continue
            record = source[at[i] : at[i] + n * (SCALAR_BYTES + width)]
            if is_sound(record, documents[i], firsts[i], n, checks[i], n_centroids):
                _add_record(source, at[i], n, nbits, width, dots, packed, constants, weights, best, scores, targets[i])
            else:
                damaged[n_damaged] = i
                n_damaged += 1
    return n_damaged


@kernel
def round_tokens(
    tokens: Floats, rotation: Floats, mean: Floats, n_lanes: int
) -> tuple[npt.NDArray[np.int8], Floats, Floats]:  # fmt: skip
    """Rotate query tokens and round each to bytes by its own scale; sums run in one order on every processor.

    Parameters
    ----------
    tokens : (n, dim) float32
    rotation : (dim, dim) float32
        The codec's.
    mean : (dim,) float32
        Of all document tokens, rotated.
    n_lanes : int
        Rows to return, at least n; those past n are zero.

    Returns
    -------
    rows : (n_lanes, dim) int8
    weights : (n_lanes,) float32
        Value of a step of the row's bytes.
    means : (n_lanes,) float32
        Product of the rotated token with ``mean``, in steps.
    """
    n, dim = tokens.shape
    rows, rotated = np.zeros((n_lanes, dim), np.int8), np.empty(dim, np.float32)
    weights, means = np.zeros(n_lanes, np.float32), np.zeros(n_lanes, np.float32)
    for i in range(n):
        rotated[:] = 0
        for d in range(dim):
            value = tokens[i, d]
            for j in range(dim):
                rotated[j] += value * rotation[d, j]
        top, product = np.float32(0), np.float32(0)
        for j in range(dim):
            top = max(top, abs(rotated[j]))
            product += rotated[j] * mean[j]
        weights[i] = top / np.float32(127)
        step = max(weights[i], np.float32(1e-12))
        means[i] = product / step
        for j in range(dim):
            rows[i, j] = np.int8(np.rint(rotated[j] / step))
    return rows, weights, means
