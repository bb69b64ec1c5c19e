"""The oracle of late interaction: decode every token, multiply, take maxima, sum (ColBERT, arXiv 2004.12832).

Products go through BLAS, or torch on a device: scores agree between machines, batches and devices within 1e-3, and differ from
those of `centroid`, which rounds the query's tokens to bytes, by up to 2e-2 per 32 query tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ...index.arrays import Floats, Int32s, Int64s, Mask, picks_of
from ...index.multivector.field import TokenField
from ...index.multivector.residual import Codec
from ...index.representations.multivectors import MultiVectors
from ..hits import NO_HITS, NO_SCORE, Hits, best
from .centroid import check_dim
from .common import check_k, checked_doc_nums, checked_field, in_order, parts

if TYPE_CHECKING:
    import torch

CHUNK_DOCS = 1024


class MaxSimSearcher:
    """Top k by MaxSim over all documents, decoded from the field's best codes; slow, and what others are judged by.

    Parameters
    ----------
    field : TokenField
    device : str or None
        None: BLAS, on the processor. Else torch multiplies on this device.

    Raises
    ------
    RepresentationError
        The field holds no token vectors.
    """

    def __init__(self, field: TokenField, *, device: str | None = None) -> None:
        self.field = checked_field(field, TokenField, "token vectors")
        self._multiply = maxima_of if device is None else _TorchMaxima(device)

    def search(self, queries: MultiVectors, k: int, allowed: Sequence[Mask | None] | None = None) -> Hits:
        """Answer a batch; parameters and errors are those of `CentroidSearcher.search`."""
        check_k(k)
        check_dim(self.field, queries)
        codec = self.field.codec
        if codec is None:
            return Hits.of([NO_HITS] * len(queries))
        chunks = self._chunks(queries, codec)
        scores = np.concatenate([np.empty((len(queries), 0), np.float32), *chunks], axis=1)
        masks = self.field.masks() if allowed is None else allowed
        wanted = [
            np.diff(segment.part.offsets) > 0 if mask is None else mask & (np.diff(segment.part.offsets) > 0)
            for segment, mask in zip(self.field.segments, masks, strict=True)
        ]
        doc_nums = np.flatnonzero(np.concatenate([np.empty(0, np.bool_), *wanted]))
        n_tokens = np.diff(queries.offsets)
        return Hits.of([best(doc_nums, row[doc_nums], k) if n else NO_HITS for n, row in zip(n_tokens, scores, strict=True)])

    def score(self, queries: MultiVectors, doc_nums: Sequence[Int32s]) -> list[Floats]:
        """MaxSim of given documents, as `CentroidSearcher.score`; within 1e-3 of the scores of `search`."""
        wanted = checked_doc_nums(self.field, queries, doc_nums)
        check_dim(self.field, queries)
        return [self._score(queries.row(i), numbers) for i, numbers in enumerate(wanted)]

    def _score(self, query: Floats, doc_nums: Int32s) -> Floats:
        codec = self.field.codec
        if codec is None or not len(query):
            return np.full(len(doc_nums), NO_SCORE, np.float32)
        rotated = codec.rotate(query)

        def score(ascending: Int32s) -> Floats:
            scores = np.zeros(len(ascending), np.float32)
            for segment, positions, span in parts(self.field.segments, ascending):
                part = segment.part
                offsets, _ = picks_of(part.offsets, positions)
                codes, encoded = part.store.unpack(positions)
                tokens = codec.decode(codes, encoded, rotated=True)
                sums = self._multiply(tokens, offsets, rotated).sum(axis=0)
                scores[span] = np.where(np.diff(offsets) > 0, sums, NO_SCORE)
            return scores

        return in_order(doc_nums, score)

    def _chunks(self, queries: MultiVectors, codec: Codec) -> Iterator[Floats]:
        """Scores (n_queries, n_docs) of one chunk of documents after another."""
        rotated = codec.rotate(queries.tokens)
        for segment in self.field.segments:
            part = segment.part
            for first in range(0, part.n_docs, CHUNK_DOCS):
                last = min(first + CHUNK_DOCS, part.n_docs)
                tokens = part.tokens(codec, first, last, rotated=True)
                maxima = self._multiply(tokens, part.offsets[first : last + 1] - part.offsets[first], rotated)
                yield sums_of(maxima, queries.offsets)


def maxima_of(tokens: Floats, offsets: Int64s, queries: Floats) -> Floats:
    """Largest product of each query token with the tokens of each document, (n_query_tokens, n_docs); 0 for no tokens."""
    products = queries @ tokens.T
    maxima = np.zeros((len(queries), len(offsets) - 1), np.float32)
    filled = np.flatnonzero(np.diff(offsets) > 0)
    if len(filled):
        maxima[:, filled] = np.maximum.reduceat(products, offsets[filled], axis=1)
    return maxima


class _TorchMaxima:
    """`maxima_of` by torch, on a device."""

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


def sums_of(maxima: Floats, offsets: Int64s) -> Floats:
    """Sum the query tokens of each query, (n_queries, n_docs)."""
    sums = np.zeros((len(offsets) - 1, maxima.shape[1]), np.float32)
    filled = np.flatnonzero(np.diff(offsets) > 0)
    if len(filled):
        sums[filled] = np.add.reduceat(maxima, offsets[filled], axis=0)
    return sums
