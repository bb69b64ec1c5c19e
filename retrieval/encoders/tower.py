"""One neural side of a sparse encoder: texts -> masked language model -> pruned sparse rows.

Variants of SPLADE (arXiv 2109.10086) that act on the finished rows: keep the ``top_k`` largest weights, or
only terms that stand in the text itself ("lexical").
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...index.arguments import texts_of
from ...index.arrays import Floats
from ...index.errors import RepresentationError
from ...index.representations.sparse import SparseVectors
from .checkpoints.splade import ACTIVATIONS, POOLINGS, Layout, TowerFiles
from .networks.trunk import Row
from .wordpieces import Wordpieces, batches_by_length

if TYPE_CHECKING:
    import torch

    from .networks.masked_lm import Dtype, MaskedLanguageModel
    from .networks.trunk import Trunk


CHOICES: Mapping[str, Sequence[str]] = {
    "pooling": POOLINGS,
    "activation": ACTIVATIONS,
    "dtype": ("float32", "bfloat16", "int8"),
    "queries": ("model", "bag"),
    "lexical": ("none", "query", "document", "both"),
}


@dataclass(frozen=True, kw_only=True)
class SideSettings:
    """How texts of one side are cut and their vectors pruned.

    Attributes
    ----------
    max_length : int
        Tokens of a text that are read, special tokens included.
    top_k : int or None
        Weights that a vector keeps, the largest; None keeps all.
    lexical : bool
        Keep only terms that stand in the text.
    prompt : str
        Put before each text.
    normalize : bool
        Bring vectors to unit length, after all else.
    """

    max_length: int
    top_k: int | None = None
    lexical: bool = False
    prompt: str = ""
    normalize: bool = False

    def __post_init__(self) -> None:
        if self.max_length < 3:
            raise ValueError(f"max_length is {self.max_length}: it must leave room beside the special tokens, >= 3")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}: it must be >= 1, or None to keep every weight")

    @property
    def facts(self) -> dict[str, Any]:
        """Whatever changes the vectors; ``normalize`` only where it is done, so that fingerprints of other models stay."""
        return {name: value for name, value in asdict(self).items() if name != "normalize" or value}

    def finished(self, vectors: SparseVectors) -> SparseVectors:
        """Keep each row's largest weights, and bring it to unit length where that is asked for."""
        vectors = keep_largest(vectors, self.top_k)
        return unit_length(vectors) if self.normalize else vectors


