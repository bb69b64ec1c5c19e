"""A BERT encoder in 8-bit integers (arXiv 1810.04805): no padding, no framework, no Python between layers.

Every matrix product is one of unsigned bytes with signed ones (`index.kernels.lanes`). Weights have a scale for each output.
Activations are rounded to bytes token by token, by the largest of each token, so that one token's outliers cost the others
nothing; keys too, values dimension by dimension, and attention's weights against the largest of their row. Sums, softmax, GELU
and layer norms are floats.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...index.kernels import sum_kernel
from ...index.kernels.dot_emitters import ROW_BITS
from ...index.kernels.dot_products import LANES, dot_rows_7, dot_rows_tame
from ...index.kernels.dot_products import dot_rows as dot_rows_8
from . import kernel

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
SignedBytes = npt.NDArray[np.int8]
Int32s = npt.NDArray[np.int32]


SIGNS, MIDDLES = np.int32(-2139062144), np.int32(0x40404040)  # 0x80808080
TOP = (1 << (ROW_BITS - 1)) - 1
"""Largest size of a rounded activation; rows come with one more added: `ROW_BITS` bits in all."""
OFFSET = TOP + 1
NOWHERE = np.float32(-1e30)
"""Score of a key that there is not."""
TOP_SHARE = 2 * TOP + 1
"""What the largest weight of attention is rounded to."""
dot_rows, dot_layer = (dot_rows_7, dot_rows_tame) if ROW_BITS == 7 else (dot_rows_8, dot_rows_8)


class Linear(NamedTuple):
    """Linear layers of one shape, those of all the network's layers stacked.

    Attributes
    ----------
    packed : (n_layers, n_out / 32, n_in / 4, 32, 4) int8
    starts : (n_layers, n_out / 32, 32) int32
        Minus `OFFSET` times the sum of each output's weights: activations come with it added.
    scales, bias : (n_layers, n_out) float32
    rest_starts, rest : (n_layers, n_out / 32 + 1) int32, (n_rest, 3) int32
        What ``packed`` lacks of the weights of each block, see `dot_products.tamed`: input, lane, and the difference.
    """

    packed: SignedBytes
    starts: Int32s
    scales: Floats
    bias: Floats
    rest_starts: Int32s
    rest: Int32s


class Layers(NamedTuple):
    """All layers of a BERT.

    Attributes
    ----------
    attended, joined, widened, narrowed : Linear
        Queries, keys and values side by side; what joins the heads; both layers of the feed-forward part.
    norms : (n_layers, 2, 2, hidden) float32
        Weight and bias of the layer norms after attention and after the feed-forward part.
    """

    attended: Linear
    joined: Linear
    widened: Linear
    narrowed: Linear
    norms: Floats


@kernel
def largest_size(row: Floats) -> np.float32:
    """Largest absolute value of a row, at least 1e-30. Floats without sign are ordered as their bits, which vectorise."""
    top = np.int32(0)
    for d in range(len(row)):
        top = max(top, np.int32(np.float32(row[d]).view(np.int32) & np.int32(0x7FFFFFFF)))
    return max(np.int32(top).view(np.float32), np.float32(1e-30))


@kernel
def largest_number(row: Floats) -> np.float32:
    """Largest number of a row: bits of negative floats are turned over, so that all are ordered as integers."""
    top = np.int32(-(1 << 31))
    for d in range(len(row)):
        bits = np.float32(row[d]).view(np.int32)
        top = max(top, np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))))
    return np.int32(top ^ ((top >> np.int32(31)) & np.int32(0x7FFFFFFF))).view(np.float32)


@kernel
def round_rows(x: Floats, n: int, first: int, last: int, rows: Bytes, steps: Floats) -> None:
    """Round columns ``first`` to ``last`` of ``n`` rows of ``x`` to bytes, `OFFSET` added, each row by a step of its own."""
    middle = np.float32(OFFSET + 0.5)
    for t in range(n):
        row, out = x[t, first:last], rows[t]
        top = largest_size(row)
        steps[t] = top / np.float32(TOP)
        inverse = np.float32(TOP) / top
        for d in range(len(row)):
            out[d] = np.uint8(np.int32(row[d] * inverse + middle))


@kernel
def block_sums(rows: Bytes, layer: Linear, number: int, block: int, sums: Int32s) -> None:
    """Products of rounded rows with one block of a layer's weights, (n, 32)."""
    dot_layer(rows, layer.packed[number, block], layer.starts[number, block], sums)
    for i in range(layer.rest_starts[number, block], layer.rest_starts[number, block + 1]):
        d, lane, more = layer.rest[i, 0], layer.rest[i, 1], layer.rest[i, 2]
        for t in range(len(rows)):
            sums[t, lane] += np.int32(rows[t, d]) * more


