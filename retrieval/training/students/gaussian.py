"""Gaussian students: each text a normal distribution, compared by -KL(query || document) (MRL, arXiv 2304.14522)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import softplus

from ....index.errors import RepresentationError
from ...encoders.base import Side
from ...encoders.checkpoints.gaussian import HEAD, POOLINGS, GaussianLayout, read_gaussian_layout
from ...encoders.gaussian import MIN_VARIANCE, states_read
from ...encoders.networks.loading import quiet_transformers, read_tensors
from .base import Encoded, Student, filled, hidden_states
from .folders import load_trunk, write_json
from .starts import network_folder, takes_layout
from .trunk_states import StateCache, frozen_states

PLAIN = {
    "n_dims": 127, "beta": 2.5, "pooling": "cls", "query_length": 64, "document_length": 256, "query_marker": "[unused0]",
    "document_marker": "[unused1]",
}  # fmt: skip
"""What a student of a plain transformer has where its configuration leaves it open; 127 dimensions make 256 numbers."""
MOMENTUM = 0.05
"""Share of a batch in the running mean and variance of documents' numbers."""


@dataclass(frozen=True, kw_only=True)
class GaussianStudentConfig:
    """How a gaussian student encodes and what of it learns. None leaves the checkpoint's choice, or `PLAIN`.

    Attributes
    ----------
    n_dims : int
        Of a distribution; a vector of the index has 2 n_dims + 2 numbers.
    beta : float
        Of the softplus that makes variances positive.
    pooling : {"cls", "mean"}
        What the layers read: the states of [CLS] and of the token after it, as published, or the mean of all states, which
        a trunk that was trained for tokens and does not learn needs.
    query_length, document_length : int
        Tokens of a text that are read, special tokens included.
    query_marker, document_marker : str
        Token after [CLS] whose state gives the variances: of a BERT, one that it has not seen.
    ignore_layout : bool
        Take the network of a checkpoint alone, whatever else its files state.
    freeze_embeddings, freeze_trunk : bool
        Keep the word embeddings, or all but the two linear layers.
    seed : int
        Of the two layers' start.
    """

    n_dims: int | None = None
    beta: float | None = None
    pooling: Literal["cls", "mean"] | None = None
    query_length: int | None = None
    document_length: int | None = None
    query_marker: str | None = None
    document_marker: str | None = None
    ignore_layout: bool = False
    freeze_embeddings: bool = False
    freeze_trunk: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_dims is not None and self.n_dims < 1:
            raise ValueError(f"n_dims is {self.n_dims}: it must be >= 1")
        if self.beta is not None and not 0 < self.beta < math.inf:
            raise ValueError(f"beta is {self.beta}: it must be > 0")
        if self.pooling not in (None, *POOLINGS):
            raise ValueError(f"pooling is {self.pooling!r}: it must be 'cls' or 'mean'")
        if any(length is not None and length < 4 for length in (self.query_length, self.document_length)):
            raise ValueError("lengths must leave room beside the special tokens, >= 4")