class Tower:
    """A masked language model with its tokenizer; the weights are read at the first text, or by :meth:`load`.

    Parameters
    ----------
    files : TowerFiles
        From :func:`.layouts.read_layout`.
    device, dtype : str
        As :class:`.backbone.MaskedLanguageModel` takes them.
    batch_size : int
        Texts in a batch.
    """

    def __init__(self, files: TowerFiles, *, device: str, dtype: Dtype, batch_size: int) -> None:
        self.files = files
        self.wordpieces = Wordpieces(files.tokenizer, lowercase=files.lowercase)
        self.vocabulary = self.wordpieces.vocabulary(files.n_terms)
        self._device, self._dtype, self._batch_size = device, dtype, batch_size
        self._model: MaskedLanguageModel | None = None
        self._lock = threading.Lock()

    def side(
        self, *, max_length: int | None, top_k: int | None, lexical: bool = False, prompt: str = "", normalize: bool = False
    ) -> SideSettings:  # fmt: skip
        """Make the settings of one side, with the checkpoint's own length where ``max_length`` is None.

        Raises
        ------
        ValueError
            When a number is out of range, such as a length beyond the model's positions.
        """
        if max_length is not None and max_length > self.files.length_limit:
            raise ValueError(f"max_length is {max_length}, but the model reads {self.files.length_limit} tokens at most")
        length = self.files.max_length if max_length is None else max_length
        return SideSettings(max_length=length, top_k=top_k, lexical=lexical, prompt=prompt, normalize=normalize)

    def facts(self, settings: SideSettings) -> Mapping[str, Any]:
        """Whatever changes the vectors, for a fingerprint.

        The dtype is among it: bfloat16 and int8 move weights in the third digit, and an index must not mix them.
        """
        return {
            "weights": self._weights_digest,
            "tokenizer": self.wordpieces.digest,
            "pooling": self.files.pooling,
            "activation": self.files.activation,
            "dtype": self._dtype,
            **settings.facts,
        }

    @cached_property
    def _weights_digest(self) -> str:
        from .networks.loading import weights_digest

        return weights_digest(self.files.folder)

    def load(self) -> MaskedLanguageModel:
        """Read the weights, once.

        Raises
        ------
        RepresentationError
            When they are incomplete or of another size than config.json says.
        """
        with self._lock:
            if self._model is None:
                from .networks.masked_lm import MaskedLanguageModel

                model = MaskedLanguageModel(self.files.folder, device=self._device, dtype=self._dtype)
                if model.n_terms != self.files.n_terms:
                    raise RepresentationError(
                        f"{self.files.folder}: config.json says vocab_size {self.files.n_terms}, "
                        f"the decoder has {model.n_terms} rows"
                    )
                self._model = model
            return self._model

    def encode(self, texts: Sequence[str], settings: SideSettings) -> SparseVectors:
        """Encode texts; row ``i`` belongs to ``texts[i]``."""
        texts = texts_of(texts)
        side, model = TowerSide(self, settings), self.load()
        rows = side.rows(texts)
        results: list[Any] = [None] * len(texts)
        for batch in batches_by_length([row.row.ids for row in rows], self._batch_size):
            ids = [rows[i].row.ids for i in batch]
            weights = model.term_weights(ids, pooling=self.files.pooling, activation=self.files.activation)
            for i, result in zip(batch, self.pruned(weights, ids, settings), strict=True):
                results[i] = result
        return side.joined(results)

    def pruned(self, weights: Floats, ids: Sequence[Sequence[int]], settings: SideSettings) -> list[tuple[Any, Any]]:
        """Terms and weights that the side keeps of each text, from (n_texts, n_terms) weights."""
        if settings.lexical:
            weights = weights * self._presence(ids)
        rows = []
        for row in weights:
            (terms,) = np.nonzero(row)
            rows.append((terms, row[terms]))
        return rows

    def _presence(self, ids: Sequence[Sequence[int]]) -> Floats:
        """1 where the text has the term, (n_texts, n_terms) float32; special tokens are in no text."""
        presence = np.zeros((len(ids), self.files.n_terms), np.float32)
        for row, terms in zip(presence, ids, strict=True):
            row[list(terms)] = 1
        presence[:, list(self.wordpieces.special_ids)] = 0
        return presence


class TowerRow(NamedTuple):
    """One text for a tower."""

    row: Row


class TowerSide:
    """One side of a sparse encoder that passes through a tower; see `.shared_pass.NetworkSide`."""

    def __init__(self, tower: Tower, settings: SideSettings) -> None:
        self._tower, self._settings = tower, settings

    @property
    def trunk(self) -> Trunk | None:
        """The tower's trunk, loaded."""
        return self._tower.load().trunk

    @property
    def facts(self) -> str:
        """Whatever changes the vectors."""
        return json.dumps(dict(self._tower.facts(self._settings)), sort_keys=True)

    def rows(self, texts: Sequence[str]) -> list[TowerRow]:
        """Rows of tokens of the texts, cut to the side's length."""
        settings = self._settings
        cut = self._tower.wordpieces.encode([settings.prompt + text for text in texts], max_length=settings.max_length)
        return [TowerRow(Row(tuple(ids), len(ids))) for ids in cut]

    def n_truncated(self, texts: Sequence[str]) -> int:
        """How many of the texts are longer than the side reads."""
        settings, pieces = self._settings, self._tower.wordpieces
        room = settings.max_length - len(pieces.head) - len(pieces.tail)
        return sum(len(ids) > room for ids in pieces.pieces([settings.prompt + text for text in texts]))

    def results(self, rows: Sequence[TowerRow], states: Sequence[torch.Tensor]) -> list[tuple[Any, Any]]:
        """Terms and weights of each text from the trunk's states."""
        files = self._tower.files
        weights = self._tower.load().weights_of(states, pooling=files.pooling, activation=files.activation)
        return self._tower.pruned(weights, [row.row.ids for row in rows], self._settings)

    def joined(self, results: Sequence[tuple[Any, Any]]) -> SparseVectors:
        """Join texts, each with the weights that the side keeps."""
        return self._settings.finished(SparseVectors.from_rows(results))


