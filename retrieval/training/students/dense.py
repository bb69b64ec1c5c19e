"""Dense students: one vector a text, the mean of its tokens' or that of [CLS] (Sentence-BERT, arXiv 1908.10084).

A student of a sentence-transformers folder takes its pooling, Dense layers, prompts and lengths. A further linear layer may
project vectors, and may be all that learns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ....index.errors import RepresentationError
from ...encoders.base import Side
from ...encoders.checkpoints.dense import DenseLayout, read_dense_layout
from ...encoders.networks.loading import quiet_transformers
from .base import Encoded, Student, filled, hidden_states
from .folders import load_trunk, write_json, write_modules
from .projections import ProjectionLayer, linear_files, orthonormal, read_projections
from .starts import network_folder, takes_layout
from .trunk_states import StateCache, frozen_states

ST = "sentence_transformers"
PLAIN = {
    "pooling": "mean", "normalize": True, "query_length": 64, "document_length": 256, "query_prompt": "", "document_prompt": "",
}  # fmt: skip
"""What a student of a plain transformer has where its configuration leaves it open."""


@dataclass(frozen=True, kw_only=True)
class DenseStudentConfig:
    """How a dense student encodes and what of it learns. None leaves the checkpoint's choice, or `PLAIN`.

    Attributes
    ----------
    pooling : {"mean", "cls", "max"}
    normalize : bool
        Whether vectors have unit length; scores are then cosines, and losses want a temperature of about 0.05.
    query_length, document_length : int
        Tokens of a text that are read, special tokens included.
    query_prompt, document_prompt : str
        Put before each text.
    projection : int
        Numbers of a vector, by a linear layer after those of the checkpoint; 0: no further layer.
    ignore_layout : bool
        Take the network of a checkpoint alone, whatever else its files state.
    freeze_embeddings, freeze_trunk : bool
        Keep the word embeddings, or all but the linear layers.
    seed : int
        Of the projection, which starts as the identity where it is square, else as random orthonormal axes.
    """

    pooling: Literal["mean", "cls", "max"] | None = None
    normalize: bool | None = None
    query_length: int | None = None
    document_length: int | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    projection: int = 0
    ignore_layout: bool = False
    freeze_embeddings: bool = False
    freeze_trunk: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pooling not in (None, "mean", "cls", "max"):
            raise ValueError(f"pooling is {self.pooling!r}: it must be 'mean', 'cls' or 'max'")
        if any(length is not None and length < 3 for length in (self.query_length, self.document_length)):
            raise ValueError("lengths must leave room beside the special tokens, >= 3")
        if self.projection < 0:
            raise ValueError(f"projection is {self.projection}: it must be >= 0")


class DenseStudent(Student):
    """A transformer trunk, a pooling, and perhaps linear layers.

    Parameters
    ----------
    folder : Path or str
        A dense model, or a checkpoint of any BERT-like trunk, with or without a head.
    config : DenseStudentConfig

    Raises
    ------
    RepresentationError
        When the trunk cannot be read whole, or the checkpoint is or does what a dense student cannot keep.
    ValueError
        When nothing would learn, or a length is beyond the network's positions.
    """

    layers: Any  # nn.ModuleList of ProjectionLayer, whose items mypy does not know

    def __init__(self, folder: Path | str, config: DenseStudentConfig | None = None) -> None:
        root, config = Path(folder), config or DenseStudentConfig()
        layout = read_dense_layout(root) if takes_layout(root, "dense", ignore_layout=config.ignore_layout) else None
        if layout is None:
            super().__init__(root, network_folder(root))
        else:
            super().__init__(root, layout.folder, tokenizer=layout.tokenizer, lowercase=layout.lowercase)
        self.trunk = load_trunk(self.folder)
        self.config = filled(config, PLAIN if layout is None else _stated(root, layout), self.limit)
        self.check_lengths()
        self.register_markers(config.query_prompt, config.document_prompt)  # those of a checkpoint are read as it reads them
        self.layers = read_projections(() if layout is None else layout.projections)
        if self.config.projection:
            width = self.layers[-1].files.out_features if len(self.layers) else self.trunk.config.hidden_size
            layer = ProjectionLayer(linear_files(width, self.config.projection, root))
            self.layers.append(orthonormal(layer, self.config.seed))
        if self.config.freeze_trunk and not len(self.layers):
            raise ValueError("nothing would learn: freeze_trunk needs a projection")
        self.freeze()
        self.cache: StateCache | None = None

    def encode(self, texts: Sequence[str], side: Side) -> Encoded:
        """Vectors, (n_texts, numbers of the last layer, or hidden) float32."""
        settings = asdict(self.config)
        prompted = [settings[f"{side}_prompt"] + text for text in texts]
        vectors = torch.stack([self._pooled(row) for row in self._states(prompted, settings[f"{side}_length"])])
        for layer in self.layers:
            vectors = layer(vectors).float()
        return Encoded(nn.functional.normalize(vectors, dim=-1) if self.config.normalize else vectors)

    def save(self, folder: Path) -> None:
        """Write a SentenceTransformer: Transformer, Pooling, and perhaps Dense layers and Normalize."""
        self.save_tokenizer(folder)
        with quiet_transformers():
            self.trunk.save_pretrained(folder)
        write_json(folder / "sentence_bert_config.json", self.length_options())
        prompts = {"query": self.config.query_prompt, "document": self.config.document_prompt}
        similarity = "cosine" if self.config.normalize else "dot"
        card = {"model_type": "SentenceTransformer", "prompts": prompts, "similarity_fn_name": similarity}
        write_json(folder / "config_sentence_transformers.json", card)
        pooling = {"embedding_dimension": self.trunk.config.hidden_size, "pooling_mode": self.config.pooling}
        write_json(folder / "1_Pooling" / "config.json", pooling)
        modules = [("", f"{ST}.base.modules.transformer.Transformer")]
        modules.append(("1_Pooling", f"{ST}.sentence_transformer.modules.pooling.Pooling"))
        for number, layer in enumerate(self.layers, 2):
            layer.save(folder / f"{number}_Dense")
            modules.append((f"{number}_Dense", f"{ST}.base.modules.dense.Dense"))
        if self.config.normalize:
            name = f"{len(modules)}_Normalize"
            write_json(folder / name / "config.json", {})
            modules.append((name, f"{ST}.base.modules.normalize.Normalize"))
        write_modules(folder, modules)

    def _states(self, texts: Sequence[str], length: int) -> list[Tensor]:
        ids, padding_id = self.wordpieces.encode(texts, max_length=length), self.trunk.config.pad_token_id or 0
        if self.config.freeze_trunk:
            return frozen_states(self.trunk, ids, padding_id, self.cache)
        return hidden_states(self.trunk, ids, padding_id)

    def _pooled(self, states: Tensor) -> Tensor:
        if self.config.pooling == "cls":
            return states[0].float()
        return states.float().mean(0) if self.config.pooling == "mean" else states.float().amax(0)


def _stated(root: Path, layout: DenseLayout) -> dict[str, Any]:
    if layout.truncate_dim:
        raise RepresentationError(f"{root}: found truncate_dim {layout.truncate_dim}: a dense student does not cut its vectors")
    names = ("pooling", "query_length", "document_length", "query_prompt", "document_prompt")
    return {**{name: getattr(layout, name) for name in names}, "normalize": layout.normalize or layout.normalize_last}
