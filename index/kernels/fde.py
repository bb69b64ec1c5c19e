"""Fixed dimensional encodings: token vectors of a text, cell by cell, into one vector (arXiv 2405.19504).

Tokens of all texts come end to end; those of text i are ``offsets[i]:offsets[i + 1]``. Products of tokens with planes or
centroids come from BLAS. Sums go over tokens and coordinates in their order, so a text's numbers depend on no other text.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import Intrinsic, kernel, kernel_or, sum_kernel
from .dot_products import LANES

Floats = npt.NDArray[np.float32]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
SUMMED = 2 * LANES
"""Tokens that are projected together: enough sums to hide the latency of additions, few enough to stay in the first cache."""


@kernel
def sign_cells(products: Floats, n_planes: Any, cells: Int32s) -> None:
    """Number the cells of SimHash: the Gray code of the signs of ``n_planes`` products, the first the highest bit.

    products (n_repetitions * n_planes, T), cells (n_repetitions, T).
    """
    for r in range(cells.shape[0]):
        out = cells[r]
        for t in range(len(out)):
            out[t] = 0
        for i in range(n_planes):
            row = products[r * n_planes + i]
            for t in range(len(out)):
                out[t] = 2 * out[t] + ((np.int32(1) if row[t] > 0 else np.int32(0)) ^ (out[t] & 1))


@kernel
def _bits_apart(first: Any, second: Any) -> Any:
    """Count the differing bits of two Gray codes: those of their signs."""
    x, n = (first ^ (first >> 1)) ^ (second ^ (second >> 1)), 0
    while x:
        x &= x - 1
        n += 1
    return n


def _emit_signed_sums(context: Any, columns: Any, starts: Any, coordinates: Any, signs: Any, n: Any, out: Any) -> Any:
    from .fde_emitters import signed_sums

    return signed_sums(context, columns, starts, coordinates, signs, n, out)


_signed_sums = Intrinsic(_emit_signed_sums)


def _signed_sums_compiled(columns: Floats, starts: Int32s, coordinates: Int32s, signs: Floats, out: Floats) -> None:
    _signed_sums(
        columns.ctypes.data, starts.ctypes.data, coordinates.ctypes.data, signs.ctypes.data, len(out), out.ctypes.data
    )  # fmt: skip


def signed_sums_plain(columns: Floats, starts: Int32s, coordinates: Int32s, signs: Floats, out: Floats) -> None:
    """Plain loops of `signed_sums`: what it is proven against, and its stand-in without compilation."""
    for j in range(len(out)):
        out[j] = 0
        for i in range(starts[j], starts[j + 1]):
            for lane in range(SUMMED):
                out[j, lane] += signs[i] * columns[coordinates[i], lane]


signed_sums = kernel_or(signed_sums_plain)(_signed_sums_compiled)
"""``out[j]`` = sum of ``signs[i] * columns[coordinates[i]]`` for i in ``starts[j]:starts[j + 1]``, in that order.