@kernel
def linear(x: Floats, layer: Linear, number: int, scratch: Bytes, out: Floats) -> None:
    """``out = x W' + b`` for one of the stacked layers: x (n, n_in), out (n, n_out), scratch of n * n_in bytes or more."""
    rows, steps = scratch[: x.size].reshape(x.shape), np.empty(len(x), np.float32)
    round_rows(x, len(x), 0, x.shape[1], rows, steps)
    sums = np.empty((len(x), LANES), np.int32)
    for block in range(layer.packed.shape[1]):
        block_sums(rows, layer, number, block, sums)
        at = LANES * block
        scales, bias = layer.scales[number, at : at + LANES], layer.bias[number, at : at + LANES]
        for t in range(len(x)):
            for j in range(LANES):
                out[t, at + j] = np.float32(sums[t, j]) * (steps[t] * scales[j]) + bias[j]


@sum_kernel
def layer_norm(x: Floats, weight: Floats, bias: Floats, epsilon: float) -> None:
    """Normalise each row in place."""
    n = np.float32(x.shape[1])
    for t in range(len(x)):
        total, square = np.float32(0), np.float32(0)
        for d in range(x.shape[1]):
            total += x[t, d]
        mean = total / n
        for d in range(x.shape[1]):
            offset = x[t, d] - mean
            square += offset * offset
        inverse = np.float32(1) / np.sqrt(square / n + np.float32(epsilon))
        for d in range(x.shape[1]):
            x[t, d] = (x[t, d] - mean) * inverse * weight[d] + bias[d]


@kernel
def gelu(x: Floats) -> None:
    """``x (1 + erf(x / sqrt 2)) / 2`` in place; erf as a ratio of polynomials, off by no more than 5e-7."""
    flat = x.reshape(-1)
    limit, half = np.float32(4), np.float32(0.5)
    for i in range(len(flat)):
        z = flat[i] * np.float32(0.7071067811865476)
        z = limit if z > limit else (-limit if z < -limit else z)
        s = z * z
        p = np.float32(-2.72614225801306e-10)
        p = p * s + np.float32(2.77068142495902e-08)
        p = p * s + np.float32(-2.10102402082508e-06)
        p = p * s + np.float32(-5.69250639462346e-05)
        p = p * s + np.float32(-7.34990630326855e-04)
        p = p * s + np.float32(-2.95459980854025e-03)
        p = p * s + np.float32(-1.60960333262415e-02)
        q = np.float32(-1.45660718464996e-05)
        q = q * s + np.float32(-2.13374055278905e-04)
        q = q * s + np.float32(-1.68282697438203e-03)
        q = q * s + np.float32(-7.37332916720468e-03)
        q = q * s + np.float32(-1.42647390514189e-02)
        flat[i] = flat[i] * half * (np.float32(1) + z * p / q)


@kernel
def exponential(x: np.float32) -> np.float32:
    """``exp(x)`` of a number <= 0, to 4e-6 of its value.

    It is ``2^round(z)``, made of exponent bits, times a polynomial of the rest.
    """
    z = max(x, np.float32(-80)) * np.float32(1.4426950408889634)
    whole = np.floor(z + np.float32(0.5))
    f = z - whole
    p = np.float32(1.5403530e-4)
    p = p * f + np.float32(1.3333558e-3)
    p = p * f + np.float32(9.6181291e-3)
    p = p * f + np.float32(5.5504109e-2)
    p = p * f + np.float32(2.4022651e-1)
    p = p * f + np.float32(6.9314718e-1)
    p = p * f + np.float32(1)
    power: np.float32 = p * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)
    return power


