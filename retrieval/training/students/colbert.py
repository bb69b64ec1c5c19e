"""ColBERT students: a unit vector for each token, compared by MaxSim (arXiv 2004.12832, 2112.01488).

Ids are those of Stanford's code: a marker after [CLS]; queries filled up with [MASK], which nothing attends to and
which count as query tokens; documents without the vectors of punctuation.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ....index.errors import RepresentationError
from ...encoders.base import Side
from ...encoders.networks.loading import read_tensors
from ..losses.multivector import maxsim_all, maxsim_lists
from .base import TEXTS_PER_PASS, Encoded, Student, hidden_states
from .folders import check_lengths, copy_tokenizer, load_trunk, write_json
from .trunk_states import StateCache, frozen_states

QUERY_MARKER, DOCUMENT_MARKER = "[unused0]", "[unused1]"


@dataclass(frozen=True, kw_only=True)
class ColbertStudentConfig:
    """How a ColBERT student encodes and what of it learns.

    Attributes
    ----------
    dim : int
        Size of a token vector.
    query_length, document_length : int
        Tokens of a text, special tokens and marker included; queries are filled up to theirs.
    mask_punctuation : bool
        Leave out document vectors of ASCII punctuation.
    freeze_embeddings, freeze_trunk : bool
        Keep the word embeddings, or all but the projection.
    seed : int
        Of a projection that the checkpoint does not have, where no texts make one; see `start_projection`.
    """

    dim: int = 128
    query_length: int = 32
    document_length: int = 180
    mask_punctuation: bool = True
    freeze_embeddings: bool = False
    freeze_trunk: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dim < 1 or min(self.query_length, self.document_length) < 4:
            raise ValueError("dim must be >= 1, and lengths must leave room beside special tokens and marker, >= 4")


class ColbertStudent(Student):
    """A trunk and a linear projection without bias.

    Parameters
    ----------
    folder : Path or str
        A BERT-like checkpoint; a Stanford ColBERT's projection is kept when its size is ``config.dim``.
    config : ColbertStudentConfig

    Raises
    ------
    RepresentationError
        When the trunk cannot be read whole, or the vocabulary has no marker tokens.
    """

    def __init__(self, folder: Path | str, config: ColbertStudentConfig | None = None) -> None:
        super().__init__(folder)
        self.config = config or ColbertStudentConfig()
        self.trunk = load_trunk(self.folder)
        check_lengths(self.trunk.config, self.config.query_length, self.config.document_length)
        self.linear = nn.Linear(self.trunk.config.hidden_size, self.config.dim, bias=False)
        projection = self._projection()
        self.has_new_projection = projection is None
        if projection is None:
            generator = torch.Generator().manual_seed(self.config.seed)
            projection = torch.randn(self.linear.weight.shape, generator=generator) / self.linear.in_features**0.5
        self.linear.weight.data = projection
        if self.config.freeze_embeddings:
            self.trunk.get_input_embeddings().weight.requires_grad_(False)
        if self.config.freeze_trunk:
            self.trunk.requires_grad_(False)
        self.cache: StateCache | None = None
        numbers = {token: i for i, token in enumerate(self.wordpieces.tokens)}
        absent = [token for token in (QUERY_MARKER, DOCUMENT_MARKER, "[MASK]") if token not in numbers]
        if absent:
            raise RepresentationError(f"{folder}: the vocabulary has no {', '.join(absent)}: take a BERT checkpoint")
        self._markers: dict[Side, int] = {"query": numbers[QUERY_MARKER], "document": numbers[DOCUMENT_MARKER]}
        self._mask_id = numbers["[MASK]"]
        skipped = [numbers[mark] for mark in string.punctuation if mark in numbers] if self.config.mask_punctuation else []
        self._skipped = torch.tensor(skipped, dtype=torch.long)

    def encode(self, texts: Sequence[str], side: Side) -> Encoded:
        """Token vectors of unit length, (n_texts, longest, dim) float32, with their mask."""
        ids = self._ids(texts, side)
        attended = None
        if side == "query":
            attended = [len(row) for row in ids]
            ids = [row + [self._mask_id] * (self.config.query_length - len(row)) for row in ids]
        padding_id = self.trunk.config.pad_token_id or 0
        if self.config.freeze_trunk:
            states = frozen_states(self.trunk, ids, padding_id, self.cache, attended)
        else:
            states = hidden_states(self.trunk, ids, padding_id, attended)
        padded = nn.utils.rnn.pad_sequence(states, batch_first=True)
        vectors = nn.functional.normalize(self.linear(padded).float(), dim=-1)
        return Encoded(vectors, self._counting(ids, vectors, side), padded if self.config.freeze_trunk else None)

    def scores(self, queries: Encoded, documents: Encoded, *, in_batch: bool) -> Tensor:
        """MaxSim; see `Student.scores`. All vectors of a query count."""
        vectors, mask = documents.vectors, documents.mask
        if mask is None:
            raise ValueError("documents must come from encode, with a mask")
        if in_batch:
            return maxsim_all(queries.vectors, vectors, mask)
        lists = vectors.reshape(len(queries.vectors), -1, *vectors.shape[1:])
        return maxsim_lists(queries.vectors, lists, mask.reshape(lists.shape[:-1]))

    @torch.no_grad()
    def start_projection(self, queries: Sequence[str], documents: Sequence[str]) -> None:
        """Let a frozen trunk's projection start where it loses least: the main axes of the unit-length states.

        Axes are those of the second moments of query and of document tokens, added at equal weight, without centring, since
        similarities are not centred either.

        Parameters
        ----------
        queries, documents : sequence of str
            Some thousands are enough.

        Raises
        ------
        ValueError
            When the trunk is not frozen.
        """
        sides: list[tuple[Side, Sequence[str]]] = [("query", queries), ("document", documents)]
        moments = []
        for side, texts in sides:
            total = torch.zeros(self.linear.in_features, self.linear.in_features, dtype=torch.float64)
            for first in range(0, len(texts), TEXTS_PER_PASS):
                with torch.autocast(self.linear.weight.device.type, torch.bfloat16):
                    encoded = self.encode(texts[first : first + TEXTS_PER_PASS], side)
                if encoded.states is None or encoded.mask is None:
                    raise ValueError("a projection starts from the states of a frozen trunk: set freeze_trunk")
                units = nn.functional.normalize(encoded.states[encoded.mask].float(), dim=-1)
                total += (units.T @ units).double()
            moments.append(total / total.trace())
        axes = torch.linalg.eigh(moments[0] + moments[1]).eigenvectors
        self.linear.weight.copy_(axes[:, -self.config.dim :].T.float())

    def save(self, folder: Path) -> None:
        """Write Stanford's layout: a trunk under its prefix, ``linear.weight`` and artifact.metadata."""
        copy_tokenizer(self.folder, folder)
        prefix = self.trunk.base_model_prefix
        tensors = {f"{prefix}.{name}": tensor for name, tensor in self.trunk.state_dict().items()}
        tensors["linear.weight"] = self.linear.weight.detach()
        save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
        write_json(folder / "config.json", {**self.trunk.config.to_dict(), "architectures": ["HF_ColBERT"]})
        write_json(folder / "artifact.metadata", {
            "query_token_id": QUERY_MARKER, "doc_token_id": DOCUMENT_MARKER, "query_token": "[Q]", "doc_token": "[D]",
            "dim": self.config.dim, "query_maxlen": self.config.query_length, "doc_maxlen": self.config.document_length,
            "mask_punctuation": self.config.mask_punctuation, "attend_to_mask_tokens": False, "similarity": "cosine",
        })  # fmt: skip

    def _ids(self, texts: Sequence[str], side: Side) -> list[list[int]]:
        length = self.config.query_length if side == "query" else self.config.document_length
        rows = self.wordpieces.encode(texts, max_length=length - 1)
        return [[row[0], self._markers[side], *row[1:]] for row in rows]

    def _counting(self, ids: Sequence[Sequence[int]], vectors: Tensor, side: Side) -> Tensor:
        mask = torch.zeros(vectors.shape[:2], dtype=torch.bool)
        for line, row in zip(mask, ids, strict=True):
            line[: len(row)] = True
            if side == "document":
                line[: len(row)] &= ~torch.isin(torch.tensor(row), self._skipped)
        return mask.to(vectors.device)

    def _projection(self) -> Tensor | None:
        """The checkpoint's own, when it has one of this size."""
        found = read_tensors(self.folder, ["linear.weight"]).get("linear.weight")
        return found.float() if found is not None and found.shape == self.linear.weight.shape else None
