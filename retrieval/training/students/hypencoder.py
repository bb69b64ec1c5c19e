"""Hypencoder students: documents as the state of [CLS], queries as small networks that score it (arXiv 2502.05364)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from ....index.errors import RepresentationError
from ...encoders.base import Side
from ...encoders.checkpoints.hypencoder import (
    ARCHITECTURE,
    CONVERTER,
    QUERY,
    TRANSFORMER,
    HypencoderLayout,
    read_hypencoder_layout,
    weight_shapes,
)
from ...encoders.networks.hyper_head import bert_of, checked_tensors, generators_of, numbers_of, part_of
from .base import Encoded, Student, filled, hidden_states
from .folders import load_trunk, write_json
from .starts import network_folder, takes_layout
from .trunk_states import StateCache, frozen_states

PLAIN = {"n_layers": 1, "width": 64, "query_length": 64, "document_length": 256}
"""What a student of a plain transformer has where its configuration leaves it open."""
BASE = "base"
ROWS_SPREAD = 10.0
"""Standard deviation of the rows that ask the query's tokens, as published."""


@dataclass(frozen=True, kw_only=True)
class HypencoderStudentConfig:
    """How a Hypencoder student encodes and what of it learns. None leaves the checkpoint's choice, or `PLAIN`.

    Attributes
    ----------
    n_layers : int
        Hidden layers of a query's network; all but the last are as wide as the trunk's states.
    width : int
        Numbers of the last one. A document's score takes about ``(n_layers - 1) hidden^2 + width hidden`` multiplications.
    query_length, document_length : int
        Tokens of a text that are read, special tokens included.
    ignore_layout : bool
        Take the network of a checkpoint alone, whatever else its files state.
    freeze_embeddings, freeze_trunk : bool
        Keep the word embeddings, or all but the head that makes networks.
    seed : int
        Of the head's start.
    """

    n_layers: int | None = None
    width: int | None = None
    query_length: int | None = None
    document_length: int | None = None
    ignore_layout: bool = False
    freeze_embeddings: bool = False
    freeze_trunk: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_layers", "width"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be >= 1")
        if any(length is not None and length < 3 for length in (self.query_length, self.document_length)):
            raise ValueError("lengths must leave room beside the special tokens, >= 3")


