"""ColBERT students: a unit vector for each token, compared by MaxSim (arXiv 2004.12832, 2112.01488).

Texts are laid out by the encoder's own code, so a student reads what an encoder of its folder reads: markers, prompts, lengths,
expansion, skipped tokens. A student of a plain transformer is laid out as Stanford's code has it: a marker after [CLS], queries
filled up with [MASK], which nothing attends to and which count as query tokens, documents without the vectors of punctuation.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ....index.errors import RepresentationError
from ...encoders.base import Side
from ...encoders.checkpoints.colbert import read_colbert_layout
from ...encoders.checkpoints.colbert_layout import ColbertLayout, SideFiles
from ...encoders.colbert import ColbertConfig, ColbertEncoder
from ..losses.multivector import maxsim_all, maxsim_lists
from .base import TEXTS_PER_PASS, Encoded, Student, filled, hidden_states
from .colbert_folders import DOCUMENT_MARKER, QUERY_MARKER, save_colbert
from .folders import load_trunk
from .projections import ProjectionLayer, linear_files, read_projections
from .starts import network_folder, takes_layout
from .trunk_states import StateCache, frozen_states

PLAIN = {"dim": 128, "query_length": 32, "document_length": 180, "mask_punctuation": True}
"""What a student of a plain transformer has where its configuration leaves it open."""


@dataclass(frozen=True, kw_only=True)
class ColbertStudentConfig:
    """How a ColBERT student encodes and what of it learns. None leaves the checkpoint's choice, or `PLAIN`.

    Attributes
    ----------
    dim : int
        Size of a token vector; that of a ColBERT is what its projection gives.
    query_length, document_length : int
        Tokens of a text, special tokens and marker included; queries are filled up to theirs where they are expanded.
    mask_punctuation : bool
        Leave out document vectors of ASCII punctuation, and of nothing else.
    ignore_layout : bool
        Take the network of a checkpoint alone, whatever else its files state.
    freeze_embeddings, freeze_trunk : bool
        Keep the word embeddings, or all but the projections.
    seed : int
        Of a projection that the checkpoint does not have, where no texts make one; see `start_projection`.
    """

    dim: int | None = None
    query_length: int | None = None
    document_length: int | None = None
    mask_punctuation: bool | None = None
    ignore_layout: bool = False
    freeze_embeddings: bool = False
    freeze_trunk: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        lengths = [length for length in (self.query_length, self.document_length) if length is not None]
        if (self.dim is not None and self.dim < 1) or min(lengths, default=4) < 4:
            raise ValueError("dim must be >= 1, and lengths must leave room beside special tokens and marker, >= 4")


class ColbertStudent(Student):
    """A trunk and linear layers over its tokens.

    Parameters
    ----------
    folder : Path or str
        A ColBERT of Stanford, PyLate or sentence-transformers, or a BERT-like checkpoint.
    config : ColbertStudentConfig

    Raises
    ------
    RepresentationError
        When the trunk or a projection cannot be read whole, the vocabulary has no marker tokens, or the checkpoint is or does
        what a ColBERT student cannot keep.
    ValueError
        ``dim`` is not what the checkpoint's projection gives, or a length is beyond the network's positions.
    """

    layers: Any  # nn.ModuleList of ProjectionLayer, whose items mypy does not know

    def __init__(self, folder: Path | str, config: ColbertStudentConfig | None = None) -> None:
        root, config = Path(folder), config or ColbertStudentConfig()
        layout = read_colbert_layout(root) if takes_layout(root, "colbert", ignore_layout=config.ignore_layout) else None
        self.has_new_projection = layout is None
        if layout is None:
            super().__init__(root, network_folder(root))
        else:
            super().__init__(root, layout.folder, tokenizer=layout.tokenizer, lowercase=layout.lowercase)
        self.trunk = load_trunk(self.folder)
        stated = PLAIN if layout is None else _stated(layout)
        self.config = filled(config, stated, self.limit)
        self.check_lengths()
        if layout is not None and self.config.dim != layout.dim:
            raise ValueError(
                f"dim is {self.config.dim}, but the projection of {root} gives {layout.dim} numbers: leave dim out, or set "
                "ignore_layout=true for a new projection"
            )
        self.layout = self._new_layout() if layout is None else _with_punctuation(layout, config.mask_punctuation)
        lengths = {"query_length": self.config.query_length, "document_length": self.config.document_length}
        # Lays texts out; its own network is never loaded.
        self._reader = ColbertEncoder(ColbertConfig(model=str(root), **lengths), self.layout, device="cpu", batch_size=1)
        self.layers = self._layers()
        if self.config.freeze_embeddings:
            self.trunk.get_input_embeddings().weight.requires_grad_(False)
        if self.config.freeze_trunk:
            self.trunk.requires_grad_(False)
        self.cache: StateCache | None = None

    def encode(self, texts: Sequence[str], side: Side) -> Encoded:
        """Token vectors of unit length, (n_texts, longest, dim) float32, with the mask of those that count."""
        rows = (self._reader.query_side if side == "query" else self._reader.document_side).rows(texts)
        ids, attended = [row.ids for row in rows], [row.n_attended for row in rows]
        padding_id = self.trunk.config.pad_token_id or 0
        if self.config.freeze_trunk:
            states = frozen_states(self.trunk, ids, padding_id, self.cache, attended)
        else:
            states = hidden_states(self.trunk, ids, padding_id, attended)
        padded = nn.utils.rnn.pad_sequence(states, batch_first=True)
        vectors = padded
        for layer in self.layers:
            vectors = layer(vectors)
        kept = [torch.tensor(row.kept, dtype=torch.bool) for row in rows]
        mask = nn.utils.rnn.pad_sequence(kept, batch_first=True).to(vectors.device)
        units = nn.functional.normalize(vectors.float(), dim=-1)
        return Encoded(units, mask, padded if self.config.freeze_trunk else None)

    def scores(self, queries: Encoded, documents: Encoded, *, in_batch: bool) -> Tensor:
        """MaxSim; see `Student.scores`."""
        vectors, mask = documents.vectors, documents.mask
        if mask is None:
            raise ValueError("documents must come from encode, with a mask")
        if in_batch:
            return maxsim_all(queries.vectors, vectors, mask, queries.mask)
        lists = vectors.reshape(len(queries.vectors), -1, *vectors.shape[1:])
        return maxsim_lists(queries.vectors, lists, mask.reshape(lists.shape[:-1]), queries.mask)

    @torch.no_grad()
    def start_projection(self, queries: Sequence[str], documents: Sequence[str]) -> None:
        """Let a frozen trunk's new projection start where it loses least: the main axes of the unit-length states.

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
        weight = self.layers[0].linear.weight
        sides: list[tuple[Side, Sequence[str]]] = [("query", queries), ("document", documents)]
        moments = []
        for side, texts in sides:
            total = torch.zeros(weight.shape[1], weight.shape[1], dtype=torch.float64, device=weight.device)
            for first in range(0, len(texts), TEXTS_PER_PASS):
                with torch.autocast(weight.device.type, torch.bfloat16):
                    encoded = self.encode(texts[first : first + TEXTS_PER_PASS], side)
                if encoded.states is None or encoded.mask is None:
                    raise ValueError("a projection starts from the states of a frozen trunk: set freeze_trunk")
                units = nn.functional.normalize(encoded.states[encoded.mask].float(), dim=-1)
                total += (units.T @ units).double()
            moments.append(total / total.trace())
        axes = torch.linalg.eigh(moments[0] + moments[1]).eigenvectors
        weight.copy_(axes[:, -len(weight) :].T.float())

    def save(self, folder: Path) -> None:
        """Write the layout that the checkpoint has; Stanford's for a student of a plain transformer."""
        save_colbert(self, folder)

    def _layers(self) -> nn.ModuleList:
        if not self.has_new_projection:
            return read_projections(self.layout.projections)
        layer = ProjectionLayer(self.layout.projections[0])
        generator = torch.Generator().manual_seed(self.config.seed)
        layer.linear.weight.data = torch.randn(layer.linear.weight.shape, generator=generator) / layer.linear.in_features**0.5
        return nn.ModuleList([layer])

    def _new_layout(self) -> ColbertLayout:
        """Stanford's, for a plain transformer."""
        absent = [token for token in (QUERY_MARKER, DOCUMENT_MARKER, "[MASK]") if self.wordpieces.token_id(token) is None]
        if absent:
            raise RepresentationError(f"{self.root}: the vocabulary has no {', '.join(absent)}: take a BERT checkpoint")
        config = self.config
        return ColbertLayout(
            folder=self.folder,
            tokenizer=self.tokenizer,
            n_tokens=self.trunk.config.vocab_size,
            length_limit=self.limit,
            projections=(linear_files(self.trunk.config.hidden_size, config.dim, self.folder),),
            dim=config.dim,
            document=SideFiles(max_length=config.document_length, marker=DOCUMENT_MARKER),
            query=SideFiles(max_length=config.query_length, marker=QUERY_MARKER),
            expand_to=config.query_length,
            attend=False,
            expansion_token="[MASK]",  # noqa: S106 -- no password
            skipped=tuple(string.punctuation) if config.mask_punctuation else (),
        )


def _stated(layout: ColbertLayout) -> dict[str, int]:
    return {"dim": layout.dim, "query_length": layout.query.max_length, "document_length": layout.document.max_length}


def _with_punctuation(layout: ColbertLayout, masked: bool | None) -> ColbertLayout:
    """The layout with the tokens skipped that a configuration asks for; None leaves them."""
    return layout if masked is None else replace(layout, skipped=tuple(string.punctuation) if masked else ())
