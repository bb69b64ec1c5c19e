"""SPLADE students (arXiv 2109.10086), and inference-free ones, whose queries are looked up (arXiv 2411.04403)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from ....index.arrays import Floats
from ....index.errors import RepresentationError
from ...encoders.base import Side
from ...encoders.checkpoints.splade import Layout, TableFiles, read_layout
from ...encoders.networks.loading import load_network, quiet_transformers, weight_files
from ...encoders.wordpieces import Wordpieces
from .base import Encoded, Student, filled, hidden_states
from .folders import copy_tokenizer, write_json, write_modules
from .idf import write_idf
from .splade_pooling import positive_maxima
from .starts import network_folder, takes_layout
from .trunk_states import StateCache, frozen_states

TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"
ROUTER = "sentence_transformers.base.modules.router.Router"
SPARSE = "sentence_transformers.sparse_encoder.modules"
HEADS = ("cls.", "lm_head.", "vocab_transform.", "vocab_layer_norm.", "vocab_projector.", "head.", "decoder.")


@dataclass(frozen=True, kw_only=True)
class SpladeStudentConfig:
    """How a SPLADE student encodes and what of it learns. None leaves the checkpoint's choice, or `PLAIN`.

    Attributes
    ----------
    query_side : {"model", "idf"}
        Queries by the network too, or a weight for each distinct wordpiece.
    learn_idf : bool
        Whether those weights are trained; they stay >= 0.
    activation : {"relu", "log1p_relu"}
        log1p(relu(x)), or log1p(log1p(relu(x))).
    similarity : {"dot", "cosine"}
        By what vectors are compared.
    query_length, document_length : int
        Tokens of a text that are read, special tokens included.
    query_prompt, document_prompt : str
        Put before texts that the network reads. Tokens in square brackets, such as "[unused0]", are read as what they are.
    ignore_layout : bool
        Take the network of a checkpoint alone, whatever else its files state.
    freeze_embeddings : bool
        Keep the word embeddings, and with them a tied vocabulary layer.
    freeze_trunk : bool
        Keep all but the layers before the vocabulary, and the vocabulary's biases.
    new_head : bool
        Let the layers before the vocabulary be new where the checkpoint has none; see `.new_head`.
    """

    query_side: Literal["model", "idf"] = "model"
    learn_idf: bool = False
    activation: Literal["relu", "log1p_relu"] | None = None
    similarity: Literal["dot", "cosine"] | None = None
    query_length: int | None = None
    document_length: int | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    ignore_layout: bool = False
    freeze_embeddings: bool = False
    freeze_trunk: bool = False
    new_head: bool = False

    def __post_init__(self) -> None:
        if self.query_side not in ("model", "idf") or self.activation not in (None, "relu", "log1p_relu"):
            raise ValueError(f"unknown query_side {self.query_side!r} or activation {self.activation!r}")
        if self.similarity not in (None, "dot", "cosine"):
            raise ValueError(f"similarity is {self.similarity!r}: it must be 'dot' or 'cosine'")
        if any(length is not None and length < 3 for length in (self.query_length, self.document_length)):
            raise ValueError("lengths must leave room beside the special tokens, >= 3")
        if self.learn_idf and self.query_side != "idf":
            raise ValueError("learn_idf needs query_side='idf'")


PROBE = "The CITY of NEW York's naïve Straße, 中文 e\u0301 [MASK] rain2020 don't-stop ... "
PLAIN = {
    "activation": "relu", "similarity": "dot", "query_length": 64, "document_length": 256, "query_prompt": "",
    "document_prompt": "",
}  # fmt: skip
"""What a student of a plain transformer has where its configuration leaves it open."""


class _Given(nn.Module):
    """Stands in a network for its trunk, and says what it was given."""

    states: Tensor

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return BaseModelOutput(last_hidden_state=self.states)


class SpladeStudent(Student):
    """A masked language model that weighs terms.

    Parameters
    ----------
    folder : Path or str
        A SPLADE, an inference-free model, or a ``*ForMaskedLM`` checkpoint.
    config : SpladeStudentConfig
    idf : (n_terms,) float32, optional
        Query weights to start from, needed with ``query_side="idf"``; see `.idf.document_idf`.

    Raises
    ------
    RepresentationError
        When the checkpoint is not a masked language model with a linear layer over the vocabulary, or is or does what such a
        student cannot keep.
    ValueError
        When ``idf`` is missing, or not one weight a term; or a length is beyond the network's positions.
    """

    sparse = True

    def __init__(
        self, folder: Path | str, config: SpladeStudentConfig | None = None, *, idf: Floats | None = None
    ) -> None:  # fmt: skip
        root, config = Path(folder), config or SpladeStudentConfig()
        method = "splade" if config.query_side == "model" else "inference-free"
        layout = _layout(root, method) if takes_layout(root, method, ignore_layout=config.ignore_layout) else None
        if layout is None:
            super().__init__(root, network_folder(root))
        else:
            files = layout.document
            super().__init__(root, files.folder, tokenizer=files.tokenizer, lowercase=files.lowercase)
        self.top_k = None if layout is None else layout.top_k
        self.config = filled(config, PLAIN if layout is None else _stated(layout), self.limit)
        self.check_lengths()
        may_lack = HEADS if self.config.new_head else ()
        self.network = load_network(self.folder, "AutoModelForMaskedLM", may_lack=may_lack)
        self.has_new_head = self.config.new_head and not has_head(self.folder)
        self.decoder = self.network.get_output_embeddings()
        names = [name for name, module in self.network.named_modules() if module is self.decoder]
        if not isinstance(self.decoder, nn.Linear) or self.decoder.bias is None or not names:
            raise RepresentationError(f"{folder}: {type(self.network).__name__} has no linear layer over the vocabulary")
        self._decoder_name = names[0]
        self.n_terms = self.decoder.out_features
        if self.config.freeze_embeddings:
            self.network.get_input_embeddings().weight.requires_grad_(False)
        self._trunk_name = self.network.base_model_prefix
        self.trunk = self.network.base_model
        if self.trunk is self.network:
            raise RepresentationError(f"{folder}: {type(self.network).__name__} has no trunk apart from its head")
        if self.config.freeze_trunk:
            self.trunk.requires_grad_(False)
        self.cache: StateCache | None = None
        self._take_apart()
        self.register_markers(self.config.query_prompt, self.config.document_prompt)
        self.idf = self._idf(idf) if self.config.query_side == "idf" else None

    def encode(self, texts: Sequence[str], side: Side) -> Encoded:
        """Weights of all terms, (n_texts, n_terms) float32 >= 0."""
        if side == "query" and self.idf is not None:
            return Encoded(self._bags(texts) * self.idf.relu())
        states = self.states(texts, side)
        features, lengths = self.head(torch.cat(states)), [len(row) for row in states]
        weights = positive_maxima(features, lengths, self.decoder.weight, self.decoder.bias).log1p()
        return Encoded(weights.log1p() if self.config.activation == "log1p_relu" else weights)

    def scores(self, queries: Encoded, documents: Encoded, *, in_batch: bool) -> Tensor:
        """Dot products, or cosines; see `Student.scores`."""
        if self.config.similarity == "cosine":
            queries, documents = (Encoded(nn.functional.normalize(each.vectors, dim=-1)) for each in (queries, documents))
        return super().scores(queries, documents, in_batch=in_batch)

    def token_ids(self, texts: Sequence[str], side: Side) -> list[list[int]]:
        """What the trunk reads of each text: special tokens, prompt, text."""
        query = side == "query"
        prompt: str = self.config.query_prompt if query else self.config.document_prompt
        length = self.config.query_length if query else self.config.document_length
        return self.wordpieces.encode([prompt + text for text in texts], max_length=length)

    def states(self, texts: Sequence[str], side: Side) -> list[Tensor]:
        """States of each text's tokens, (n_tokens, hidden)."""
        ids, padding_id = self.token_ids(texts, side), self.network.config.pad_token_id or 0
        if self.config.freeze_trunk:
            return frozen_states(self.trunk, ids, padding_id, self.cache)
        return hidden_states(self.trunk, ids, padding_id)

    def head(self, states: Tensor) -> Tensor:
        """What the vocabulary layer sees of states: (n_tokens, hidden) of each."""
        self._given.states = states[None]
        # Ids are only looked at by their shape, and not even that by most.
        features: Tensor = self.network(input_ids=torch.zeros(1, len(states), dtype=torch.long, device=states.device)).logits
        return features[0]

    def head_layers(self) -> Iterator[nn.Module]:
        """Layers between the trunk and the vocabulary that have weights."""
        return (m for m in self.network.modules() if isinstance(m, nn.Linear | nn.LayerNorm))

    def save(self, folder: Path) -> None:
        """Write a plain transformers folder that is a sentence-transformers SparseEncoder, too.

        An inference-free student is a Router with the network in the root, and has an idf.json beside.
        """
        self.save_tokenizer(folder)
        self.network.set_submodule(self._trunk_name, self.trunk)
        self.network.set_submodule(self._decoder_name, self.decoder)
        try:
            with quiet_transformers():
                self.network.save_pretrained(folder)
        finally:
            self._take_apart()
        options = {
            **self.length_options(),
            "transformer_task": "fill-mask",
            "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
            "module_output_name": "token_embeddings",
        }
        write_json(folder / "sentence_bert_config.json", options)
        card: dict[str, Any] = {
            "model_type": "SparseEncoder",
            "similarity_fn_name": self.config.similarity,
            "prompts": {"query": self.config.query_prompt, "document": self.config.document_prompt},
            "default_prompt_name": None,
            **({"max_active_dims": self.top_k} if self.top_k else {}),
        }
        write_json(folder / "config_sentence_transformers.json", card)
        pooling = "1_SpladePooling" if self.idf is None else "document_1_SpladePooling"
        write_json(folder / pooling / "config.json", {
            "pooling_strategy": "max", "activation_function": self.config.activation, "embedding_dimension": None,
        })  # fmt: skip
        splade = f"{SPARSE}.splade_pooling.SpladePooling"
        if self.idf is None:
            write_modules(folder, [("", TRANSFORMER), (pooling, splade)])
            return
        self._save_idf(folder, folder / "query_0_SparseStaticEmbedding")
        write_modules(folder, [("", ROUTER)])
        static = f"{SPARSE}.sparse_static_embedding.SparseStaticEmbedding"
        write_json(folder / "router_config.json", {
            "types": {"": TRANSFORMER, pooling: splade, "query_0_SparseStaticEmbedding": static},
            "structure": {"query": ["query_0_SparseStaticEmbedding"], "document": ["", pooling]},
            "parameters": {"default_route": "document", "allow_empty_key": True},
        })  # fmt: skip

    def _take_apart(self) -> None:
        """Leave the layers between trunk and vocabulary in the network: it maps `_Given` states to what the decoder sees."""
        self._given = _Given()
        self.network.set_submodule(self._trunk_name, self._given)
        self.network.set_submodule(self._decoder_name, nn.Identity())

    def _save_idf(self, root: Path, folder: Path) -> None:
        assert self.idf is not None  # noqa: S101 -- only called then
        table = self.idf.detach().relu().cpu()
        write_idf(root / "idf.json", table.numpy(), self.wordpieces)
        copy_tokenizer(root, folder)
        save_file({"weight": table}, folder / "model.safetensors")
        write_json(folder / "config.json", {"frozen": not self.config.learn_idf})

    def _idf(self, table: Floats | None) -> nn.Parameter:
        if table is None or np.shape(table) != (self.n_terms,):
            raise ValueError(f"query_side='idf' needs idf, one weight for each of {self.n_terms} terms")
        weights = torch.from_numpy(np.maximum(table, 0).astype(np.float32))
        weights[sorted(self.wordpieces.special_ids)] = 0
        return nn.Parameter(weights, requires_grad=self.config.learn_idf)

    def _bags(self, texts: Sequence[str]) -> Tensor:
        bags = torch.zeros(len(texts), self.n_terms, device=self.decoder.weight.device)
        for row, text in zip(bags, texts, strict=True):
            row[self.wordpieces.terms(self.config.query_prompt + text, max_length=self.config.query_length)] = 1
        return bags