class TowerEncoder:
    """What the neural sparse encoders share: documents pass through a tower, whose vocabulary is the encoder's.

    Parameters
    ----------
    config : SpladeConfig or InferenceFreeConfig
        Choices.
    layout : Layout
        The checkpoint's files.
    device, batch_size
        As :class:`Tower` takes them.
    lexical : bool
        Whether documents keep only terms that stand in them.
    """

    def __init__(self, config: Any, layout: Layout, *, device: str, batch_size: int, lexical: bool = False) -> None:
        self._config = config
        files = layout.document.pooled_as(config.pooling, config.activation)
        self._document = Tower(files, device=device, dtype=config.dtype, batch_size=batch_size)
        self._document_side = self._document.side(
            max_length=config.document_max_length,
            top_k=layout.top_k if config.document_top_k is None else config.document_top_k,
            lexical=lexical,
            prompt=layout.document_prompt,
            normalize=layout.normalize,
        )
        self._wordpieces = self._document.wordpieces
        self.document_side = TowerSide(self._document, self._document_side)
        """Documents' way through the tower; see `.shared_pass`."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """The choices that differ from the defaults."""
        return chosen(self._config)

    @property
    def vocabulary(self) -> Sequence[str]:
        """Token strings of the output dimensions."""
        return self._document.vocabulary

    def encode_documents(self, texts: Sequence[str]) -> SparseVectors:
        """Encode documents; row ``i`` belongs to ``texts[i]``. The first call loads torch and the network."""
        return self._document.encode(texts, self._document_side)

    def n_truncated(self, texts: Sequence[str]) -> int:
        """How many of the documents are longer than the encoder reads, and lose their ends."""
        return self.document_side.n_truncated(texts)

    def surface_terms(self, text: str) -> set[str]:
        """Wordpieces of the text, special tokens left out."""
        return {self.vocabulary[term] for term in self._wordpieces.terms(text)}


def keep_largest(vectors: SparseVectors, k: int | None) -> SparseVectors:
    """Keep the ``k`` largest weights of each row; of equal ones, those of the lower term numbers."""
    if k is None or np.diff(vectors.indptr).max(initial=0) <= k:
        return vectors
    rows = []
    for i in range(len(vectors)):
        terms, weights = vectors.row(i)
        kept = np.argsort(-weights, kind="stable")[:k]
        rows.append((terms[kept], weights[kept]))
    return SparseVectors.from_rows(rows)  # type: ignore[arg-type]


def unit_length(vectors: SparseVectors) -> SparseVectors:
    """Bring each row to unit length; one without weights stays."""
    rows = np.repeat(np.arange(len(vectors)), np.diff(vectors.indptr))
    squares = np.bincount(rows, weights=vectors.weights.astype(np.float64) ** 2, minlength=len(vectors))
    weights = vectors.weights / np.sqrt(squares)[rows]
    return SparseVectors(vectors.indptr, vectors.terms, weights.astype(np.float32))


def check_choices(config: Any) -> None:
    """Raise ValueError when a field of an encoder's configuration is none of its values."""
    for name, choices in CHOICES.items():
        value = getattr(config, name, None)
        if value is not None and value not in choices:
            raise ValueError(f"{name} is {value!r}: choose from {', '.join(choices)}")


def length_of(length: int | None, stated: int, limit: int) -> int:
    """Tokens of a text that are read: those chosen, else the checkpoint's; raises ValueError beyond 3 to ``limit``."""
    length = stated if length is None else length
    if not 3 <= length <= limit:
        raise ValueError(f"a length is {length}: this model reads 3 to {limit} tokens")
    return length


def chosen(config: Any) -> dict[str, Any]:
    """Fields of a configuration that differ from their defaults, and those without one."""
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    return {field.name: values[field.name] for field in fields(config) if values[field.name] != field.default}
