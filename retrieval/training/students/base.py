"""What the loop asks of a student, and what all students share: texts to token ids to hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from ...encoders.base import Side
from ...encoders.wordpieces import Wordpieces

TEXTS_PER_PASS = 32  # of like length, so that padding costs little


class Encoded(NamedTuple):
    """Encoded texts.

    Attributes
    ----------
    vectors : (n_texts, dim) or (n_texts, n_tokens, dim) float
        One vector a text, or one a token.
    mask : (n_texts, n_tokens) bool or None
        Which token vectors count; None where a text has one.
    states : (n_texts, n_tokens, hidden) float or None
        What a frozen trunk says of the tokens, from which a projection made the vectors.
    """

    vectors: Tensor
    mask: Tensor | None = None
    states: Tensor | None = None


class Student(nn.Module):
    """A network in training, with its tokenizer.

    Attributes
    ----------
    folder : Path
        The checkpoint it started from.
    config : dataclass
        How it encodes and what of it learns; of each student's own type.
    trunk : transformers model
        What ``config.freeze_trunk`` keeps as it is.
    sparse : bool
        Whether vectors are non-negative term weights, which the objective keeps sparse.
    """

    sparse = False
    config: Any
    trunk: Any

    def __init__(self, folder: Path | str) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.wordpieces = Wordpieces(self.folder)

    def train(self, mode: bool = True) -> Self:
        """Switch dropout, which a frozen trunk does without."""
        super().train(mode)
        if self.config.freeze_trunk:
            self.trunk.eval()
        return self

    def encode(self, texts: Sequence[str], side: Side) -> Encoded:
        """Encode texts with gradient, unless torch is told not to."""
        raise NotImplementedError

    def scores(self, queries: Encoded, documents: Encoded, *, in_batch: bool) -> Tensor:
        """Scores of encoded texts: dot products, unless a student knows better.

        Parameters
        ----------
        queries, documents : Encoded
            ``n`` queries, and the ``k`` documents of each, one query's after the other's.
        in_batch : bool
            Whether each query meets all documents, or only its own.

        Returns
        -------
        (n, n * k) float when ``in_batch``, else (n, k) float
        """
        if in_batch:
            return queries.vectors @ documents.vectors.T
        lists = documents.vectors.reshape(len(queries.vectors), -1, documents.vectors.shape[1])
        return torch.einsum("nd,nkd->nk", queries.vectors, lists)

    def save(self, folder: Path) -> None:
        """Write a public layout into ``folder``, which is made."""
        raise NotImplementedError


def hidden_states(
    network: Any, ids: Sequence[Sequence[int]], padding_id: int, attended: Sequence[int] | None = None
) -> list[Tensor]:
    """Run a network over texts, those of like length together.

    Parameters
    ----------
    network : transformers model
        Whose output has ``last_hidden_state``, or ``logits``.
    ids : sequence of sequence of int
        Token ids of each text, special tokens included.
    padding_id : int
    attended : sequence of int, optional
        How many of a text's first tokens others may attend to; by default all.

    Returns
    -------
    list of (len(ids[i]), hidden) float
        In the order given.
    """
    attended = [len(row) for row in ids] if attended is None else attended
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    states: list[Tensor] = [torch.empty(0)] * len(ids)
    device = next(network.parameters()).device
    for first in range(0, len(ids), TEXTS_PER_PASS):
        rows = order[first : first + TEXTS_PER_PASS]
        lengths = [len(ids[i]) for i in rows]
        padded = torch.full((len(rows), lengths[0]), padding_id)
        mask, own = torch.zeros_like(padded), torch.zeros_like(padded, dtype=torch.bool)
        for line, i in enumerate(rows):
            padded[line, : len(ids[i])] = torch.tensor(ids[i])
            mask[line, : attended[i]] = 1
            own[line, : len(ids[i])] = True
        output = network(input_ids=padded.to(device), attention_mask=mask.to(device))
        hidden = output.logits if "logits" in output else output.last_hidden_state
        # One gather for all: on the way back, a slice for each text would fill the whole with zeros as often.
        for i, state in zip(rows, hidden[own.to(device)].split(lengths), strict=True):
            states[i] = state
    return states
