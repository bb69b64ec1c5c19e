"""Document rows as bytes: a record for each document, read whole when the document is scored.

The record of document d begins at byte ``(w + 1) indptr[d]``: its ranks, ``w`` bytes each, little-endian and ascending, then
its impacts, a byte each. Ranks take 2 bytes in a segment of at most 65,536 terms, else 4. After the last record come ``PAD``
zeros, so that kernels may load whole vectors.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from . import kernel

PAD = 256
"""Zero bytes after the last record."""
NARROW_TERMS = 1 << 16

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]


@kernel
def rank_bytes(n_terms: int | np.int64) -> int:
    """Bytes of a rank in the rows of a segment with so many terms."""
    return 2 if n_terms <= NARROW_TERMS else 4


@kernel
def pack_rows(indptr: I64, ranks: U32, impacts: U8, width: int) -> U8:
    """Records of ``len(indptr) - 1`` documents, and the padding."""
    rows = np.zeros(len(ranks) * (width + 1) + PAD, np.uint8)
    for d in range(len(indptr) - 1):
        first, n = indptr[d], indptr[d + 1] - indptr[d]
        start = (width + 1) * first
        for i in range(n):
            rank = ranks[first + i]
            for byte in range(width):
                rows[start + width * i + byte] = (rank >> np.uint32(8 * byte)) & np.uint32(0xFF)
            rows[start + width * n + i] = impacts[first + i]
    return rows


@kernel
def read_rank(rows: U8, at: int | np.int64, width: int) -> np.uint32:
    """Return the rank whose ``width`` bytes begin at byte ``at``."""
    rank = np.uint32(0)
    for byte in range(width):
        rank |= np.uint32(rows[at + byte]) << np.uint32(8 * byte)
    return rank


@kernel
def count_ranks(indptr: I64, rows: U8, width: int, documents: I64, n_terms: int) -> I64:
    """How many of the documents hold each rank, (n_terms,)."""
    counts = np.zeros(n_terms, np.int64)
    for d in documents:
        n = indptr[d + 1] - indptr[d]
        start = (width + 1) * indptr[d]
        for i in range(n):
            rank = read_rank(rows, start + width * i, width)
            if rank < n_terms:
                counts[rank] += 1
    return counts


@kernel
def unpack_rows(indptr: I64, rows: U8, width: int, first: int, last: int) -> tuple[U32, U8]:
    """Ranks and impacts of the documents ``first`` to ``last``, (n_entries,) uint32 and uint8."""
    n_entries = indptr[last] - indptr[first]
    ranks, impacts = np.empty(n_entries, np.uint32), np.empty(n_entries, np.uint8)
    at = 0
    for d in range(first, last):
        n = indptr[d + 1] - indptr[d]
        start = (width + 1) * indptr[d]
        for i in range(n):
            ranks[at + i] = read_rank(rows, start + width * i, width)
            impacts[at + i] = rows[start + width * n + i]
        at += n
    return ranks, impacts
