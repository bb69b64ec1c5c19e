"""Kernels that list the documents of each centroid, and tell where a document's centroids are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from . import kernel

Bytes = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.uint16]
Floats = npt.NDArray[np.float32]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]


@kernel
def count_documents(offsets: Int64s, codes: Codes, n_centroids: int) -> Int64s:
    """Return where each centroid's list starts, (n_centroids + 1,); a document counts once for a centroid."""
    starts = np.zeros(n_centroids + 1, np.int64)
    last = np.full(n_centroids, -1, np.int64)
    for d in range(len(offsets) - 1):
        for t in range(offsets[d], offsets[d + 1]):
            code = codes[t]
            if last[code] != d:
                last[code] = d
                starts[code + 1] += 1
    for c in range(n_centroids):
        starts[c + 1] += starts[c]
    return starts


@kernel
def list_documents(offsets: Int64s, codes: Codes, starts: Int64s) -> Int32s:
    """Return all lists end to end, documents ascending; ``starts`` from `count_documents`."""
    ends = starts.copy()
    documents = np.empty(starts[-1], np.int32)
    for d in range(len(offsets) - 1):
        for t in range(offsets[d], offsets[d + 1]):
            code = codes[t]
            if ends[code] == starts[code] or documents[ends[code] - 1] != d:
                documents[ends[code]] = d
                ends[code] += 1
    return documents


@kernel
def mean_centroids(offsets: Int64s, codes: Codes, centroids: Bytes, means: Floats) -> None:
    """Add to each document's row of ``means (n, dim)`` the mean of its tokens' centroids, in their steps."""
    for d in range(len(offsets) - 1):
        first, last = offsets[d], offsets[d + 1]
        for t in range(first, last):
            centroid = centroids[codes[t]]
            for i in range(len(centroid)):
                means[d, i] += np.float32(centroid[i])
        if last > first:
            share = np.float32(1) / np.float32(last - first)
            for i in range(means.shape[1]):
                means[d, i] *= share
