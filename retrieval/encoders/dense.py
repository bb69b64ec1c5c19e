"""Dense encoders: one vector a text, compared by inner products (Sentence-BERT, arXiv 1908.10084).

Checkpoints of sentence-transformers; see `checkpoints.dense`. Documents may have several vectors, of which the best counts
(ME-BERT, arXiv 2005.00181): the states of their first tokens, where a query has that of its [CLS].
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...index.arguments import texts_of
from ...index.arrays import Floats
from ...index.dense.config import MAX_VECTORS
from ...index.errors import RepresentationError
from ...index.representations.dense import DenseVectors
from .base import Side, fingerprint_of
from .checkpoints.colbert_layout import Projection
from .checkpoints.dense import DenseLayout, Pooling
from .shared_pass import TextRow, encode_side, text_rows
from .tower import check_choices, chosen, length_of
from .wordpieces import Wordpieces

if TYPE_CHECKING:
    import torch

    from .networks.masked_lm import Dtype
    from .networks.trunk import Trunk

Layer = tuple["torch.Tensor", "torch.Tensor | None", str]
"""Weight (out, in), bias (out,), activation as torch.nn names it."""


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """What a user may choose; None leaves the checkpoint's choice.

    Attributes
    ----------
    model : str
        Folder or Hugging Face id.
    document_length, query_length : int
        Tokens of a text that are read, special tokens included.
    document_prompt, query_prompt : str
        Put before texts.
    vectors_per_doc : int
        Vectors of a document: the states of so many first tokens, for models that take that of [CLS]. A shorter document has
        its first vector again in the others' places.
    dtype : {"float32", "bfloat16", "int8"}
        Of the transformer; pooling and what comes after it are float32 always.
    """

    model: str
    document_length: int | None = None
    query_length: int | None = None
    document_prompt: str | None = None
    query_prompt: str | None = None
    vectors_per_doc: int = 1
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        check_choices(self)
        if not 1 <= self.vectors_per_doc <= MAX_VECTORS:
            raise ValueError(f"vectors_per_doc is {self.vectors_per_doc}: it must be 1 to {MAX_VECTORS}")


class SideText(NamedTuple):
    """How texts of one side are read: tokens of a text, special ones included, and what is put before it."""

    max_length: int
    prompt: str


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
    batch_size : int
        Texts in a batch; changes speed alone.

    Raises
    ------
    RepresentationError
        When the tokenizer does not fit the model, or several vectors are wanted of one that does not take [CLS].
    ValueError
        When a length is out of range.
    """

    representation = "dense"
    kind = "dense"

    def __init__(self, config: DenseConfig, layout: DenseLayout, *, device: str, batch_size: int) -> None:
        self._config, self._layout = config, layout
        self._device, self._batch_size = device, batch_size
        self.wordpieces = Wordpieces(layout.tokenizer, lowercase=layout.lowercase)
        self.wordpieces.vocabulary(layout.n_tokens)  # refuses the tokenizer of another model
        self._network: DenseNetwork | None = None
        self._lock = threading.Lock()
        if config.vectors_per_doc > 1 and layout.pooling != "cls":
            wanted = f"vectors_per_doc={config.vectors_per_doc}"
            raise RepresentationError(f"{layout.folder}: {wanted} is for cls pooling, and this model's is {layout.pooling}")
        document = self._side(config.document_length, layout.document_length, config.document_prompt, layout.document_prompt)
        query = self._side(config.query_length, layout.query_length, config.query_prompt, layout.query_prompt)
        self.document_side, self.query_side = DenseSide(self, "document", document), DenseSide(self, "query", query)
        """The two sides' ways through the network; see `.shared_pass`."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """The choices that differ from the defaults."""
        return chosen(self._config)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of weights, tokenizer and settings."""
        return fingerprint_of(self.kind, self._facts())

    def _facts(self) -> dict[str, Any]:
        from .networks.loading import weights_digest

        layout = self._layout
        folders = [layout.folder, *(each.folder for each in layout.projections)]
        return {
            "weights": [weights_digest(folder) for folder in folders],
            "tokenizer": self.wordpieces.digest,
            "pooling": layout.pooling,
            "normalize": [layout.normalize, layout.truncate_dim, layout.normalize_last],
            "document": self.document_side.text,
            "query": self.query_side.text,
            "dtype": self._config.dtype,
            **({"vectors_per_doc": self.vectors_per_doc} if self.vectors_per_doc > 1 else {}),
        }

    @property
    def vectors_per_doc(self) -> int:
        """Vectors of a document; they stand one after the other in its row."""
        return self._config.vectors_per_doc

    @property
    def dim(self) -> int:
        """Numbers of a vector."""
        return self._layout.dim

    def encode_documents(self, texts: Sequence[str]) -> DenseVectors:
        """Encode documents; inner products with queries are the model's similarity. The first call loads the network.

        Rows have ``vectors_per_doc * dim`` numbers.
        """
        found: DenseVectors = encode_side(self.document_side, texts_of(texts), self._batch_size)
        return found

    def encode_queries(self, texts: Sequence[str]) -> DenseVectors:
        """Encode queries; row ``i`` belongs to ``texts[i]``."""
        found: DenseVectors = encode_side(self.query_side, texts_of(texts), self._batch_size)
        return found

    def n_truncated(self, texts: Sequence[str]) -> int:
        """How many of the documents are longer than the encoder reads, and lose their ends."""
        side = self.document_side.text
        room = side.max_length - len(self.wordpieces.head) - len(self.wordpieces.tail)
        return sum(len(pieces) > room for pieces in self.wordpieces.pieces([side.prompt + text for text in texts]))

    def load(self) -> DenseNetwork:
        """Read the weights, once.

        Raises
        ------
        RepresentationError
            When they are incomplete or of another size than the JSON files say.
        """
        with self._lock:
            if self._network is None:
                self._network = self._new_network()
            return self._network

    def _new_network(self) -> DenseNetwork:
        return DenseNetwork(self._layout, device=self._device, dtype=self._config.dtype, vectors_per_doc=self.vectors_per_doc)

    def _side(self, length: int | None, stated_length: int, prompt: str | None, stated_prompt: str) -> SideText:
        return SideText(
            length_of(length, stated_length, self._layout.length_limit), stated_prompt if prompt is None else prompt
        )