def _layout(root: Path, method: str) -> Layout:
    """The layout of a checkpoint, unless a student cannot keep it."""
    layout = read_layout(root)
    found = ""
    if layout.document.pooling != "max":
        found = "pooling_strategy sum, while students pool by max"
    elif method == "splade" and layout.query.folder != layout.document.folder:  # type: ignore[union-attr]
        found = "a network of its own for queries, while students have one for both sides"
    elif isinstance(layout.query, TableFiles) and not _read_alike(layout.query.tokenizer, layout.document.tokenizer):
        found = "a tokenizer of its own for queries, while students have one for both sides"
    if found:
        raise RepresentationError(f"{root}: found {found}: set ignore_layout=true to take the network alone")
    return layout


def _read_alike(one: Path, other: Path) -> bool:
    """Whether two tokenizers cut a text of capitals, accents, ideographs and signs alike."""
    first, second = Wordpieces(one), Wordpieces(other)
    return first.tokens == second.tokens and first.pieces([PROBE]) == second.pieces([PROBE])


def _stated(layout: Layout) -> dict[str, Any]:
    files = layout.document
    query_length = layout.query.max_length
    return {
        "activation": files.activation, "similarity": "cosine" if layout.normalize else "dot", "query_length": query_length,
        "document_length": files.max_length, "query_prompt": layout.query_prompt, "document_prompt": layout.document_prompt,
    }  # fmt: skip


def has_head(folder: Path) -> bool:
    """Whether a checkpoint holds layers before the vocabulary; old files without a list of names are taken to."""
    for path in weight_files(folder):
        if path.suffix != ".safetensors":
            return True
        with safe_open(path, "pt") as file:
            if any(name.startswith(HEADS) for name in file.keys()):  # noqa: SIM118 -- it is no mapping
                return True
    return False
