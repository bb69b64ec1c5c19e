"""ColBERT: texts as one vector a token, compared by the sum of each query token's best match (arXiv 2004.12832, 2112.01488).

Checkpoints of Stanford, PyLate and sentence-transformers 6; see `colbert_checkpoints`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ...index.arguments import texts_of
from ...index.arrays import Floats
from ...index.errors import RepresentationError
from ...index.representations.multivectors import MultiVectors
from .base import Side, fingerprint_of
from .checkpoints.colbert_layout import ColbertLayout, SideFiles
from .shared_pass import encode_side
from .token_pooling import pool_tokens
from .token_sides import SideReader, SideTokens, Span
from .tower import check_choices, chosen
from .wordpieces import Wordpieces

if TYPE_CHECKING:
    import torch

    from .networks.masked_lm import Dtype
    from .networks.token_network import TokenNetwork, TokenRow
    from .networks.trunk import Trunk


@dataclass(frozen=True, kw_only=True)
class ColbertConfig:
    """What a user may choose; None leaves the checkpoint's choice.

    Attributes
    ----------
    model : str
        Folder or Hugging Face id.
    document_length, query_length : int
        Tokens that are read, special tokens and marker included.
    query_expansion : bool
        Fill queries up with [MASK] tokens, whose vectors count; up to ``query_length`` where the checkpoint does not say.
    pool_factor : int
        Merge the vectors of a document into one ``pool_factor``-th of them; 1 keeps all.
    protected_tokens : int
        Leading tokens of a document that are not merged.
    dtype : {"float32", "bfloat16", "int8"}
        Of the network.
    """

    model: str
    document_length: int | None = None
    query_length: int | None = None
    query_expansion: bool | None = None
    pool_factor: int = 1
    protected_tokens: int = 1
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        check_choices(self)
        if self.pool_factor < 1:
            raise ValueError(f"pool_factor is {self.pool_factor}: it must be >= 1; 1 keeps every token")
        if self.protected_tokens < 0:
            raise ValueError(f"protected_tokens is {self.protected_tokens}: it must be >= 0")


class ColbertEncoder:
    """Encodes documents and queries as token vectors; the weights are read at the first text.

    Parameters
    ----------
    config : ColbertConfig
        Choices.
    layout : ColbertLayout
        The checkpoint's files.
    device : str
        As torch names it.
    batch_size : int
        Texts in a batch; changes speed alone.

    Raises
    ------
    RepresentationError
        When the tokenizer does not fit the model, or lacks its marker or expansion token.
    ValueError
        When a length is out of range.
    """

    representation = "tokens"
    kind = "colbert"

    def __init__(self, config: ColbertConfig, layout: ColbertLayout, *, device: str, batch_size: int) -> None:
        self._config, self._layout = config, layout
        self._device, self._batch_size = device, batch_size
        self._wordpieces = Wordpieces(layout.tokenizer, lowercase=layout.lowercase)
        self._wordpieces.vocabulary(layout.n_tokens)  # refuses the tokenizer of another model
        skipped = [self._wordpieces.token_id(token) for token in layout.skipped]
        self._skipped = tuple(sorted({number for number in skipped if number is not None}))
        self._documents = SideReader(self._wordpieces, self._document_side())
        self._queries = SideReader(self._wordpieces, self._query_side())
        self._network: TokenNetwork | None = None
        self._lock = threading.Lock()
        self.document_side = ColbertSide(self, self._documents, pooled=config.pool_factor > 1)
        self.query_side = ColbertSide(self, self._queries, pooled=False)
        """The two sides' ways through the network; see `.shared_pass`."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """The choices that differ from the defaults."""
        return chosen(self._config)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of weights, tokenizer and settings of both sides."""
        from .networks.loading import weights_digest

        folders = dict.fromkeys([self._layout.folder, *(projection.folder for projection in self._layout.projections)])
        facts: dict[str, Any] = {
            "weights": [weights_digest(folder) for folder in folders],
            "tokenizer": self._wordpieces.digest,
            "dtype": self._config.dtype,
            "document": asdict(self._documents.side),
            "query": asdict(self._queries.side),
        }
        if self._config.pool_factor > 1:
            facts["pooling"] = [self._config.pool_factor, self._config.protected_tokens]
        return fingerprint_of(self.kind, facts)

    @property
    def dim(self) -> int:
        """Numbers of a token vector."""
        return self._layout.dim

    @property
    def document_length(self) -> int:
        """Tokens of a document that are read, special tokens and marker included."""
        return self._documents.side.max_length

    @property
    def token_strings(self) -> Sequence[str]:
        """Strings of the tokens, by id."""
        return self._wordpieces.tokens

    def encode_documents(self, texts: Sequence[str]) -> MultiVectors:
        """Encode documents; text ``i`` of the result belongs to ``texts[i]``. The first call loads torch and the network."""
        found: MultiVectors = encode_side(self.document_side, texts_of(texts), self._batch_size)
        return found

    def encode_queries(self, texts: Sequence[str]) -> MultiVectors:
        """Encode queries; text ``i`` of the result belongs to ``texts[i]``, expansion tokens included."""
        found: MultiVectors = encode_side(self.query_side, texts_of(texts), self._batch_size)
        return found

    def pooled(self, matrix: Floats) -> Floats:
        """Merge a document's vectors as the settings have it."""
        return pool_tokens(matrix, factor=self._config.pool_factor, n_protected=self._config.protected_tokens)

    def document_spans(self, text: str) -> list[Span] | None:
        """What each vector of a document stands for.

        Returns
        -------
        list of (token, start, end), or None
            Character offsets in the text; 0 and 0 for tokens that are not of the text ([CLS], markers). None when
            pooling merged the vectors.
        """
        return None if self._config.pool_factor > 1 else self._documents.spans(text)

    def query_spans(self, text: str) -> list[Span]:
        """What each vector of a query stands for, as :meth:`document_spans`; expansion tokens are not of the text."""
        return self._queries.spans(text)

    def n_truncated(self, texts: Sequence[str], *, side: Side = "document") -> int:
        """How many of the texts are longer than their side's length, and lose their ends."""
        return (self._documents if side == "document" else self._queries).n_truncated(texts)

    def load(self) -> TokenNetwork:
        """Read the weights, once.

        Raises
        ------
        RepresentationError
            When they are incomplete or of another size than the JSON files say.
        """
        with self._lock:
            if self._network is None:
                from .networks.token_network import TokenNetwork

                self._network = TokenNetwork(self._layout, device=self._device, dtype=self._config.dtype)
            return self._network

    def _document_side(self) -> SideTokens:
        files, length = self._layout.document, self._length("document_length", self._config.document_length)
        return SideTokens(
            max_length=length or files.max_length, prompt=files.prompt, marker=self._marker(files), skipped=self._skipped
        )

    def _query_side(self) -> SideTokens:
        files, layout = self._layout.query, self._layout
        length = self._length("query_length", self._config.query_length) or files.max_length
        # A fixed width follows query_length; a smallest width stays, as far as it fits.
        fixed = layout.expand_to in (0, files.max_length)
        width = length if fixed else min(layout.expand_to, length)
        expands = bool(layout.expand_to) if self._config.query_expansion is None else self._config.query_expansion
        return SideTokens(
            max_length=length,
            prompt=files.prompt,
            marker=self._marker(files),
            expand_to=width if expands else 0,
            expansion=self._known(layout.expansion_token, "expansion token") if expands else None,
            attend=expands and layout.attend,
            skipped=self._skipped if layout.skip_queries else (),
        )

    def _length(self, name: str, chosen_length: int | None) -> int | None:
        if chosen_length is not None and not 1 <= chosen_length <= self._layout.length_limit:
            raise ValueError(f"{name} is {chosen_length}, but the model reads 1 to {self._layout.length_limit} tokens")
        return chosen_length

    def _marker(self, files: SideFiles) -> int | None:
        """Id of a side's marker: a token with its space, as PyLate adds it ("[Q] "), or without."""
        if not files.marker.strip():
            return None
        if len(self._wordpieces.head) != 1:
            raise RepresentationError(
                f"{self._layout.folder}: the tokenizer puts {len(self._wordpieces.head)} special tokens before a text, "
                "where ColBERT's marker stands second"
            )
        whole = self._wordpieces.token_id(files.marker)
        return self._known(files.marker.strip(), "marker") if whole is None else whole

    def _known(self, token: str, what: str) -> int:
        number = self._wordpieces.token_id(token)
        if number is None:
            raise RepresentationError(
                f"{self._layout.tokenizer}: the tokenizer has no token {token!r}, the checkpoint's {what}; "
                "put the tokenizer files of this model into its folder"
            )
        return number


class ColbertSide:
    """One side of a ColBERT; see `.shared_pass.NetworkSide`."""

    def __init__(self, encoder: ColbertEncoder, reader: SideReader, *, pooled: bool) -> None:
        self._encoder, self._reader, self._pooled = encoder, reader, pooled

    @property
    def trunk(self) -> Trunk:
        """The network's trunk, loaded."""
        return self._encoder.load().trunk

    @property
    def facts(self) -> str:
        """Whatever changes the vectors."""
        return f"{self._encoder.fingerprint} {self._reader.side}"

    def rows(self, texts: Sequence[str]) -> list[TokenRow]:
        """Rows of tokens of the texts, cut to the side's length."""
        return self._reader.rows(texts)

    def results(self, rows: Sequence[TokenRow], states: Sequence[torch.Tensor]) -> list[Floats]:
        """Token vectors of each text from the trunk's states."""
        matrices = self._encoder.load().vectors_of(states, rows)
        return [self._encoder.pooled(matrix) for matrix in matrices] if self._pooled else matrices

    def joined(self, results: Sequence[Floats]) -> MultiVectors:
        """Join texts."""
        return MultiVectors.of(results, self._encoder.dim)
