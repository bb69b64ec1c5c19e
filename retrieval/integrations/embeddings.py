"""Dense encoders made of functions: embedding models of other libraries as a field of an index.

Such an index is opened again with the same model; without it, lexmax reports that the field holds ready-made vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ...index.arrays import Floats
from ...index.errors import RepresentationError
from ...index.representations.dense import DenseVectors
from ..encoders.precomputed import DenseVectorsEncoder

Embed = Callable[[list[str]], Any]


class EmbeddingEncoder(DenseVectorsEncoder):
    """Encodes texts with functions that return one vector per text.

    Parameters
    ----------
    documents, queries : callable
        List of texts -> (n, dim) numbers; their inner product is the similarity.
    name : str
        Name of the model: indexes of the same name hold vectors of the same model.
    """

    def __init__(self, documents: Embed, queries: Embed, *, name: str) -> None:
        super().__init__(dim=1, name=name)
        del self.dim
        self._documents, self._queries = documents, queries

    @cached_property
    def dim(self) -> int:  # type: ignore[override]
        """Numbers of a vector, of which the model is asked once."""
        return int(matrix_of(self._queries(["dimension"])).shape[1])

    def encode_documents(self, texts: Sequence[str]) -> DenseVectors:  # type: ignore[override]
        """Encode documents; raises RepresentationError for vectors of another shape than (n, dim)."""
        return self._encoded(self._documents, texts)

    def encode_queries(self, texts: Sequence[str]) -> DenseVectors:  # type: ignore[override]
        """Encode queries; raises RepresentationError for vectors of another shape than (n, dim)."""
        return self._encoded(self._queries, texts)

    def n_truncated(self, texts: Sequence[str]) -> int:
        """Return 0: how much of a text the model reads is not known."""
        return 0

    def _encoded(self, embed: Embed, texts: Sequence[str]) -> DenseVectors:
        if not texts:
            return DenseVectors(np.empty((0, self.dim), np.float32))
        found = matrix_of(embed(list(texts)))
        if found.shape != (len(texts), self.dim):
            raise RepresentationError(
                f"the model {self._name!r} made vectors of shape {found.shape}, expected {(len(texts), self.dim)}"
            )
        return DenseVectors(found)


def matrix_of(vectors: Any) -> Floats:
    """Return vectors as (n, dim) float32; raises RepresentationError for anything else."""
    try:
        found = np.asarray(vectors, np.float32)
    except (TypeError, ValueError):
        found = np.empty(0, np.float32)
    if found.ndim != 2 or found.shape[1] == 0:
        raise RepresentationError("vectors are numbers (n, dim), all of one dim")
    return found


def model_name(model: object) -> str:
    """Return the name that an embedding model gives itself, or else that of its class."""
    for attribute in ("model_name", "model", "model_id"):
        name = getattr(model, attribute, None)
        if isinstance(name, str) and name and name != "unknown":
            return name
    return type(model).__qualname__
