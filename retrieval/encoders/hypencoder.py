"""Hypencoder (arXiv 2502.05364): a document is one vector, a query a small network that scores it.

Documents are the [CLS] state of a BERT, as it is; a head makes each query's network of its tokens' states, see
`networks.hyper_head`. The published checkpoints are read; see `checkpoints.hypencoder`.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ...index.arguments import texts_of
from ...index.arrays import Floats
from ...index.representations.dense import DenseVectors
from ...index.representations.nets import QueryNets, n_numbers
from .base import fingerprint_of
from .checkpoints.hypencoder import HypencoderLayout
from .shared_pass import TextRow, encode_side, text_rows
from .tower import check_choices, chosen, length_of
from .wordpieces import Wordpieces

if TYPE_CHECKING:
    import torch

    from .networks.hyper_head import HypencoderNetwork
    from .networks.masked_lm import Dtype
    from .networks.trunk import Trunk


@dataclass(frozen=True, kw_only=True)
class HypencoderConfig:
    """What a user may choose; None leaves the checkpoint's choice.

    Attributes
    ----------
    model : str
        Folder or Hugging Face id.
    document_length, query_length : int
        Tokens of a text that are read, special tokens included.
    dtype : {"float32", "bfloat16", "int8"}
        Of the transformer; the head is float32 always.
    """

    model: str
    document_length: int | None = None
    query_length: int | None = None
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        check_choices(self)


class HypencoderEncoder:
    """Encodes documents as vectors and queries as networks; the weights are read at the first text.

    Parameters
    ----------
    config : HypencoderConfig
        Choices.
    layout : HypencoderLayout
        The checkpoint's files.
    device : str
        As torch names it.
    batch_size : int
        Texts in a batch; changes speed alone.

    Raises
    ------
    RepresentationError
        When the tokenizer does not fit the model.
    ValueError
        When a length is out of range.
    """

    representation = "nets"
    kind = "hypencoder"

    def __init__(self, config: HypencoderConfig, layout: HypencoderLayout, *, device: str, batch_size: int) -> None:
        self._config, self.layout = config, layout
        self._device, self._batch_size = device, batch_size
        self.wordpieces = Wordpieces(layout.tokenizer, lowercase=layout.lowercase)
        self.wordpieces.vocabulary(layout.n_tokens)  # refuses the tokenizer of another model
        self._network: HypencoderNetwork | None = None
        self._lock = threading.Lock()
        self.document_side = DocumentSide(self, length_of(config.document_length, layout.document_length, layout.length_limit))
        self.query_side = QuerySide(self, length_of(config.query_length, layout.query_length, layout.length_limit))
        """The two sides' ways through the network; see `.shared_pass`."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """The choices that differ from the defaults."""
        return chosen(self._config)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of weights, tokenizer and settings."""
        from .networks.loading import weights_digest

        facts = {
            "weights": weights_digest(self.layout.folder),
            "transformer": dict(self.layout.transformer),
            "tokenizer": self.wordpieces.digest,
            "sizes": self.layout.sizes,
            "document": self.document_side.length,
            "query": self.query_side.length,
            "dtype": self._config.dtype,
        }
        return fingerprint_of(self.kind, facts)

    @property
    def dim(self) -> int:
        """Numbers of a document's vector."""
        return self.layout.sizes[0]

    def encode_documents(self, texts: Sequence[str]) -> DenseVectors:
        """Encode documents; row ``i`` belongs to ``texts[i]``. The first call loads the network."""
        found: DenseVectors = encode_side(self.document_side, texts_of(texts), self._batch_size)
        return found

    def encode_queries(self, texts: Sequence[str]) -> QueryNets:
        """Encode queries; network ``i`` belongs to ``texts[i]``. A 6-layer one of 768 numbers is 14 MB: take few at once."""
        found: QueryNets = encode_side(self.query_side, texts_of(texts), self._batch_size)
        return found

    def n_truncated(self, texts: Sequence[str]) -> int:
        """How many of the documents are longer than the encoder reads, and lose their ends."""
        room = self.document_side.length - len(self.wordpieces.head) - len(self.wordpieces.tail)
        return sum(len(pieces) > room for pieces in self.wordpieces.pieces(texts))

    def load(self) -> HypencoderNetwork:
        """Read the weights, once.

        Raises
        ------
        RepresentationError
            When they are incomplete or of another size than the JSON files say.
        """
        with self._lock:
            if self._network is None:
                from .networks.hyper_head import HypencoderNetwork

                self._network = HypencoderNetwork(self.layout, device=self._device, dtype=self._config.dtype)
            return self._network


class Side(ABC):
    """One side of a Hypencoder; see `.shared_pass.NetworkSide`."""

    def __init__(self, encoder: HypencoderEncoder, length: int) -> None:
        self._encoder, self.length = encoder, length

    @property
    @abstractmethod
    def trunk(self) -> Trunk:
        """The side's trunk, loaded."""

    @property
    def facts(self) -> str:
        """Whatever changes what texts become."""
        return self._encoder.fingerprint

    def rows(self, texts: Sequence[str]) -> list[TextRow]:
        """Rows of tokens of the texts, cut to the side's length."""
        return text_rows(self._encoder.wordpieces, texts, self.length)

    @abstractmethod
    def results(self, rows: Sequence[TextRow], states: Sequence[torch.Tensor]) -> list[Floats]:
        """Numbers of each text from the trunk's states."""


class DocumentSide(Side):
    """Documents' way through the network."""

    @property
    def trunk(self) -> Trunk:
        """The documents' trunk, loaded."""
        return self._encoder.load().document_trunk

    def results(self, rows: Sequence[TextRow], states: Sequence[torch.Tensor]) -> list[Floats]:
        """One vector (dim,) of each text from the trunk's states."""
        return list(self._encoder.load().vectors_of(states))

    def joined(self, results: Sequence[Floats]) -> DenseVectors:
        """Join texts."""
        return DenseVectors(np.concatenate([np.empty((0, self._encoder.dim), np.float32), *(each[None] for each in results)]))


class QuerySide(Side):
    """Queries' way through the network."""

    @property
    def trunk(self) -> Trunk:
        """The queries' trunk, loaded."""
        return self._encoder.load().query_trunk

    def results(self, rows: Sequence[TextRow], states: Sequence[torch.Tensor]) -> list[Floats]:
        """Numbers (n_numbers,) of each text's network from the trunk's states."""
        return list(self._encoder.load().nets_of(states))

    def joined(self, results: Sequence[Floats]) -> QueryNets:
        """Join texts."""
        sizes = self._encoder.layout.sizes
        return QueryNets(
            sizes, np.concatenate([np.empty((0, n_numbers(sizes)), np.float32), *(each[None] for each in results)])
        )