columns (dim, 64) and out (n, 64) float32, starts (n + 1,) and coordinates (dim,) int32, signs (dim,) float32, 1 or -1.
"""


@kernel
def simhash_encode(
    tokens: Floats, offsets: Int64s, cells: Int32s, n_cells: Any, starts: Int32s, coordinates: Int32s, signs: Floats,
    is_query: Any, out: Floats,
) -> None:  # fmt: skip
    """Sum (queries) or average (documents) the projected tokens of each cell, in each repetition.

    Parameters
    ----------
    tokens : (T, dim) float32
    offsets : (n + 1,) int64
    cells : (n_repetitions, T) int32
    n_cells : int
    starts, coordinates, signs : (n_repetitions, inner + 1) int32, (n_repetitions, dim) int32 and float32
        Inner projection: number j is the sum of ``coordinates[r, starts[r, j]:starts[r, j + 1]]`` with their signs.
    is_query : bool
        Sums, and cells without tokens stay zero; else means, and a cell without tokens takes the document's first token that
        the fewest bits part from it.
    out : (n, n_repetitions * n_cells * inner) float32, zeros
    """
    dim, n_repetitions, inner = tokens.shape[1], cells.shape[0], starts.shape[1] - 1
    longest = 1
    for i in range(len(out)):
        longest = max(longest, offsets[i + 1] - offsets[i])
    columns = np.zeros((dim, SUMMED), np.float32)
    projected = np.empty((n_repetitions, -(-longest // SUMMED), inner, SUMMED), np.float32)
    counts, leaders = np.empty(n_cells, np.int32), np.empty(n_cells, np.int64)
    for i in range(len(out)):
        first, n = offsets[i], offsets[i + 1] - offsets[i]
        rows = out[i].reshape(n_repetitions, n_cells, inner)
        for block in range(-(-n // SUMMED)):
            begin = block * SUMMED
            for lane in range(min(n - begin, SUMMED)):
                for d in range(dim):
                    columns[d, lane] = tokens[first + begin + lane, d]
            for r in range(n_repetitions):
                signed_sums(columns, starts[r], coordinates[r], signs[r], projected[r, block])
        for r in range(n_repetitions if n else 0):
            counts[:] = 0
            for block in range(-(-n // SUMMED)):
                begin, lanes = block * SUMMED, projected[r, block]
                for lane in range(min(n - begin, SUMMED)):
                    cell = cells[r, first + begin + lane]
                    if counts[cell] == 0:
                        leaders[cell] = begin + lane
                    counts[cell] += 1
                    for j in range(inner):
                        rows[r, cell, j] += lanes[j, lane]
            if not is_query:
                _finish_means(rows[r], counts, leaders, projected[r])


@kernel
def _finish_means(rows: Floats, counts: Int32s, leaders: Int64s, projected: Floats) -> None:
    """Divide sums by counts; a cell without tokens takes the first of those that the fewest bits part from it."""
    for cell in range(len(counts)):
        row = rows[cell]
        if counts[cell] > 0:
            for j in range(len(row)):
                row[j] /= np.float32(counts[cell])
        else:
            nearest, fewest = np.int64(0), 1 << 30
            for other in range(len(counts)):
                if counts[other] > 0:
                    apart = _bits_apart(np.int32(other), np.int32(cell))
                    if apart < fewest or (apart == fewest and leaders[other] < nearest):
                        nearest, fewest = leaders[other], apart
            for j in range(len(row)):
                row[j] = projected[nearest // SUMMED, j, nearest % SUMMED]


@kernel
def count_sketch(vectors: Floats, targets: Int32s, signs: Floats, out: Floats) -> None:
    """Add coordinate d of each vector (n, D) to ``out[:, targets[d]]`` with its sign; ``out`` (n, final) is zero."""
    for i in range(len(vectors)):
        for d in range(vectors.shape[1]):
            out[i, targets[d]] += signs[d] * vectors[i, d]


@kernel
def nearest_cells(near: Floats, cells: Int32s) -> None:
    """Write each token's most similar centroid, the first of equals: near (T, n_cells), cells (T,)."""
    for t in range(len(near)):
        best = np.int32(0)
        for c in range(1, near.shape[1]):
            if near[t, c] > near[t, best]:
                best = np.int32(c)
        cells[t] = best


@kernel
def cell_sums(tokens: Floats, offsets: Int64s, cells: Int32s, out: Floats) -> None:
    """Sum the tokens of each text in each cell: ``out`` (n, n_cells, dim) is zero."""
    for i in range(len(out)):
        for t in range(offsets[i], offsets[i + 1]):
            row = out[i, cells[t]]
            for d in range(tokens.shape[1]):
                row[d] += tokens[t, d]


@kernel
def cell_means(tokens: Floats, offsets: Int64s, near: Floats, cells: Int32s, out: Floats) -> None:
    """Average the tokens of each document in each cell; a cell without any takes the token nearest to its centroid.

    tokens (T, dim), near (T, n_cells), cells (T,), out (n, n_cells, dim) zero; a document without tokens stays zero.
    """
    n_cells, dim = out.shape[1], out.shape[2]
    counts, nearest = np.empty(n_cells, np.int32), np.empty(n_cells, np.int64)
    for i in range(len(out)):
        first, last = offsets[i], offsets[i + 1]
        if first == last:
            continue
        counts[:] = 0
        nearest[:] = first
        for t in range(first, last):
            row = out[i, cells[t]]
            counts[cells[t]] += 1
            for d in range(dim):
                row[d] += tokens[t, d]
            for c in range(n_cells):
                if near[t, c] > near[nearest[c], c]:
                    nearest[c] = t
        for c in range(n_cells):
            row = out[i, c]
            if counts[c] > 0:
                share = np.float32(1) / np.float32(counts[c])
                for d in range(dim):
                    row[d] *= share
            else:
                for d in range(dim):
                    row[d] = tokens[nearest[c], d]


@sum_kernel
def text_maxima(products: Floats, offsets: Int64s, out: Floats) -> None:
    """Write each text's largest product with each sample, 0 without tokens: products (n_samples, T), out (n_samples, n)."""
    for s in range(len(out)):
        row, base = products[s], offsets[0]
        for i in range(out.shape[1]):
            first, last = offsets[i] - base, offsets[i + 1] - base
            most = row[first] if first < last else np.float32(0)
            for t in range(first + 1, last):
                most = max(most, row[t])
            out[s, i] = most