class DenseSide:
    """One side of a dense encoder; see `.shared_pass.NetworkSide`."""

    def __init__(self, encoder: DenseEncoder, side: Side, text: SideText) -> None:
        self._encoder, self._side, self.text = encoder, side, text

    @property
    def trunk(self) -> Trunk:
        """The network's trunk, loaded."""
        return self._encoder.load().trunk

    @property
    def facts(self) -> str:
        """Whatever changes the vectors."""
        return f"{self._encoder.fingerprint} {self.text}"

    def rows(self, texts: Sequence[str]) -> list[TextRow]:
        """Rows of tokens of the texts, cut to the side's length."""
        return text_rows(self._encoder.wordpieces, [self.text.prompt + text for text in texts], self.text.max_length)

    def results(self, rows: Sequence[TextRow], states: Sequence[torch.Tensor]) -> list[Floats]:
        """One vector (dim,) of each text from the trunk's states."""
        return list(self._encoder.load().vectors_of(states, self._side))

    def joined(self, results: Sequence[Floats]) -> DenseVectors:
        """Join texts."""
        width = self._encoder.dim * (self._encoder.vectors_per_doc if self._side == "document" else 1)
        return DenseVectors(np.concatenate([np.empty((0, width), np.float32), *(each[None] for each in results)]))


class DenseNetwork:
    """A loaded transformer, its pooling and its projections."""

    def __init__(self, layout: DenseLayout, *, device: str, dtype: Dtype, vectors_per_doc: int = 1) -> None:
        from .networks.loading import load_network
        from .networks.trunk import shared_trunk

        # Vectors are made of hidden states: a network's own pooler is not asked.
        network = load_network(layout.folder, "AutoModel", may_lack=["pooler."], hint="are these the weights of this network?")
        self.trunk = shared_trunk(network, layout.folder, device=device, dtype=dtype)
        self._layers = [_read_layer(files, device) for files in layout.projections]
        self._layout, self._vectors_per_doc = layout, vectors_per_doc

    def vectors_of(self, states: Sequence[torch.Tensor], side: Side) -> Floats:
        """Vectors (n_texts, dim) float32 of texts whose trunk states, (n_tokens, hidden) each, are known.

        Of documents, (n_texts, vectors_per_doc * dim).
        """
        import torch

        layout = self._layout
        with torch.inference_mode():
            if self._vectors_per_doc > 1 and side == "document":
                vectors = torch.stack([_first(each.float(), self._vectors_per_doc) for each in states])
            else:
                vectors = torch.stack([_pool(each.float(), layout.pooling) for each in states])
            for weight, bias, activation in self._layers:
                vectors = getattr(torch.nn, activation)()(torch.nn.functional.linear(vectors, weight, bias))
            if layout.normalize:
                vectors = torch.nn.functional.normalize(vectors, dim=-1)
            vectors = vectors[..., : layout.truncate_dim]
            if layout.normalize_last:
                vectors = torch.nn.functional.normalize(vectors, dim=-1)
            return np.asarray(vectors.reshape(len(states), -1).cpu().numpy(), np.float32)


def _pool(states: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Pool the states of a text, (n_tokens, hidden)."""
    if pooling == "cls":
        return states[0]
    return states.amax(0) if pooling == "max" else states.mean(0)


def _first(states: torch.Tensor, n: int) -> torch.Tensor:
    """States of a text's first n tokens, (n, hidden); the first one's in the places of those that it lacks."""
    return states[[i if i < len(states) else 0 for i in range(n)]]


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
