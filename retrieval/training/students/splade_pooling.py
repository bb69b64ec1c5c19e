"""SPLADE's pooled logits without a (batch, tokens, vocabulary) tensor, in either direction.

``z_bj = relu(max_i (h_i . W_j + c_j))`` over the tokens ``i`` of text ``b``. Only a text's (term, arg-max token) pairs with
``z > 0`` have a gradient, some hundreds of the tokens x 30,522. Forward, blocks of terms are multiplied, reduced and dropped,
and the pairs noted. Backward, the gradient of the logits is a sparse (tokens, terms) matrix ``G`` with an entry a pair, and
``dh = G W``, ``dW = G^T h``, ``dc = sum_i G_i``. Values and gradients are those of the full computation, in which relu and a
maximum over positions pass the gradient to the same pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

TOKENS_PER_GROUP = 256
TERMS_PER_BLOCK = 2048  # with the tokens: 2 MB of logits, which stay in cache


def positive_maxima(features: Tensor, lengths: Sequence[int], weight: Tensor, bias: Tensor) -> Tensor:
    """Largest logit of each term over each text's tokens, where above zero.

    Parameters
    ----------
    features : (n_tokens, hidden) float
        What the vocabulary layer sees of all texts, end to end.
    lengths : sequence of int
        Tokens of each text, >= 1; their sum is ``n_tokens``.
    weight : (n_terms, hidden) float
    bias : (n_terms,) float

    Returns
    -------
    (n_texts, n_terms) float32
        Under autocast the products are in its dtype.
    """
    pooled: Tensor = _PositiveMaxima.apply(features, weight, bias, list(lengths))  # type: ignore[no-untyped-call]
    return pooled


class _PositiveMaxima(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, lengths: list[int]) -> Tensor:
        kind = features.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else features.dtype
        spans = list(zip(accumulate(lengths, initial=0), accumulate(lengths), strict=False))
        pooled = features.new_zeros(len(lengths), len(weight), dtype=torch.float32)
        pairs: list[Tensor] = []
        for first in range(0, len(weight), TERMS_PER_BLOCK):
            block = slice(first, first + TERMS_PER_BLOCK)
            layer = weight[block].to(dtype), bias[block].to(dtype)
            for group in _groups(spans):
                start = spans[group[0]][0]
                logits = torch.nn.functional.linear(features[start : spans[group[-1]][1]].to(dtype), *layer)
                for row in group:
                    own = logits[spans[row][0] - start : spans[row][1] - start]
                    maxima = own.amax(0)
                    terms = (maxima > 0).nonzero().squeeze(1)
                    tokens = own.index_select(1, terms).argmax(0) + spans[row][0]
                    pooled[row, block] = maxima.relu_()
                    pairs.append(torch.stack([torch.full_like(terms, row), terms + first, tokens]))
        ctx.save_for_backward(features, weight, torch.cat(pairs, 1))
        return pooled

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        features, weight, pairs = ctx.saved_tensors
        rows, terms, tokens = pairs
        values = grads[0][rows, terms].float()
        # Each pair is there once: a term has one arg-max in a text, and texts share no token.
        matrix = torch.sparse_coo_tensor(
            torch.stack([tokens, terms]), values, (len(features), len(weight)), check_invariants=False
        )
        of_features = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_features = torch.sparse.mm(matrix, weight.float()).to(features.dtype)
        if ctx.needs_input_grad[1]:
            of_weight = torch.sparse.mm(matrix.t(), features.float()).to(weight.dtype)
        if ctx.needs_input_grad[2]:
            of_bias = torch.zeros(len(weight), device=weight.device).index_add_(0, terms, values)
        return of_features, of_weight, of_bias, None


def _groups(spans: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Numbers of neighbouring texts that fill a group of tokens: a matrix product of one short text is slow."""
    groups: list[list[int]] = [[]]
    for row, (_, end) in enumerate(spans):
        if groups[-1] and end - spans[groups[-1][0]][0] > TOKENS_PER_GROUP:
            groups.append([])
        groups[-1].append(row)
    return groups
