"""The oracle of late interaction: decode every token, multiply, take maxima, sum (ColBERT, arXiv 2004.12832)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ...index.arrays import Floats, Int32s
from ...index.errors import RepresentationError
from ...index.representations.multivectors import MultiVectors
from ...index.segments import Mask
from ...index.snapshot import Snapshot
from ..hits import Hits

if TYPE_CHECKING:
    import torch

CHUNK_DOCS = 1024


class MaxSimSearcher:
    """Top k by MaxSim over all documents, decoded from the best codes of the index; slow, and what others are judged by.

    Parameters
    ----------
    snapshot : Snapshot
        Of token vectors.
    device : str or None
        None: BLAS, on the processor. Else torch multiplies on this device; scores agree within 1e-3.

    Raises
    ------
    RepresentationError
        The index holds sparse vectors.
    """

    def __init__(self, snapshot: Snapshot, *, device: str | None = None) -> None:
        if snapshot.manifest.multivector is None:
            raise RepresentationError(f"{snapshot.path}: the index holds sparse vectors, not token vectors")
        self.snapshot, self._device = snapshot, device

    def search(self, queries: MultiVectors, k: int, allowed: Sequence[Mask | None] | None = None) -> Hits:
        """Answer a batch; parameters and errors are those of `CentroidSearcher.search`."""
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        codec = self.snapshot.codec
        if codec is None:
            return Hits.of([(np.empty(0, np.int32), np.empty(0, np.float32))] * len(queries))
        if queries.dim != codec.dim:
            raise RepresentationError(f"queries of dim {queries.dim} for an index of dim {codec.dim}")
        scores = np.concatenate([np.empty((len(queries), 0), np.float32), *self._chunks(queries)], axis=1)
        masks = self.snapshot.masks() if allowed is None else allowed
        for segment, mask in zip(self.snapshot.segments, masks, strict=True):
            if mask is not None:
                scores[:, segment.base : segment.base + segment.record.n_docs][:, ~mask] = -np.inf
        return Hits.of([_best(row, k) for row in scores])

    def _chunks(self, queries: MultiVectors) -> Iterator[Floats]:
        """Scores (n_queries, n_docs) of some documents after the other."""
        codec = self.snapshot.codec
        if codec is None:
            return
        rotated = codec.rotate(queries.tokens)
        multiply = _maxima if self._device is None else _TorchMaxima(self._device)
        for segment in self.snapshot.segments:
            part = segment.tokens
            for first in range(0, part.n_docs, CHUNK_DOCS):
                last = min(first + CHUNK_DOCS, part.n_docs)
                tokens = part.tokens(codec, first, last, rotated=True)
                maxima = multiply(tokens, part.offsets[first : last + 1] - part.offsets[first], rotated)
                yield _sums(maxima, queries.offsets)


def _maxima(tokens: Floats, offsets: npt.NDArray[np.int64], queries: Floats) -> Floats:
    """Largest product of each query token with the tokens of each document, (n_query_tokens, n_docs); 0 for no tokens."""
    products = queries @ tokens.T
    maxima = np.zeros((len(queries), len(offsets) - 1), np.float32)
    filled = np.flatnonzero(np.diff(offsets) > 0)
    if len(filled):
        maxima[:, filled] = np.maximum.reduceat(products, offsets[filled], axis=1)
    return maxima


class _TorchMaxima:
    """`_maxima` by torch, on a device."""

    def __init__(self, device: str) -> None:
        import torch

        self._device = torch.device(device)

    def __call__(self, tokens: Floats, offsets: npt.NDArray[np.int64], queries: Floats) -> Floats:
        import torch

        owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        products = self._tensor(queries) @ self._tensor(tokens).T
        maxima = torch.full((len(queries), len(offsets) - 1), -torch.inf, device=self._device)
        index = torch.from_numpy(owner).to(self._device).expand(len(queries), -1)
        maxima.scatter_reduce_(1, index, products, "amax")
        maxima[:, torch.from_numpy(np.diff(offsets) == 0).to(self._device)] = 0
        return np.asarray(maxima.cpu().numpy(), np.float32)

    def _tensor(self, array: Floats) -> torch.Tensor:
        import torch

        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)


def _sums(maxima: Floats, offsets: npt.NDArray[np.int64]) -> Floats:
    """Sum the query tokens of each query, (n_queries, n_docs)."""
    sums = np.zeros((len(offsets) - 1, maxima.shape[1]), np.float32)
    filled = np.flatnonzero(np.diff(offsets) > 0)
    if len(filled):
        sums[filled] = np.add.reduceat(maxima, offsets[filled], axis=0)
    return sums


def _best(scores: Floats, k: int) -> tuple[Int32s, Floats]:
    """Return the k best, ties by doc_num; what is not allowed scores minus infinity and is left out."""
    allowed = np.flatnonzero(scores > -np.inf)
    best = allowed[np.lexsort((allowed, -scores[allowed]))[:k]]
    return best.astype(np.int32), scores[best]
