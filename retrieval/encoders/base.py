"""The encoder contract: text in, representation out, and a fingerprint that an index can hold it to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from ...index.representations.dense import DenseVectors
from ...index.representations.multivectors import MultiVectors
from ...index.representations.nets import QueryNets
from ...index.representations.sparse import SparseVectors
from ...index.representations.sparse_multivectors import SparseMultiVectors

Side = Literal["document", "query"]


class _Fingerprinted(Protocol):
    """What an index records of its encoder, and holds it to.

    Attributes
    ----------
    kind : str
        The method's name in the table of methods: "bm25", "splade", "colbert", ...
    representation : str
        What it makes: "sparse", "tokens", "sparse-tokens", "dense" or "nets".
    settings : mapping
        Everything JSON-serialisable that is needed to make this encoder again with ``load_encoder(kind, **settings)``,
        including ``model`` (folder or id) when there is one.
    fingerprint : str
        ``kind:<16 hex digits>``: a hash over whatever changes the vectors (weights, tokenizer, activation, lengths,
        pruning), and nothing that does not (device, batch size, the model's path).
    """

    kind: str
    representation: str

    @property
    def settings(self) -> Mapping[str, Any]:
        """What makes this encoder again."""
        ...

    @property
    def fingerprint(self) -> str:
        """What the index holds this encoder to."""
        ...


class SparseEncoder(_Fingerprinted, Protocol):
    """Turns texts into sparse vectors; pure, so the same texts always give the same vectors."""

    @property
    def vocabulary(self) -> Sequence[str] | None:
        """Strings of the fixed term numbers; None when every batch brings its own (BM25)."""
        ...

    def encode_documents(self, texts: Sequence[str]) -> SparseVectors:
        """Encode documents; row ``i`` belongs to ``texts[i]``, an empty text gives an empty or a valid row."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> SparseVectors:
        """Encode queries; row ``i`` belongs to ``texts[i]``."""
        ...

    def surface_terms(self, text: str) -> set[str]:
        """Vocabulary strings that stand in the text itself: every other term is an expansion."""
        ...


class MultiVectorEncoder(_Fingerprinted, Protocol):
    """Turns texts into token vectors; pure as :class:`SparseEncoder` is."""

    @property
    def dim(self) -> int:
        """Numbers of a token vector."""
        ...

    @property
    def document_length(self) -> int:
        """Tokens of a document that are read."""
        ...

    def encode_documents(self, texts: Sequence[str]) -> MultiVectors:
        """Encode documents; text ``i`` of the result belongs to ``texts[i]``."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> MultiVectors:
        """Encode queries; text ``i`` of the result belongs to ``texts[i]``."""
        ...

    def document_spans(self, text: str) -> list[tuple[str, int, int]] | None:
        """Token, start and end in the text of each vector of a document; None when vectors stand for several tokens."""
        ...

    def query_spans(self, text: str) -> list[tuple[str, int, int]]:
        """Token, start and end in the text of each vector of a query."""
        ...

    def n_truncated(self, texts: Sequence[str], *, side: Side = "document") -> int:
        """How many of the texts are longer than their side's length, and lose their ends."""
        ...


class SparseTokenEncoder(_Fingerprinted, Protocol):
    """Turns texts into sparse token vectors, of kind "slim"; pure as :class:`SparseEncoder` is."""

    @property
    def vocabulary(self) -> Sequence[str]:
        """Strings of the fixed term numbers."""
        ...

    def encode_documents(self, texts: Sequence[str]) -> SparseMultiVectors:
        """Encode documents; text ``i`` of the result belongs to ``texts[i]``."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> SparseMultiVectors:
        """Encode queries; text ``i`` of the result belongs to ``texts[i]``."""
        ...

    def surface_terms(self, text: str) -> set[str]:
        """Vocabulary strings that stand in the text itself: every other term is an expansion."""
        ...


class DenseVectorEncoder(_Fingerprinted, Protocol):
    """Turns texts into one vector each; pure as :class:`SparseEncoder` is."""

    @property
    def dim(self) -> int:
        """Numbers of a vector."""
        ...

    def encode_documents(self, texts: Sequence[str]) -> DenseVectors:
        """Encode documents; row ``i`` belongs to ``texts[i]``."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> DenseVectors:
        """Encode queries; row ``i`` belongs to ``texts[i]``."""
        ...


class NetEncoder(_Fingerprinted, Protocol):
    """Turns documents into one vector each, and queries into networks that score them; pure as :class:`SparseEncoder` is."""

    @property
    def dim(self) -> int:
        """Numbers of a vector."""
        ...

    def encode_documents(self, texts: Sequence[str]) -> DenseVectors:
        """Encode documents; row ``i`` belongs to ``texts[i]``."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> QueryNets:
        """Encode queries; network ``i`` belongs to ``texts[i]``."""
        ...


Encoder = SparseEncoder | MultiVectorEncoder | SparseTokenEncoder | DenseVectorEncoder | NetEncoder


def fingerprint_of(kind: str, facts: Mapping[str, Any]) -> str:
    """Return ``kind:<16 hex digits>`` over a canonical JSON of ``facts``."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return f"{kind}:{hashlib.sha256(text.encode()).hexdigest()[:16]}"