class GaussianStudent(Student):
    """A transformer trunk and two linear layers.

    Parameters
    ----------
    folder : Path or str
        A gaussian model, or a checkpoint of any BERT-like trunk, with or without a head.
    config : GaussianStudentConfig

    Raises
    ------
    RepresentationError
        When the trunk cannot be read whole, the checkpoint is of another kind, or its tokenizer lacks a token.
    ValueError
        When a length is beyond the network's positions.
    """

    centre: Tensor
    square: Tensor
    n_seen: Tensor

    def __init__(self, folder: Path | str, config: GaussianStudentConfig | None = None) -> None:
        root, config = Path(folder), config or GaussianStudentConfig()
        layout = read_gaussian_layout(root) if takes_layout(root, "gaussian", ignore_layout=config.ignore_layout) else None
        if layout is None:
            super().__init__(root, network_folder(root))
        else:
            super().__init__(root, layout.text.folder, tokenizer=layout.text.tokenizer, lowercase=layout.text.lowercase)
        self.trunk = load_trunk(self.folder)
        self.config = filled(config, PLAIN if layout is None else _stated(layout), self.limit)
        self.check_lengths()
        tokens = sorted({self.config.query_marker, self.config.document_marker})
        if unknown := [token for token in tokens if self.wordpieces.token_id(token) is None]:
            raise RepresentationError(
                f"{self.tokenizer}: no token {unknown[0]!r}: set query_marker and document_marker to others"
            )
        self.wordpieces.add_specials(tokens)
        hidden, n_dims = self.trunk.config.hidden_size, self.config.n_dims
        self.mean, self.variance = (nn.Linear(hidden, n_dims, bias=False) for _ in range(2))
        self.register_buffer("centre", torch.zeros(2 * n_dims + 1))
        self.register_buffer("square", torch.ones(2 * n_dims + 1))
        self.register_buffer("n_seen", torch.zeros((), dtype=torch.long))
        self._start(layout)
        self.freeze()
        self.cache: StateCache | None = None

    def encode(self, texts: Sequence[str], side: Side) -> Encoded:
        """Means and variances, (n_texts, 2 n_dims) float32."""
        settings = asdict(self.config)
        marked = [settings[f"{side}_marker"] + text for text in texts]
        states = self._states(marked, settings[f"{side}_length"])
        # Under autocast too the two layers are float32: variances differ by factors.
        with torch.autocast(self.device.type, enabled=False):
            for_means, for_variances = states_read(states, self.config.pooling, len(self.wordpieces.head))
            means, activations = self.mean(for_means), self.variance(for_variances)
            vectors = torch.cat([means, softplus(activations, beta=self.config.beta).clamp_min(MIN_VARIANCE)], dim=1)
        if side == "document" and self.training:
            self._observe(_raw_documents(vectors.detach()))
        return Encoded(vectors)

    def scores(self, queries: Encoded, documents: Encoded, *, in_batch: bool) -> Tensor:
        """-KL(query || document); shapes are those of `Student.scores`."""
        mean, variance = queries.vectors.chunk(2, dim=1)
        asked = torch.cat([torch.ones_like(mean[:, :1]), variance + mean**2, mean], dim=1)
        rest = variance.log().sum(1, keepdim=True) + mean.shape[1]
        raw = _raw_documents(documents.vectors)
        if in_batch:
            return (asked @ raw.T + rest) / 2
        return (torch.einsum("nd,nkd->nk", asked, raw.reshape(len(asked), -1, raw.shape[1])) + rest) / 2

    def save(self, folder: Path) -> None:
        """Write the folder that `checkpoints.gaussian` reads."""
        self.save_tokenizer(folder)
        with quiet_transformers():
            self.trunk.save_pretrained(folder)
        write_json(folder / "sentence_bert_config.json", self.length_options())
        config, head = asdict(self.config), folder / HEAD
        write_json(head / "config.json", {name: config[name] for name in PLAIN})
        tensors = {
            "mean.weight": self.mean.weight, "variance.weight": self.variance.weight, "centre": self.centre,
            "spread": self.square.sqrt().clamp_min(1e-6),
        }  # fmt: skip
        tensors = {name: each.detach().cpu().float().contiguous() for name, each in tensors.items()}
        save_file(tensors, head / "model.safetensors", {"format": "pt"})

    def _states(self, texts: Sequence[str], length: int) -> list[Tensor]:
        ids, padding_id = self.wordpieces.encode(texts, max_length=length), self.trunk.config.pad_token_id or 0
        if self.config.freeze_trunk:
            return frozen_states(self.trunk, ids, padding_id, self.cache)
        return hidden_states(self.trunk, ids, padding_id)

    def _start(self, layout: GaussianLayout | None) -> None:
        """Take the layers of a checkpoint, or start: random orthonormal axes for means, variances all alike."""
        if layout is None:
            nn.init.orthogonal_(self.mean.weight, generator=torch.Generator().manual_seed(self.config.seed))
            nn.init.zeros_(self.variance.weight)
            return
        found = read_tensors(layout.head)
        with torch.no_grad():
            self.mean.weight.copy_(found["mean.weight"])
            self.variance.weight.copy_(found["variance.weight"])
            self.centre.copy_(found["centre"])
            self.square.copy_(found["spread"].square())
            self.n_seen.fill_(1)

    @torch.no_grad()
    def _observe(self, raw: Tensor) -> None:
        """Move the running mean and variance of documents' numbers towards a batch's."""
        share = MOMENTUM if self.n_seen else 1.0
        moved = raw.mean(0) - self.centre
        variance = raw.var(0, correction=0) + (1 - share) * moved.square()  # around the new mean
        self.square.lerp_(variance.clamp_min(1e-12), share)
        self.centre.add_(moved, alpha=share)
        self.n_seen.add_(1)


def _raw_documents(vectors: Tensor) -> Tensor:
    """Document side of the inner product, (n, 2 n_dims + 1)."""
    mean, variance = vectors.chunk(2, dim=1)
    prior = (variance.log() + mean**2 / variance).sum(1, keepdim=True)
    return torch.cat([-prior, -1 / variance, 2 * mean / variance], dim=1)


def _stated(layout: GaussianLayout) -> dict[str, Any]:
    text = layout.text
    return {
        "n_dims": layout.n_dims, "beta": layout.beta, "pooling": text.pooling, "query_length": text.query_length,
        "document_length": text.document_length, "query_marker": text.query_prompt, "document_marker": text.document_prompt,
    }  # fmt: skip