class HypencoderStudent(Student):
    """A BERT, and the head that makes networks of queries.

    Parameters
    ----------
    folder : Path or str
        A Hypencoder whose sides share their BERT, or a checkpoint of any BERT, with or without a head.
    config : HypencoderStudentConfig

    Raises
    ------
    RepresentationError
        When the trunk cannot be read whole or is no BERT, or the checkpoint is of another kind.
    ValueError
        When a length is beyond the network's positions, or sizes are not those of the checkpoint's head.
    """

    def __init__(self, folder: Path | str, config: HypencoderStudentConfig | None = None) -> None:
        root, config = Path(folder), config or HypencoderStudentConfig()
        layout = read_hypencoder_layout(root) if takes_layout(root, "hypencoder", ignore_layout=config.ignore_layout) else None
        super().__init__(root, network_folder(root) if layout is None else root)
        held: Mapping[str, Tensor] = {}
        if layout is None:
            self.trunk = load_trunk(self.folder)
        else:
            self.limit, self.lowercase, held = layout.length_limit, layout.lowercase, _held(layout)
            self.trunk = bert_of(layout, part_of(held, QUERY + TRANSFORMER))
        if self.trunk.config.model_type != "bert":
            raise RepresentationError(f"{root}: a Hypencoder stands on a BERT, not on a {self.trunk.config.model_type}")
        self.config = filled(config, PLAIN if layout is None else _stated(layout), self.limit)
        self.check_lengths()
        hidden = self.trunk.config.hidden_size
        self.sizes = (*(hidden,) * self.config.n_layers, self.config.width)
        if layout is not None and self.sizes != layout.sizes:
            raise ValueError(f"{root}: the head makes networks of sizes {layout.sizes}: leave out n_layers and width")
        self.head = nn.ParameterDict()
        for name, tensor in self._start().items() if layout is None else _head_of(held, self.sizes, hidden).items():
            self.head[name.replace(".", "/")] = nn.Parameter(tensor)  # a parameter's name holds no dot
        self.freeze()
        self.cache: StateCache | None = None

    def encode(self, texts: Sequence[str], side: Side) -> Encoded:
        """Documents' vectors (n_texts, hidden), or the numbers of queries' networks (n_texts, n_numbers), as in `QueryNets`."""
        states = self._states(texts, asdict(self.config)[f"{side}_length"])
        if side == "document":
            return Encoded(torch.stack([each[0].float() for each in states]))
        generators = generators_of(self._head(), self.sizes)
        with torch.autocast(self.device.type, enabled=False):  # networks are float32
            return Encoded(torch.stack([numbers_of(generators, each.float()) for each in states]))

    def scores(self, queries: Encoded, documents: Encoded, *, in_batch: bool) -> Tensor:
        """What each query's network makes of documents; shapes are those of `Student.scores`."""
        numbers, vectors = queries.vectors, documents.vectors
        n, first = len(numbers), 0
        x = vectors[None].expand(n, -1, -1) if in_batch else vectors.reshape(n, -1, vectors.shape[1])
        for layer, (before, width) in enumerate(pairwise(self.sizes)):
            weights = numbers[:, first : first + width * before].reshape(n, width, before)
            first += width * (before + 1)
            y = torch.relu(x @ weights.transpose(1, 2) + numbers[:, None, first - width : first])
            y = layer_norm(y, (width,))
            x = y + x if layer < len(self.sizes) - 2 else y
        return (x @ numbers[:, first:, None])[..., 0]

    def save(self, folder: Path) -> None:
        """Write the published layout; the BERT's settings are in ``base/config.json``."""
        self.save_tokenizer(folder)
        self.trunk.config.save_pretrained(folder / BASE)
        write_json(folder / "sentence_bert_config.json", self.length_options())
        write_json(folder / "config.json", {
            "architectures": [ARCHITECTURE],
            "passage_encoder_kwargs": {"model_name_or_path": BASE, "pooling_type": "cls"},
            "query_encoder_kwargs": {
                "model_name_or_path": BASE, "base_encoder_output_dim": self.sizes[0],
                "converter_kwargs": {**CONVERTER, "vector_dimensions": [*self.sizes, 1]},
            },
            "shared_encoder": True,
        })  # fmt: skip
        trunk = {QUERY + TRANSFORMER + name: tensor for name, tensor in self.trunk.state_dict().items()}
        tensors = {**trunk, **{QUERY + name: tensor for name, tensor in self._head().items()}}
        save_file(
            {name: each.detach().cpu().float().contiguous() for name, each in tensors.items()},
            folder / "model.safetensors", {"format": "pt"},
        )  # fmt: skip

    def _head(self) -> dict[str, Tensor]:
        """The head's tensors by their published names."""
        return {name.replace("/", "."): tensor for name, tensor in self.head.items()}

    def _states(self, texts: Sequence[str], length: int) -> list[Tensor]:
        ids, padding_id = self.wordpieces.encode(texts, max_length=length), self.trunk.config.pad_token_id or 0
        if self.config.freeze_trunk:
            return frozen_states(self.trunk, ids, padding_id, self.cache)
        return hidden_states(self.trunk, ids, padding_id)

    def _start(self) -> dict[str, Tensor]:
        """A new head, drawn as the published ones were: all queries' networks are alike at first."""
        dice, made = torch.Generator().manual_seed(self.config.seed), {}
        for name, shape in weight_shapes(self.sizes, self.sizes[0]).items():
            kind, width = name.partition(".")[0], shape[-1]
            spread = {
                "hyper_base_matrices": (2 / width) ** 0.5, "weight_query_embeddings": ROWS_SPREAD,
                "bias_query_embeddings": ROWS_SPREAD, "key_projections": (1 / (3 * width)) ** 0.5,
                "value_projections": (1 / (3 * width)) ** 0.5, "weight_hyper_projection": width**-2.0,
                "bias_hyper_projection": width**-2.0,
            }.get(kind, 0.0)  # fmt: skip
            made[name] = torch.randn(shape, generator=dice) * (0.0 if name.endswith(".bias") else spread)
        return made


def _held(layout: HypencoderLayout) -> dict[str, Tensor]:
    if not layout.shared:
        raise RepresentationError(f"{layout.folder}: a Hypencoder with two BERTs is not trained on")
    return checked_tensors(layout)


def _head_of(held: Mapping[str, Tensor], sizes: Sequence[int], hidden: int) -> dict[str, Tensor]:
    return {name: held[QUERY + name].float() for name in weight_shapes(sizes, hidden)}


def _stated(layout: HypencoderLayout) -> dict[str, Any]:
    return {
        "n_layers": len(layout.sizes) - 1, "width": layout.sizes[-1], "query_length": layout.query_length,
        "document_length": layout.document_length,
    }  # fmt: skip
