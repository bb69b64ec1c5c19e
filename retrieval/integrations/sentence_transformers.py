"""sentence-transformers: an index straight from a model object, sparse, multi-vector or dense.

The field's fingerprint is made of the model's weights, modules and prompts. A folder of a model that lexmax reads itself needs
no adapter: ``build_index(..., encoders=["splade=FOLDER"])``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

from ...index.errors import MissingDependencyError, RepresentationError
from ...index.representations.multivectors import MultiVectors
from ...index.representations.sparse import SparseVectors
from ..encoders.base import Encoder, Side
from ..encoders.precomputed import TokenVectorsEncoder, VectorsEncoder
from ..exchange.vectors import to_sparse_vectors
from .embeddings import EmbeddingEncoder

try:
    from sentence_transformers import MultiVectorEncoder, SentenceTransformer, SparseEncoder
except ImportError as problem:
    raise MissingDependencyError("sentence-transformers", "sentence-transformers", "an encoder of a model object") from problem


def encoder_of(model: Any) -> Encoder:
    """Make an encoder of a ``SparseEncoder``, ``MultiVectorEncoder`` or ``SentenceTransformer``, for a field of an index.

    Indexes of it are opened with the same model: ``Retriever.open(path, encoders={FIELD: encoder_of(model)})``.

    Raises
    ------
    TypeError
        Another object.
    RepresentationError
        The model compares its vectors by something else than inner products or cosines, or sums of their maxima.
    """
    if not isinstance(model, SparseEncoder | MultiVectorEncoder | SentenceTransformer):
        raise TypeError(f"a SparseEncoder, MultiVectorEncoder or SentenceTransformer is expected, not {type(model).__name__}")
    name = f"{type(model).__name__}:{_digest(model)}"
    similarity = str(getattr(model, "similarity_fn_name", ""))
    if isinstance(model, SparseEncoder):
        _check(similarity in ("dot", "None"), similarity)
        return SparseModel(model, name)
    if isinstance(model, MultiVectorEncoder):
        _check(similarity in ("maxsim", "None"), similarity)
        return TokenModel(model, name)
    _check(similarity in ("cosine", "dot"), similarity)
    settings: dict[str, Any] = {"normalize_embeddings": similarity == "cosine", "show_progress_bar": False}
    return EmbeddingEncoder(
        lambda texts: model.encode_document(texts, **settings), lambda texts: model.encode_query(texts, **settings), name=name
    )


class SparseModel(VectorsEncoder):
    """A ``SparseEncoder`` object as an encoder of lexmax."""

    def __init__(self, model: Any, name: str) -> None:
        super().__init__(name=name, terms="numbers")
        self._model = model
        self.vocabulary = model.tokenizer.convert_ids_to_tokens(list(range(model.get_embedding_dimension())))

    def encode_documents(self, texts: Sequence[str]) -> SparseVectors:
        """Encode documents."""
        return self._encoded(self._model.encode_document, texts)

    def encode_queries(self, texts: Sequence[str]) -> SparseVectors:
        """Encode queries."""
        return self._encoded(self._model.encode_query, texts)

    def surface_terms(self, text: str) -> set[str]:
        """Terms that the tokenizer finds in the text itself."""
        return set(self._model.tokenizer.tokenize(text))

    def _encoded(self, encode: Any, texts: Sequence[str]) -> SparseVectors:
        return to_sparse_vectors(encode(list(texts), show_progress_bar=False) if texts else [])


class TokenModel(TokenVectorsEncoder):
    """A ``MultiVectorEncoder`` object as an encoder of lexmax."""

    def __init__(self, model: Any, name: str) -> None:
        super().__init__(dim=model.get_embedding_dimension(), name=name)
        self._model = model

    def encode_documents(self, texts: Sequence[str]) -> MultiVectors:  # type: ignore[override]
        """Encode documents; raises RepresentationError for tokens that are not of unit length."""
        return self._encoded(self._model.encode_document, texts)

    def encode_queries(self, texts: Sequence[str]) -> MultiVectors:  # type: ignore[override]
        """Encode queries; raises RepresentationError for tokens that are not of unit length."""
        return self._encoded(self._model.encode_query, texts)

    def n_truncated(self, texts: Sequence[str], *, side: Side = "document") -> int:
        """How many texts have more tokens than the model reads."""
        most = getattr(self._model[0], f"{side}_length", None) or self._model.get_max_seq_length()
        ids = self._model.tokenizer(list(texts), truncation=False)["input_ids"] if texts else []
        return 0 if most is None else sum(len(each) > most for each in ids)

    def _encoded(self, encode: Any, texts: Sequence[str]) -> MultiVectors:
        matrices = encode(list(texts), convert_to_numpy=True, show_progress_bar=False) if texts else []
        return MultiVectors.of([matrix.astype("float32") for matrix in matrices], self.dim)


def _check(known: bool, similarity: str) -> None:
    if not known:
        raise RepresentationError(f"the model compares its vectors by {similarity}, which an index does not")


def _digest(model: Any) -> str:
    modules = re.sub(r"'embedding_dimension': \w+", "", repr(model))  # which modules note when they first encode
    digest = hashlib.blake2b(f"{modules} {sorted(model.prompts.items())} {model.max_seq_length}".encode(), digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(dtype=_bytes()).numpy())
    return digest.hexdigest()


def _bytes() -> Any:
    import torch

    return torch.uint8
