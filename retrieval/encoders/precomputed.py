"""No encoder at all: the index holds ready-made vectors, which another program made.

Such an index is searched with vectors alone. Its fingerprint stands for a name that the user gives to whatever made them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from ...index.dense.config import MAX_VECTORS
from ...index.errors import RepresentationError
from ...index.representations.sparse import SparseVectors
from .base import Side, fingerprint_of

TERMS = ("numbers", "strings")
_WORD = re.compile(r"\w+", re.UNICODE)


class VectorsEncoder:
    """Stands where an index made of vectors has no encoder; refuses every text.

    Parameters
    ----------
    name : str
        What the vectors are called: indexes of the same name hold vectors of the same kind.
    terms : "numbers" or "strings"
        "strings": vectors name their terms, and the index's vocabulary grows with them. "numbers": they give term numbers,
        of a vocabulary that never changes, if there is one.

    Raises
    ------
    ValueError
        An empty name, or ``terms`` of another kind.
    """

    representation = "sparse"
    kind = "vectors"
    vocabulary: Sequence[str] | None = None

    def __init__(self, *, name: str = "vectors", terms: str = "numbers") -> None:
        if not name:
            raise ValueError("vectors need a name that is not empty")
        if terms not in TERMS:
            raise ValueError(f"terms are {' or '.join(TERMS)}, not {terms!r}")
        self._name, self._terms = name, terms

    @property
    def settings(self) -> Mapping[str, Any]:
        """What makes this encoder again."""
        return {"name": self._name, "terms": self._terms}

    @property
    def fingerprint(self) -> str:
        """Hash over the name."""
        return fingerprint_of(self.kind, {"name": self._name})

    def encode_documents(self, texts: Sequence[str]) -> SparseVectors:
        """Raise RepresentationError: documents come with their vectors."""
        self._refuse("documents must bring their vectors: `lexmax import`, or Collection.add with to_sparse_vectors(...)")

    def encode_queries(self, texts: Sequence[str]) -> SparseVectors:
        """Raise RepresentationError: queries come as vectors."""
        self._refuse(
            "search it with vectors: Retriever.search_vectors(to_sparse_vectors(...), texts), "
            """or `lexmax search IDX --vector '{"term": 1.2}'`"""
        )

    def surface_terms(self, text: str) -> set[str]:
        """Return the text's words in lower case: how the vectors' maker cuts words is not known."""
        return set(_WORD.findall(text.lower()))

    def _refuse(self, advice: str) -> NoReturn:
        raise RepresentationError(f"the index has no encoder, it holds ready-made vectors ({self._name!r}): {advice}")


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


class DenseVectorsEncoder(VectorsEncoder):
    """Stands where an index made of dense vectors has no encoder; refuses every text.

    Parameters
    ----------
    dim : int
        Numbers of a vector.
    name : str
        What the vectors are called: indexes of the same name and dim hold vectors of the same kind.
    representation : str
        "dense", as the settings have it.
    vectors_per_doc : int
        Vectors of a document.

    Raises
    ------
    ValueError
        An empty name, a dim or number of vectors out of range, or another representation.
    """

    representation = "dense"

    def __init__(self, *, dim: int, name: str = "vectors", representation: str = "dense", vectors_per_doc: int = 1) -> None:
        super().__init__(name=name)
        if dim < 1 or representation != "dense":
            raise ValueError(f"dense vectors have a dim of at least 1, not {dim} of {representation}")
        if not 1 <= vectors_per_doc <= MAX_VECTORS:
            raise ValueError(f"a document has 1 to {MAX_VECTORS} vectors, not {vectors_per_doc}")
        self.dim, self.vectors_per_doc = dim, vectors_per_doc

    @property
    def settings(self) -> Mapping[str, Any]:
        """What makes this encoder again."""
        several = {"vectors_per_doc": self.vectors_per_doc} if self.vectors_per_doc > 1 else {}
        return {"name": self._name, "dim": self.dim, "representation": "dense", **several}

    def encode_documents(self, texts: Sequence[str]) -> NoReturn:
        """Raise RepresentationError: documents come with their vectors."""
        self._refuse("documents must bring their vectors: `lexmax import`, or Collection.add with DenseVectors")

    def encode_queries(self, texts: Sequence[str]) -> NoReturn:
        """Raise RepresentationError: queries come as vectors."""
        self._refuse(
            "search it with a matrix (n, dim): Retriever.search_vectors(matrix), or `lexmax search IDX --vector '[0.1, ...]'`; "
            "or import with the model that made the vectors"
        )

    def n_truncated(self, texts: Sequence[str]) -> int:
        """Raise RepresentationError: texts are not read."""
        raise RepresentationError(f"the index has no encoder, it holds ready-made vectors ({self._name!r})")
