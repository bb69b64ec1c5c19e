"""Dense single-vector models, as baselines of an evaluation: one vector a text, compared by inner products (arXiv 1908.10084).

Checkpoints of sentence-transformers; see `dense_layouts`. Indexes are not built of them: they are no `Encoder`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ...index.arguments import texts_of
from ...index.arrays import Floats
from ...index.errors import RepresentationError
from .base import fingerprint_of
from .checkpoints.colbert_layout import Projection
from .checkpoints.dense import DenseLayout, Pooling, read_dense_layout
from .tower import check_choices
from .wordpieces import Wordpieces, batches_by_length

if TYPE_CHECKING:
    import torch

    from .networks.masked_lm import Dtype

Layer = tuple["torch.Tensor", "torch.Tensor | None", str]
"""Weight (out, in), bias (out,), activation as torch.nn names it."""


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """What a user may choose; None leaves the checkpoint's choice.

    Attributes
    ----------
    document_length, query_length : int
        Tokens of a text that are read, special tokens included.
    document_prompt, query_prompt : str
        Put before texts.
    batch_size : int
        Texts in a batch; changes speed alone.
    dtype : {"float32", "bfloat16", "int8"}
        Of the transformer; pooling and what comes after it are float32 always.
    """

    document_length: int | None = None
    query_length: int | None = None
    document_prompt: str | None = None
    query_prompt: str | None = None
    batch_size: int = 32
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        check_choices(self)
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}: it must be >= 1")


class DenseEncoder:
    """Encodes texts as one vector each; the weights are read at the first text.

    Parameters
    ----------
    config : DenseConfig
        Choices.
    layout : DenseLayout
        The checkpoint's files.
    device : str
        As torch names it.

    Raises
    ------
    RepresentationError
        When the tokenizer does not fit the model.
    ValueError
        When a length is out of range.
    """

    representation = "dense"
    kind = "dense"

    def __init__(self, config: DenseConfig, layout: DenseLayout, *, device: str) -> None:
        self._config, self._layout, self._device = config, layout, device
        self._wordpieces = Wordpieces(layout.tokenizer, lowercase=layout.lowercase)
        self._wordpieces.vocabulary(layout.n_tokens)  # refuses the tokenizer of another model
        self._document_side = self._side(
            config.document_length, layout.document_length, config.document_prompt, layout.document_prompt
        )
        self._query_side = self._side(config.query_length, layout.query_length, config.query_prompt, layout.query_prompt)
        self._network: _DenseNetwork | None = None
        self._lock = threading.Lock()

    @cached_property
    def fingerprint(self) -> str:
        """Hash of weights, tokenizer and settings."""
        from .networks.loading import weights_digest

        layout = self._layout
        return fingerprint_of(
            self.kind,
            {
                "weights": [
                    weights_digest(folder) for folder in (layout.folder, *(each.folder for each in layout.projections))
                ],
                "tokenizer": self._wordpieces.digest,
                "pooling": layout.pooling,
                "normalize": layout.normalize or layout.normalize_last,
                **({"truncate_dim": [layout.truncate_dim, layout.normalize_last]} if layout.truncate_dim else {}),
                "document": self._document_side,
                "query": self._query_side,
                "dtype": self._config.dtype,
            },
        )

    @property
    def dim(self) -> int:
        """Numbers of a vector."""
        return self._layout.dim

    def encode_documents(self, texts: Sequence[str]) -> Floats:
        """Encode documents, (n_texts, dim) float32; inner products with queries are the model's similarity."""
        return self._encode(texts, *self._document_side)

    def encode_queries(self, texts: Sequence[str]) -> Floats:
        """Encode queries, (n_texts, dim) float32."""
        return self._encode(texts, *self._query_side)

    def _side(self, length: int | None, stated_length: int, prompt: str | None, stated_prompt: str) -> tuple[int, str]:
        """Length and prompt of one side."""
        length = stated_length if length is None else length
        if not 3 <= length <= self._layout.length_limit:
            raise ValueError(f"a length is {length}: this model reads 3 to {self._layout.length_limit} tokens")
        return length, stated_prompt if prompt is None else prompt

    def _encode(self, texts: Sequence[str], length: int, prompt: str) -> Floats:
        texts = texts_of(texts)
        with self._lock:
            if self._network is None:
                self._network = _DenseNetwork(self._layout, device=self._device, dtype=self._config.dtype)
        rows = self._wordpieces.encode([prompt + text for text in texts], max_length=length)
        vectors = np.empty((len(rows), self.dim), np.float32)
        for batch in batches_by_length(rows, self._config.batch_size):
            vectors[batch] = self._network.vectors([rows[number] for number in batch])
        return vectors


