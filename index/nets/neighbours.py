"""Nearest documents of a segment, for a search that walks from document to document (arXiv 2502.05364, section 3.4).

Arrays of ``neighbours.lex``; n documents::

    entries (e,) i32          documents where a search begins: one near each of e centroids
    neighbours (n, m) i32     the m other documents at the least Euclidean distance, nearest first

Up to `EXACT_DOCS` documents, they are the nearest; beyond, the nearest of those that belong to the `N_PROBE` nearest centroids.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ..array_files import ArrayFile, ArrayFileWriter
from ..arrays import Floats, Int32s, Int64s

KIND = "neighbours"
FILE_NAME = "neighbours.lex"
FEWEST_DOCS = 1024
"""Smaller segments have no file: they are scored whole."""
EXACT_DOCS = 1 << 14
N_PROBE = 16
SAMPLES_PER_CENTROID, N_ITERATIONS = 32, 6
BLOCK_DOCS = 4096
ReadVectors = Callable[[Int64s], Floats]
"""Positions -> vectors (n, dim)."""


class Neighbours:
    """Nearest documents of one segment, memory-mapped.

    Raises
    ------
    IndexFormatError
        Damaged file, or arrays that do not fit the segment.
    """

    def __init__(self, folder: Path, n_docs: int, n_neighbours: int) -> None:
        self.file = ArrayFile(folder / FILE_NAME, KIND)
        self._unverified: Int32s = self.file.unverified("neighbours", "int32", (n_docs, n_neighbours))
        self._n_docs = n_docs

    @cached_property
    def entries(self) -> Int32s:
        """Where a search begins, (e,), verified."""
        entries: Int32s = self.file.array("entries", "int32", (None,))
        self.file.require(len(entries) > 0, "entries", "none")
        self._check_numbers(entries)
        return entries

    def entry_points(self, n: int | None) -> Int64s:
        """Return ``n`` documents to begin with, ascending, or a few less; None: the entries.

        Of fewer than the entries every so-many-th, beyond them others between, at equal distances by number.
        """
        entries = self.entries.astype(np.int64)
        if n is None or n == len(entries):
            return entries
        if n < len(entries):
            return entries[np.arange(n) * len(entries) // n]
        others = np.arange(n - len(entries)) * self._n_docs // (n - len(entries))
        return np.union1d(entries, others)

    @cached_property
    def neighbours(self) -> Int32s:
        """Nearest documents of each, (n_docs, m), verified."""
        self.file.verify(self._unverified)
        self._check_numbers(self._unverified)
        return self._unverified

    def check(self) -> None:
        """Verify every checksum, and that all numbers are those of documents; raises IndexFormatError."""
        self.file.verify()
        _ = self.entries, self.neighbours

    def _check_numbers(self, numbers: Int32s) -> None:
        sound = not numbers.size or 0 <= int(numbers.min()) <= int(numbers.max()) < self._n_docs
        self.file.require(sound, f"documents below {self._n_docs}", "others")


def write_neighbours(folder: Path, n_docs: int, vectors: ReadVectors, n_neighbours: int) -> None:
    """Find the nearest documents of each, and write ``neighbours.lex``. All vectors are in memory at once, as 32-bit floats.

    Parameters
    ----------
    folder : Path
    n_docs, n_neighbours : int
        More documents than neighbours.
    vectors : callable
    """
    every = np.concatenate([vectors(np.arange(i, min(i + BLOCK_DOCS, n_docs))) for i in range(0, n_docs, BLOCK_DOCS)])
    centroids = _centroids(every)
    index = _index(every, centroids)
    with ArrayFileWriter(folder / FILE_NAME, KIND) as out:
        with out.stream("neighbours", dtype="int32", shape=(n_docs, n_neighbours)) as sink:
            for first in range(0, n_docs, BLOCK_DOCS):
                _, found = index.search(every[first : first + BLOCK_DOCS], n_neighbours + 1)
                sink.write(without_selves(found, first, n_docs).astype(np.int32).view(np.uint8).data)
        out.add("entries", np.unique(_flat(every).search(centroids, 1)[1]).astype(np.int32))


def without_selves(found: Int64s, first: int, n_docs: int) -> Int64s:
    """Leave each document out of its own nearest ones, (n, m + 1) for documents from ``first``; the result is (n, m).

    Where faiss found too few (-1), the documents that follow by number stand in.
    """
    own = (first + np.arange(len(found)))[:, None]
    found = np.where(found < 0, (own + 1 + np.arange(found.shape[1])) % n_docs, found)
    crowded_out = ~(found == own).any(axis=1)  # by as many documents at the same place
    found[crowded_out, -1] = own[crowded_out, 0]
    kept: Int64s = found[found != own].reshape(len(found), -1)
    return kept


def _centroids(vectors: Floats) -> Floats:
    """Four times the square root of the documents, by k-means on a sample."""
    n_centroids = max(1, min(len(vectors) // 32, int(4 * len(vectors) ** 0.5)))
    rng = np.random.default_rng(43)
    sample = vectors
    if len(vectors) > SAMPLES_PER_CENTROID * n_centroids:
        sample = vectors[np.sort(rng.choice(len(vectors), SAMPLES_PER_CENTROID * n_centroids, replace=False))]
    means = faiss().Kmeans(vectors.shape[1], n_centroids, niter=N_ITERATIONS, seed=43, min_points_per_centroid=1)
    means.train(sample)
    centroids: Floats = means.centroids
    return centroids


def _index(vectors: Floats, centroids: Floats) -> Any:
    if len(vectors) <= EXACT_DOCS:
        return _flat(vectors)
    index = faiss().IndexIVFFlat(_flat(centroids), vectors.shape[1], len(centroids), faiss().METRIC_L2)
    index.own_fields, index.nprobe, index.is_trained = False, N_PROBE, True
    index.add(vectors)
    return index


def _flat(vectors: Floats) -> Any:
    index = faiss().IndexFlatL2(vectors.shape[1])
    index.add(vectors)
    return index


def faiss() -> Any:
    """Import faiss when it is needed; its type stubs lack what is used here."""
    return import_module("faiss")