@kernel
def pack_keys(rows: Bytes, n: int, packed: Int32s, starts: Int32s) -> None:
    """Make lanes of ``n`` rounded rows with `OFFSET` added: packed (blocks, dim / 4, 32), words of four signed bytes."""
    starts[:] = 0
    packed[:] = 0
    words = rows.view(np.int32)
    for t in range(n):
        block, lane, total = t // LANES, t % LANES, np.int32(0)
        row = rows[t]
        for d in range(len(row)):
            total += np.int32(row[d]) - np.int32(OFFSET)
        starts[block, lane] = np.int32(-OFFSET) * total
        for w in range(words.shape[1]):  # less by the offset, byte by byte
            word = words[t, w] if OFFSET == 128 else (words[t, w] | SIGNS) - MIDDLES
            packed[block, w, lane] = word ^ SIGNS


@kernel
def pack_values(x: Floats, n: int, first: int, packed: Int32s, steps: Floats) -> None:
    """Round values, columns of ``x`` from ``first`` on, to signed bytes, each by a step of its own; columns are lanes.

    ``packed`` (blocks, n / 4, 32) are words of four rows' bytes; ``steps`` (n_columns,) is written.
    """
    packed[:] = 0
    steps[:] = np.float32(1e-30)
    inverses = np.empty_like(steps)
    for t in range(n):
        row = x[t][first : first + len(steps)]
        for d in range(len(row)):
            steps[d] = max(steps[d], abs(row[d]))
    for d in range(len(steps)):
        steps[d] = steps[d] / np.float32(127)
        inverses[d] = np.float32(1) / steps[d]
    for t in range(n):
        row, shift = x[t][first : first + len(steps)], np.int32(8 * (t % 4))
        for block in range(len(packed)):
            words, at = packed[block, t // 4], LANES * block
            for j in range(min(LANES, len(row) - at)):
                byte = np.int32(row[at + j] * inverses[at + j] + np.float32(128.5)) ^ np.int32(128)
                words[j] |= byte << shift


@kernel
def attend(mixed: Floats, n_keys: int, n_heads: int, out: Floats) -> None:
    """Attention of all tokens to the first ``n_keys``: mixed (n, 3 hidden), queries, keys and values; out (n, hidden)."""
    n, hidden = out.shape
    dim = hidden // n_heads
    n_blocks = (n_keys + LANES - 1) // LANES
    n_wide = n_blocks * LANES  # loops of whole vectors are several times as fast as their remainders
    key_words, key_starts = np.empty((n_blocks, dim // 4, LANES), np.int32), np.empty((n_blocks, LANES), np.int32)
    value_words = np.empty(((dim + LANES - 1) // LANES, n_wide // 4, LANES), np.int32)
    key_lanes = key_words.view(np.int8).reshape(n_blocks, dim // 4, LANES, 4)
    value_lanes = value_words.view(np.int8).reshape(len(value_words), n_wide // 4, LANES, 4)
    key_steps, value_steps = np.zeros(n_wide, np.float32), np.empty(dim, np.float32)
    rows, steps, zeros = np.empty((n, dim), np.uint8), np.empty(n, np.float32), np.zeros(LANES, np.int32)
    scores = np.empty((n, n_wide), np.float32)
    shares, totals = np.empty((n, n_wide), np.uint8), np.empty(n, np.float32)
    sums = np.empty((n, LANES), np.int32)
    root = np.float32(1 / np.sqrt(dim))
    for head in range(n_heads):
        at = head * dim
        round_rows(mixed, n_keys, hidden + at, hidden + at + dim, rows, key_steps)
        pack_keys(rows, n_keys, key_words, key_starts)
        pack_values(mixed, n_keys, 2 * hidden + at, value_words, value_steps)
        round_rows(mixed, n, at, at + dim, rows, steps)
        for block in range(n_blocks):
            dot_rows(rows, key_lanes[block], key_starts[block], sums)
            for t in range(n):
                for j in range(LANES):
                    key = LANES * block + j
                    scores[t, key] = np.float32(sums[t, j]) * (steps[t] * root * key_steps[key])
        for t in range(n):
            scores[t, n_keys:] = NOWHERE
            totals[t] = softmax(scores[t], shares[t])
        for block in range(len(value_lanes)):
            dot_rows(shares, value_lanes[block], zeros, sums)
            for t in range(n):
                for j in range(min(LANES, dim - LANES * block)):
                    out[t, at + LANES * block + j] = np.float32(sums[t, j]) * value_steps[LANES * block + j] / totals[t]


@kernel
def softmax(scores: Floats, shares: Bytes) -> np.float32:
    """Weights of one row as bytes, the largest `TOP_SHARE`; returns their sum."""
    top, count = largest_number(scores), np.int32(0)
    for j in range(len(scores)):
        share = np.int32(exponential(scores[j] - top) * np.float32(TOP_SHARE) + np.float32(0.5))
        shares[j] = np.uint8(share)
        count = np.int32(count + share)
    return np.float32(count)


@kernel
def run_layers(x: Floats, layers: Layers, ends: Int32s, n_keys: Int32s, n_heads: int, epsilon: float) -> None:
    """Run all layers over the embeddings (n, hidden) of some texts, end to end, in place.

    ``ends`` (n_texts,) int32 is where each text ends, ``n_keys`` how many of its first tokens are attended to. Short texts go
    together, as weights are then read once for all; each gets the numbers that it gets alone.
    """
    n, hidden = x.shape
    mixed, context = np.empty((n, 3 * hidden), np.float32), np.empty((n, hidden), np.float32)
    wide, added = np.empty((n, layers.widened.bias.shape[1]), np.float32), np.empty((n, hidden), np.float32)
    scratch = np.empty(max(wide.size, added.size), np.uint8)
    for number in range(len(layers.norms)):
        norms = layers.norms[number]
        linear(x, layers.attended, number, scratch, mixed)
        first = 0
        for i in range(len(ends)):
            attend(mixed[first : ends[i]], n_keys[i], n_heads, context[first : ends[i]])
            first = ends[i]
        linear(context, layers.joined, number, scratch, added)
        add(x, added)
        layer_norm(x, norms[0, 0], norms[0, 1], epsilon)
        linear(x, layers.widened, number, scratch, wide)
        gelu(wide)
        linear(wide, layers.narrowed, number, scratch, added)
        add(x, added)
        layer_norm(x, norms[1, 0], norms[1, 1], epsilon)


@kernel
def add(x: Floats, y: Floats) -> None:
    """``x += y``, row by row."""
    for t in range(len(x)):
        for d in range(x.shape[1]):
            x[t, d] += y[t, d]


@sum_kernel
def dot_weights(x: Floats, weights: SignedBytes) -> np.float32:
    """Dot product of floats with signed bytes."""
    total = np.float32(0)
    for d in range(len(x)):
        total += x[d] * np.float32(weights[d])
    return total


@kernel
def pool_terms(x: Floats, layer: Linear, rows_of_terms: SignedBytes, margin: float, out: Floats) -> None:
    """Largest logit of each term over the tokens of one text, where above zero; else 0.

    Which token is largest is found in integers; the logit, unless it is below ``-margin``, is then computed again from the
    token's floats, so that weights have no error of rounding.

    Parameters
    ----------
    x : (n, hidden) float32
    layer : Linear
        The vocabulary layer, outputs filled up to a multiple of 32.
    rows_of_terms : (n_terms, hidden) int8
        Its weights, a row a term.
    out : (n_terms,) float32
    """
    rows, steps = np.empty(x.shape, np.uint8), np.empty(len(x), np.float32)
    round_rows(x, len(x), 0, x.shape[1], rows, steps)
    sums = np.empty((len(x), LANES), np.int32)
    tops, tokens = np.empty(LANES, np.float32), np.empty(LANES, np.int32)
    for block in range(layer.packed.shape[1]):
        block_sums(rows, layer, 0, block, sums)
        tops[:] = np.float32(-1e30)
        for t in range(len(x)):
            for j in range(LANES):
                value = np.float32(sums[t, j]) * steps[t]
                better = value > tops[j]
                tops[j] = value if better else tops[j]
                tokens[j] = np.int32(t) if better else tokens[j]
        for j in range(min(LANES, len(out) - LANES * block)):
            term = LANES * block + j
            scale, bias = layer.scales[0, term], layer.bias[0, term]
            out[term] = 0
            if tops[j] * scale + bias > -margin:
                out[term] = max(np.float32(0), dot_weights(x[tokens[j]], rows_of_terms[term]) * scale + bias)