def load_dense_encoder(model: str, *, device: str = "cpu", **options: Any) -> DenseEncoder:
    """Make the encoder of a dense model.

    Parameters
    ----------
    model : str
        As `loader.resolve_model` takes it.
    device : str
        As torch names it.
    **options
        Fields of `DenseConfig`.

    Raises
    ------
    LexmaxError
        When the model cannot be found.
    RepresentationError
        When it is no dense model, or one that is not known.
    ValueError, TypeError
        When an option is unknown or out of range.
    """
    from .loader import resolve_model

    known = {field.name for field in fields(DenseConfig)}
    unknown = sorted(set(options) - known)
    if unknown:
        raise TypeError(f"unknown options {', '.join(unknown)}: DenseConfig takes {', '.join(sorted(known))}")
    return DenseEncoder(DenseConfig(**options), read_dense_layout(resolve_model(model)), device=device)


class _DenseNetwork:
    """A loaded transformer, its pooling and its projections."""

    def __init__(self, layout: DenseLayout, *, device: str, dtype: Dtype) -> None:
        from .networks.loading import load_network
        from .networks.trunk import shared_trunk

        # Vectors are made of hidden states: a network's own pooler is not asked.
        network = load_network(layout.folder, "AutoModel", may_lack=["pooler."], hint="are these the weights of this network?")
        self._trunk = shared_trunk(network, layout.folder, device=device, dtype=dtype)
        self._layers = [_read_layer(files, device) for files in layout.projections]
        self._layout = layout

    def vectors(self, rows: Sequence[Sequence[int]]) -> Floats:
        """Vectors of texts given as token ids, (n_texts, dim) float32."""
        import torch

        from .networks.trunk import Row

        layout = self._layout
        with torch.inference_mode():
            states = self._trunk.states([Row(tuple(row), len(row)) for row in rows])
            vectors = torch.stack([_pool(each.float(), layout.pooling) for each in states])
            for weight, bias, activation in self._layers:
                vectors = getattr(torch.nn, activation)()(torch.nn.functional.linear(vectors, weight, bias))
            if layout.normalize:
                vectors = torch.nn.functional.normalize(vectors, dim=-1)
            vectors = vectors[:, : layout.truncate_dim]
            if layout.normalize_last:
                vectors = torch.nn.functional.normalize(vectors, dim=-1)
            return np.asarray(vectors.cpu().numpy(), np.float32)


def _pool(states: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Pool the states of a text, (n_tokens, hidden)."""
    if pooling == "cls":
        return states[0]
    return states.amax(0) if pooling == "max" else states.mean(0)


def _read_layer(files: Projection, device: str) -> Layer:
    from .networks.loading import read_tensors

    shapes: dict[str, tuple[int, ...]] = {"linear.weight": (files.out_features, files.in_features)}
    if files.bias:
        shapes["linear.bias"] = (files.out_features,)
    found = read_tensors(files.folder, shapes)
    wrong = [name for name, shape in shapes.items() if name not in found or tuple(found[name].shape) != shape]
    if wrong:
        raise RepresentationError(f"{files.folder}: {', '.join(wrong)} not there, or of other shapes than config.json says")
    tensors = {name: tensor.float().to(device) for name, tensor in found.items()}
    return tensors["linear.weight"], tensors.get("linear.bias"), files.activation
