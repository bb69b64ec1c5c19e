"""SPLADE: texts as weights over the vocabulary of a masked language model.

v1 sums over positions (arXiv 2107.05720); v2, ++, v3 take the maximum (2109.10086, 2205.04733, 2403.06789).
SPLADE-doc expands documents only, its queries are bags of wordpieces; the "efficient" models have two towers
(2207.03834).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ...index.arguments import texts_of
from ...index.errors import RepresentationError
from ...index.representations.sparse import SparseVectors
from .base import fingerprint_of
from .checkpoints.splade import Activation, Layout, Pooling, TableFiles
from .tower import Tower, TowerEncoder, TowerSide, check_choices

if TYPE_CHECKING:
    from .networks.masked_lm import Dtype


@dataclass(frozen=True, kw_only=True)
class SpladeConfig:
    """What a user may choose; None leaves the checkpoint's choice.

    Attributes
    ----------
    model, query_model : str
        Folder or Hugging Face id; ``query_model`` encodes the queries when it is another one.
    document_max_length, query_max_length : int
        Tokens that are read, special tokens included; 256 where the checkpoint does not say.
    document_top_k, query_top_k : int
        Weights that a vector keeps.
    pooling, activation : str
        Override what the checkpoint says ("max" and "relu" where it does not say).
    queries : {"model", "bag"}
        "bag": a query is its distinct wordpieces, each of weight 1 (SPLADE-doc).
    lexical : {"none", "query", "document", "both"}
        Sides that keep only terms standing in the text (SPLADE-lexical).
    dtype : {"float32", "bfloat16", "int8"}
        Of the networks.
    """

    model: str
    query_model: str | None = None
    document_max_length: int | None = None
    query_max_length: int | None = None
    document_top_k: int | None = None
    query_top_k: int | None = None
    pooling: Pooling | None = None
    activation: Activation | None = None
    queries: Literal["model", "bag"] = "model"
    lexical: Literal["none", "query", "document", "both"] = "none"
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        check_choices(self)
        if self.queries == "bag" and (self.query_model or self.lexical in ("query", "both")):
            raise ValueError("queries='bag' takes no query_model, and its queries are lexical already")


class SpladeEncoder(TowerEncoder):
    """Encodes documents with one masked language model, and queries with the same, another, or none.

    Parameters
    ----------
    config : SpladeConfig
        Choices.
    layout : Layout
        The checkpoint's files, with the query side of ``config.query_model`` if there is one.
    device : str
        As torch names it.
    batch_size : int
        Texts in a batch; changes speed alone.

    Raises
    ------
    RepresentationError
        When the two towers have different vocabularies, or a tokenizer does not fit its model.
    """

    representation = "sparse"
    kind = "splade"

    def __init__(self, config: SpladeConfig, layout: Layout, *, device: str, batch_size: int) -> None:
        lexical = config.lexical in ("document", "both")
        super().__init__(config, layout, device=device, batch_size=batch_size, lexical=lexical)
        self._query = self._document
        if config.queries == "model":
            if isinstance(layout.query, TableFiles):
                raise RepresentationError(
                    f"{config.query_model or config.model}: its queries are a table of weights: load it as "
                    "kind='inference-free', or as 'splade' with queries='bag' or a query_model"
                )
            query = layout.query.pooled_as(config.pooling, config.activation)
            if query != self._document.files:
                self._query = Tower(query, device=device, dtype=config.dtype, batch_size=batch_size)
        if self._query.vocabulary != self._document.vocabulary:
            raise RepresentationError(
                f"{self._query.files.folder} and {self._document.files.folder} have different vocabularies: "
                "their vectors cannot be compared"
            )
        self._query_side = self._query.side(
            max_length=config.query_max_length,
            top_k=layout.top_k if config.query_top_k is None else config.query_top_k,
            lexical=config.lexical in ("query", "both"),
            prompt=layout.query_prompt,
            normalize=layout.normalize,
        )
        self.query_side = TowerSide(self._query, self._query_side) if config.queries == "model" else None
        """Queries' way through the tower; None where they are bags of words."""
        # A network that both sides need is read now, so that a broken checkpoint fails here; others wait.
        if config.queries == "model" and self._query is self._document:
            self._document.load()

    @property
    def fingerprint(self) -> str:
        """Hash of weights, tokenizers and settings of both sides."""
        query = {"bag": self._query.wordpieces.digest, **self._query_side.facts}
        if self._config.queries == "model":
            query = dict(self._query.facts(self._query_side))
        return fingerprint_of(self.kind, {"document": dict(self._document.facts(self._document_side)), "query": query})

    def encode_queries(self, texts: Sequence[str]) -> SparseVectors:
        """Encode queries; row ``i`` belongs to ``texts[i]``."""
        texts = texts_of(texts)
        if self._config.queries == "model":
            return self._query.encode(texts, self._query_side)
        side = self._query_side
        ones = np.ones(len(self.vocabulary), np.float32)
        texts = [side.prompt + text for text in texts]
        return side.finished(self._query.wordpieces.bags(texts, ones, max_length=side.max_length))
