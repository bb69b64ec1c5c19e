"""A useful start for a new vocabulary head: it first learns to name the token that it stands on.

A head at random says nothing of the vocabulary, and distillation would spend its steps on finding the words. So the layers
before the vocabulary start as the identity, some steps of cross-entropy make each position name its own token, and bias and
scale are set for sparse vectors: about `TERMS_PER_TOKEN` logits of a position are above zero, and the largest is `LARGEST`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from .splade import SpladeStudent

N_TEXTS = 2_000
TOKENS_PER_STEP = 1_024
TERMS_PER_TOKEN = 12
LARGEST = 5.0
RATE = 2e-3


def start_head(student: SpladeStudent, texts: Sequence[str], *, n_steps: int = 150, seed: int = 0) -> None:
    """Teach the new head of a student with a frozen trunk to name tokens, then make its logits sparse.

    Parameters
    ----------
    student : SpladeStudent
        Its head's weights change.
    texts : sequence of str
        Documents; some hundreds are enough.
    n_steps, seed : int

    Raises
    ------
    ValueError
        When there is no text.
    """
    ids = [i for row in student.token_ids(texts, "document") for i in row]
    if not ids:
        raise ValueError("a new head needs texts to start on")
    layers = list(student.head_layers())
    for layer in layers:
        _reset(layer)
    nn.init.zeros_(student.decoder.bias)
    with torch.no_grad(), torch.autocast(student.device.type, torch.bfloat16):
        states = torch.cat(student.states(texts, "document"))
    named = torch.tensor(
        [i not in student.wordpieces.special_ids and not student.wordpieces.tokens[i].startswith("[") for i in ids]
    )
    states, tokens = states[named.to(states.device)], torch.tensor(ids)[named].to(states.device)
    parameters = [p for layer in layers for p in layer.parameters()] + [student.decoder.bias]
    optimizer = torch.optim.AdamW(parameters, lr=RATE)
    generator = torch.Generator().manual_seed(seed)
    weight = student.decoder.weight.detach().bfloat16()
    for step in range(n_steps):
        picks = torch.randint(len(tokens), (TOKENS_PER_STEP,), generator=generator).to(states.device)
        logits = student.head(states[picks]).bfloat16() @ weight.T
        loss = nn.functional.cross_entropy(logits.float() + student.decoder.bias, tokens[picks])
        for group in optimizer.param_groups:
            group["lr"] = RATE * (n_steps - step) / n_steps
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    picks = torch.randint(len(tokens), (2 * TOKENS_PER_STEP,), generator=generator).to(states.device)
    _make_sparse(student, layers, states[picks])


def _reset(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.eye_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.LayerNorm):
        layer.reset_parameters()


@torch.no_grad()
def _make_sparse(student: SpladeStudent, layers: Sequence[nn.Module], states: torch.Tensor) -> None:
    """Shift and scale all logits; the last layer before the vocabulary is a LayerNorm in all BERTs."""
    logits = student.head(states) @ student.decoder.weight.T + student.decoder.bias
    shift = logits.topk(TERMS_PER_TOKEN, dim=1).values[:, -1].mean()
    factor = LARGEST / (logits.max() - shift)
    student.decoder.bias.sub_(shift).mul_(factor)
    norm = [layer for layer in layers if isinstance(layer, nn.LayerNorm)][-1]
    for parameter in norm.parameters():
        parameter.mul_(factor)
