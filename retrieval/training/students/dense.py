"""Dense students: one vector a text, the mean of its tokens' or that of [CLS] (Sentence-BERT, arXiv 1908.10084).

A linear layer may project it, and may be all that learns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ...encoders.base import Side
from ...encoders.networks.loading import quiet_transformers
from .base import Encoded, Student, hidden_states
from .folders import check_lengths, copy_tokenizer, load_trunk, write_json, write_modules
from .trunk_states import StateCache, frozen_states

ST = "sentence_transformers"


@dataclass(frozen=True, kw_only=True)
class DenseStudentConfig:
    """How a dense student encodes and what of it learns.

    Attributes
    ----------
    pooling : {"mean", "cls"}
    normalize : bool
        Whether vectors have unit length; scores are then cosines, and losses want a temperature of about 0.05.
    query_length, document_length : int
        Tokens of a text that are read, special tokens included.
    query_prompt, document_prompt : str
        Put before each text.
    projection : int
        Numbers of a vector, by a linear layer after the pooling; 0: those that the trunk has, without a layer.
    freeze_embeddings, freeze_trunk : bool
        Keep the word embeddings, or all but the projection.
    seed : int
        Of the projection, which starts as the identity where it is square, else as random orthonormal axes.
    """

    pooling: Literal["mean", "cls"] = "mean"
    normalize: bool = True
    query_length: int = 64
    document_length: int = 256
    query_prompt: str = ""
    document_prompt: str = ""
    projection: int = 0
    freeze_embeddings: bool = False
    freeze_trunk: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pooling not in ("mean", "cls"):
            raise ValueError(f"pooling is {self.pooling!r}: it must be 'mean' or 'cls'")
        if min(self.query_length, self.document_length) < 3:
            raise ValueError("lengths must leave room beside the special tokens, >= 3")
        if self.projection < 0:
            raise ValueError(f"projection is {self.projection}: it must be >= 0")
        if self.freeze_trunk and not self.projection:
            raise ValueError("nothing would learn: freeze_trunk needs a projection")


class DenseStudent(Student):
    """A transformer trunk, a pooling, and perhaps a linear layer.

    Parameters
    ----------
    folder : Path or str
        A checkpoint of any BERT-like trunk, with or without a head.
    config : DenseStudentConfig

    Raises
    ------
    RepresentationError
        When the trunk cannot be read whole.
    """

    def __init__(self, folder: Path | str, config: DenseStudentConfig | None = None) -> None:
        super().__init__(folder)
        self.config = config or DenseStudentConfig()
        self.trunk = load_trunk(self.folder)
        check_lengths(self.trunk.config, self.config.query_length, self.config.document_length)
        if self.config.freeze_embeddings:
            self.trunk.get_input_embeddings().weight.requires_grad_(False)
        if self.config.freeze_trunk:
            self.trunk.requires_grad_(False)
        self.cache: StateCache | None = None
        self.linear = self._projection() if self.config.projection else None

    def encode(self, texts: Sequence[str], side: Side) -> Encoded:
        """Vectors, (n_texts, projection or hidden) float32."""
        settings = asdict(self.config)
        prompted = [settings[f"{side}_prompt"] + text for text in texts]
        ids = self.wordpieces.encode(prompted, max_length=settings[f"{side}_length"])
        states = self._states(ids)
        if self.config.pooling == "cls":
            vectors = torch.stack([tokens[0] for tokens in states]).float()
        else:
            vectors = torch.stack([tokens.float().mean(0) for tokens in states])
        if self.linear is not None:
            vectors = self.linear(vectors).float()
        return Encoded(nn.functional.normalize(vectors, dim=-1) if self.config.normalize else vectors)

    def save(self, folder: Path) -> None:
        """Write a SentenceTransformer: Transformer, Pooling, and perhaps Dense and Normalize."""
        copy_tokenizer(self.folder, folder)
        with quiet_transformers():
            self.trunk.save_pretrained(folder)
        write_json(folder / "sentence_bert_config.json", {
            "max_seq_length": self.config.document_length, "do_lower_case": False,
        })  # fmt: skip
        prompts = {"query": self.config.query_prompt, "document": self.config.document_prompt}
        similarity = "cosine" if self.config.normalize else "dot"
        card = {"model_type": "SentenceTransformer", "prompts": prompts, "similarity_fn_name": similarity}
        write_json(folder / "config_sentence_transformers.json", card)
        pooling = {"embedding_dimension": self.trunk.config.hidden_size, "pooling_mode": self.config.pooling}
        write_json(folder / "1_Pooling" / "config.json", pooling)
        modules = [("", f"{ST}.base.modules.transformer.Transformer")]
        modules.append(("1_Pooling", f"{ST}.sentence_transformer.modules.pooling.Pooling"))
        if self.linear is not None:
            _save_projection(self.linear, folder / "2_Dense")
            modules.append(("2_Dense", f"{ST}.base.modules.dense.Dense"))
        if self.config.normalize:
            name = f"{len(modules)}_Normalize"
            write_json(folder / name / "config.json", {})
            modules.append((name, f"{ST}.base.modules.normalize.Normalize"))
        write_modules(folder, modules)

    def _states(self, ids: Sequence[Sequence[int]]) -> list[Tensor]:
        padding_id = self.trunk.config.pad_token_id or 0
        if self.config.freeze_trunk:
            return frozen_states(self.trunk, ids, padding_id, self.cache)
        return hidden_states(self.trunk, ids, padding_id)

    def _projection(self) -> nn.Linear:
        linear = nn.Linear(self.trunk.config.hidden_size, self.config.projection, bias=False)
        if linear.in_features == linear.out_features:
            nn.init.eye_(linear.weight)
        else:
            nn.init.orthogonal_(linear.weight, generator=torch.Generator().manual_seed(self.config.seed))
        return linear


def _save_projection(linear: nn.Linear, folder: Path) -> None:
    write_json(folder / "config.json", {
        "in_features": linear.in_features, "out_features": linear.out_features, "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
    })  # fmt: skip
    save_file({"linear.weight": linear.weight.detach().cpu()}, folder / "model.safetensors")
