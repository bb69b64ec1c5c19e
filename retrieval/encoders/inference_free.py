"""Inference-free learned sparse retrieval: queries cost one look-up a token (arXiv 2411.04403, 2504.14839).

A query is its distinct wordpieces, weighed by a table (IDF, or learnt); special tokens and tokens outside the
table weigh 0. Documents pass through a SPLADE tower. The query path needs tokenizers and NumPy alone: the
first document loads torch and the network.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ...index.arguments import texts_of
from ...index.arrays import Floats
from ...index.errors import RepresentationError
from ...index.representations.sparse import SparseVectors
from .base import fingerprint_of
from .checkpoints.splade import Activation, Layout, Pooling, TableFiles
from .tower import SideSettings, TowerEncoder, check_choices
from .wordpieces import Wordpieces, spare_rows

if TYPE_CHECKING:
    from .networks.masked_lm import Dtype


@dataclass(frozen=True, kw_only=True)
class InferenceFreeConfig:
    """What a user may choose, as in :class:`.splade.SpladeConfig`; None leaves the checkpoint's choice."""

    model: str
    document_max_length: int | None = None
    query_max_length: int | None = None
    document_top_k: int | None = None
    query_top_k: int | None = None
    pooling: Pooling | None = None
    activation: Activation | None = None
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        check_choices(self)


class InferenceFreeEncoder(TowerEncoder):
    """Encodes documents with a masked language model and queries with a table.

    Parameters
    ----------
    config : InferenceFreeConfig
        Choices.
    layout : Layout
        The checkpoint's files; its query side must be a table.
    device : str
        As torch names it.
    batch_size : int
        Documents in a batch; changes speed alone.

    Raises
    ------
    RepresentationError
        When there is no table, or it belongs to another vocabulary than the network.
    """

    representation = "sparse"
    kind = "inference-free"

    def __init__(self, config: InferenceFreeConfig, layout: Layout, *, device: str, batch_size: int) -> None:
        if not isinstance(layout.query, TableFiles):
            raise RepresentationError(
                f"{config.model}: no table of query weights (idf.json or SparseStaticEmbedding); load it as kind='splade'"
            )
        super().__init__(config, layout, device=device, batch_size=batch_size)
        document = self._document.files
        self._query_side = SideSettings(
            max_length=layout.query.max_length if config.query_max_length is None else config.query_max_length,
            top_k=layout.top_k if config.query_top_k is None else config.query_top_k,
            prompt=layout.query_prompt,
            normalize=layout.normalize,
        )
        if layout.query.tokenizer != document.tokenizer:
            self._wordpieces = Wordpieces(layout.query.tokenizer)
        if self._wordpieces.tokens != self._document.wordpieces.tokens:
            raise RepresentationError(f"{layout.query.tokenizer} and {document.tokenizer} have different vocabularies")
        self._table = read_table(layout.query, self._wordpieces, document.n_terms)

    @property
    def fingerprint(self) -> str:
        """Hash of weights, table, tokenizers and settings of both sides."""
        query = {
            "table": hashlib.sha256(self._table.tobytes()).hexdigest(),
            "tokenizer": self._wordpieces.digest,
            **self._query_side.facts,
        }
        return fingerprint_of(self.kind, {"document": dict(self._document.facts(self._document_side)), "query": query})

    def encode_queries(self, texts: Sequence[str]) -> SparseVectors:
        """Look up queries; row ``i`` belongs to ``texts[i]``."""
        texts = texts_of(texts)
        side = self._query_side
        bags = self._wordpieces.bags([side.prompt + text for text in texts], self._table, max_length=side.max_length)
        return side.finished(bags)


def read_table(files: TableFiles, wordpieces: Wordpieces, n_terms: int) -> Floats:
    """Query weights by term, (n_terms,) float32, >= 0; what the table does not name weighs 0.

    Raises
    ------
    RepresentationError
        When the file is malformed or made for another vocabulary.
    """
    table = np.zeros(n_terms, np.float32)
    try:
        if files.weights.suffix == ".json":
            by_token: dict[str, float] = json.loads(files.weights.read_text(encoding="utf-8"))
            pairs = [(i, by_token[token]) for i, token in enumerate(wordpieces.tokens) if token in by_token]
            n_foreign = len(by_token) - len(pairs)
            if n_foreign > len(pairs):
                raise RepresentationError(
                    f"{files.weights}: {n_foreign} of {len(by_token)} tokens are unknown to the tokenizer"
                )
            table[[i for i, _ in pairs]] = [weight for _, weight in pairs]
        else:
            weights = load_file(files.weights)["weight"].ravel()
            if not n_terms - spare_rows(n_terms) <= len(weights) <= n_terms:
                raise RepresentationError(
                    f"{files.weights}: {len(weights)} weights, but the model has {n_terms} output dimensions"
                )
            table[: len(weights)] = weights
    except (AttributeError, KeyError, OSError, SafetensorError, TypeError, ValueError) as error:
        raise RepresentationError(f"{files.weights} is not a table of token weights: {error}") from error
    if not np.all(np.isfinite(table)):
        raise RepresentationError(f"{files.weights}: weights must be finite")
    return np.maximum(table, 0)
