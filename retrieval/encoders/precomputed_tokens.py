"""No encoder at all, for token vectors: the index holds ready-made ones, and is searched with matrices alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from ...index.errors import RepresentationError
from .base import Side
from .precomputed import VectorsEncoder


class TokenVectorsEncoder(VectorsEncoder):
    """Stands where an index made of token vectors has no encoder; refuses every text.

    Parameters
    ----------
    dim : int
        Numbers of a token vector.
    name : str
        What the vectors are called: indexes of the same name and dim hold vectors of the same kind.

    Raises
    ------
    ValueError
        An empty name, or a dim below 1.
    """

    representation = "tokens"

    def __init__(self, *, dim: int, name: str = "vectors") -> None:
        super().__init__(name=name)
        if dim < 1:
            raise ValueError(f"token vectors have a dim of at least 1, not {dim}")
        self.dim = dim

    @property
    def settings(self) -> Mapping[str, Any]:
        """What makes this encoder again."""
        return {"name": self._name, "dim": self.dim}

    @property
    def document_length(self) -> int:
        """No token of a document is read."""
        return 0

    def encode_documents(self, texts: Sequence[str]) -> NoReturn:
        """Raise RepresentationError: documents come with their vectors."""
        self._refuse("documents must bring their vectors: Collection.add with MultiVectors")

    def encode_queries(self, texts: Sequence[str]) -> NoReturn:
        """Raise RepresentationError: queries come as vectors."""
        self._refuse(
            "search it with matrices (n_tokens, dim): Retriever.search_vectors([matrix]); or import with the model that made "
            "the vectors"
        )

    def document_spans(self, text: str) -> list[tuple[str, int, int]] | None:
        """Return None: which tokens the vectors stand for is not known."""
        return None

    def query_spans(self, text: str) -> list[tuple[str, int, int]]:
        """Return nothing: which tokens the vectors stand for is not known."""
        return []

    def n_truncated(self, texts: Sequence[str], *, side: Side = "document") -> int:
        """Raise RepresentationError: texts are not read."""
        raise RepresentationError(f"the index has no encoder, it holds ready-made vectors ({self._name!r})")
