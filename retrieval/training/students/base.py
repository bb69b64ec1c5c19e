"""What the loop asks of a student, and what all students share: texts to token ids to hidden states."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from ...encoders.base import Side
from ...encoders.checkpoints.files import read_json
from ...encoders.checkpoints.tokenizer_files import has_tokenizer
from ...encoders.checkpoints.transformer import length_limit
from ...encoders.wordpieces import Wordpieces
from .folders import copy_tokenizer

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

    Parameters
    ----------
    root : Path
        The checkpoint it starts from.
    folder : Path
        Where the checkpoint's network is.
    tokenizer : Path, optional
        Where its tokenizer is; by default with the network, or in the root.
    lowercase : bool
        Lower-case texts even if the tokenizer would not.

    Attributes
    ----------
    root, folder, tokenizer : Path
    limit : int
        Tokens that the network reads at most.
    config : dataclass
        How it encodes and what of it learns, with what the checkpoint states filled in; of each student's own type.
    trunk : transformers model
        What ``config.freeze_trunk`` keeps as it is.
    sparse : bool
        Whether vectors are non-negative term weights, which the objective keeps sparse.
    """

    sparse = False
    config: Any
    trunk: Any

    def __init__(self, root: Path, folder: Path, *, tokenizer: Path | None = None, lowercase: bool = False) -> None:
        super().__init__()
        self.root, self.folder, self.lowercase = root, folder, lowercase
        self.tokenizer = tokenizer or (folder if has_tokenizer(folder) else root)
        self.wordpieces = Wordpieces(self.tokenizer, lowercase=lowercase)
        self.limit = length_limit(folder, read_json(folder / "config.json"))
        self._has_markers = False

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        found: torch.device = next(self.parameters()).device
        return found

    def check_lengths(self) -> None:
        """Raise ValueError when texts may be longer than the network has positions."""
        longest = max(self.config.query_length, self.config.document_length)
        if longest > self.limit:
            raise ValueError(f"a length is {longest}, but the model reads {self.limit} tokens at most")

    def freeze(self) -> None:
        """Keep what the configuration has kept: the word embeddings, or the whole trunk."""
        if self.config.freeze_embeddings:
            self.trunk.get_input_embeddings().weight.requires_grad_(False)
        if self.config.freeze_trunk:
            self.trunk.requires_grad_(False)

    def register_markers(self, *prompts: str | None) -> None:
        """Read tokens of the vocabulary that stand in a prompt in square brackets whole, as "[unused0]", and save them so."""
        found = re.findall(r"\[[^\]\s]+\]", "".join(prompt or "" for prompt in prompts))
        if markers := [token for token in dict.fromkeys(found) if token in self.wordpieces.tokens]:
            self.wordpieces.add_specials(markers)
            self._has_markers = True

    def save_tokenizer(self, folder: Path) -> None:
        """Write the tokenizer into ``folder``, which is made, with the markers that it reads whole."""
        copy_tokenizer(self.tokenizer, folder)
        if self._has_markers:
            self.wordpieces.save(folder / "tokenizer.json")

    def length_options(self) -> dict[str, Any]:
        """How texts are cut and lower-cased, as sentence_bert_config.json has it."""
        query, document = self.config.query_length, self.config.document_length
        own = {} if query == document else {"query_length": query}
        return {"max_seq_length": document, "do_lower_case": self.lowercase, **own}

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


def filled(config: Any, stated: Mapping[str, Any], limit: int) -> Any:
    """Fill in what a configuration leaves open by what a checkpoint states, lengths up to a limit."""
    found = {name: value for name, value in stated.items() if getattr(config, name) is None}
    return replace(config, **{name: min(value, limit) if name.endswith("_length") else value for name, value in found.items()})


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
