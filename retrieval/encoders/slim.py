"""SLIM: texts as one sparse vector over the vocabulary a token, compared by late interaction (arXiv 2302.06587).

::

    phi_i = log1p(relu(W_i)), its top_k largest weights          W_i: logits of position i; the first position is dropped
    s(q, d) = sum_i max_j phi_i(q) . phi_j(d)

A checkpoint is a plain ``*ForMaskedLM``, which nothing tells from a SPLADE: the user must say ``kind="slim"``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...index.arguments import texts_of
from ...index.arrays import Floats
from ...index.errors import RepresentationError
from ...index.representations.sparse import SparseVectors
from ...index.representations.sparse_multivectors import SparseMultiVectors
from .base import fingerprint_of
from .checkpoints.splade import Layout
from .tower import SideSettings, Tower, check_choices, chosen
from .wordpieces import batches_by_length

if TYPE_CHECKING:
    from .networks.masked_lm import Dtype

N_DROPPED = 1
"""Leading positions ([CLS]) that make no vector."""


@dataclass(frozen=True, kw_only=True)
class SlimConfig:
    """What a user may choose.

    Attributes
    ----------
    model : str
        Folder or Hugging Face id.
    document_max_length, query_max_length : int or None
        Tokens that are read, special tokens included; None: the checkpoint's, or 256.
    document_top_k, query_top_k : int
        Weights that a token keeps, where that many are > 0; of equal ones any.
    dtype : {"float32", "bfloat16", "int8"}
        Of the network.
    """

    model: str
    document_max_length: int | None = None
    query_max_length: int | None = None
    document_top_k: int = 20
    query_top_k: int = 20
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        check_choices(self)
        for name in ("document_top_k", "query_top_k"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be >= 1")


class SlimEncoder:
    """Encodes documents and queries as sparse token vectors; the weights are read at the first text.

    Parameters
    ----------
    config : SlimConfig
        Choices.
    layout : Layout
        The checkpoint's files.
    device : str
        As torch names it.
    batch_size : int
        Texts in a batch; changes speed alone.

    Raises
    ------
    RepresentationError
        When the checkpoint's queries have an encoder of their own, or the tokenizer does not fit the model.
    """

    representation = "sparse-tokens"
    kind = "slim"

    def __init__(self, config: SlimConfig, layout: Layout, *, device: str, batch_size: int) -> None:
        if layout.query != layout.document:
            raise RepresentationError(
                f"{config.model}: its queries have an encoder of their own: SLIM has one network for both"
            )
        if layout.normalize:
            raise RepresentationError(f"{config.model}: its vectors are compared by the cosine, which SLIM does not know")
        self._config, self._batch_size = config, batch_size
        files = layout.document.pooled_as("max", "relu")  # SLIM's activation, whatever a SPLADE would make of the checkpoint
        self._tower = Tower(files, device=device, dtype=config.dtype, batch_size=batch_size)
        self._document_side = self._tower.side(
            max_length=config.document_max_length, top_k=config.document_top_k, prompt=layout.document_prompt
        )
        self._query_side = self._tower.side(
            max_length=config.query_max_length, top_k=config.query_top_k, prompt=layout.query_prompt
        )

    @property
    def settings(self) -> Mapping[str, Any]:
        """The choices that differ from the defaults."""
        return chosen(self._config)

    @property
    def fingerprint(self) -> str:
        """Hash of weights, tokenizer and settings of both sides."""
        sides = {"document": self._document_side, "query": self._query_side}
        return fingerprint_of(self.kind, {name: dict(self._tower.facts(side)) for name, side in sides.items()})

    @property
    def vocabulary(self) -> Sequence[str]:
        """Token strings of the output dimensions."""
        return self._tower.vocabulary

    def encode_documents(self, texts: Sequence[str]) -> SparseMultiVectors:
        """Encode documents; text ``i`` of the result belongs to ``texts[i]``. The first call loads torch and the network."""
        return self._encode(texts, self._document_side, self._config.document_top_k)

    def encode_queries(self, texts: Sequence[str]) -> SparseMultiVectors:
        """Encode queries; text ``i`` of the result belongs to ``texts[i]``."""
        return self._encode(texts, self._query_side, self._config.query_top_k)

    def surface_terms(self, text: str) -> set[str]:
        """Wordpieces of the text, special tokens left out."""
        return {self.vocabulary[term] for term in self._tower.wordpieces.terms(text)}

    def _encode(self, texts: Sequence[str], side: SideSettings, top_k: int) -> SparseMultiVectors:
        texts = texts_of(texts)
        model = self._tower.load()
        ids = self._tower.wordpieces.encode([side.prompt + text for text in texts], max_length=side.max_length)
        rows: list[SparseVectors] = [_sparse(np.empty((0, 1), np.int64), np.empty((0, 1), np.float32))] * len(texts)
        for batch in batches_by_length(ids, self._batch_size):
            terms, weights = model.top_terms([ids[i] for i in batch], top_k, n_dropped=N_DROPPED)
            ends = np.cumsum([max(0, len(ids[i]) - N_DROPPED) for i in batch])[:-1]
            for i, text_terms, text_weights in zip(batch, np.split(terms, ends), np.split(weights, ends), strict=True):
                rows[i] = _sparse(text_terms, text_weights)
        return SparseMultiVectors.of(rows)


def _sparse(terms: npt.NDArray[np.int64], weights: Floats) -> SparseVectors:
    """Make a sparse row of each row of (n_tokens, k) terms and weights, zeros left out."""
    order = np.argsort(terms, axis=1)
    terms, weights = np.take_along_axis(terms, order, 1), np.take_along_axis(weights, order, 1)
    kept = weights > 0
    indptr = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int64)
    return SparseVectors(indptr, terms[kept].astype(np.int32), weights[kept])
