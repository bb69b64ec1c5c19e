"""The multi-vector part of a segment: residual codes of all tokens, and for each centroid the documents that have it.

Arrays of ``multivector.lex``; n documents, T tokens, K centroids::

    shape (3,) i64                   n, dim, nbits
    offsets (n+1,) i64               tokens of document d are offsets[d]:offsets[d + 1]
    codes (T,) u16                   centroid of each token
    list_starts (K+1,) i64 | list_documents (L,) i32      documents with a token of each centroid, ascending
    scalars (T, 2) u8 | levels (T, dim * nbits / 8) u8    the residual, see `residual`; only beside exact tokens

``tokens.lex`` is the token store (`store`), from which documents are scored at last: residuals of 8 bits, nearly exact, where
the field keeps them, else those of ``nbits``, which are then nowhere else.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ..array_files import ArrayFile, ArrayFileWriter
from ..arrays import Floats, Int32s, Int64s, Mask, is_indptr, joined_offsets, picks_of
from ..errors import IndexFormatError
from ..kernels.lists import count_documents, list_documents
from .locality import locality_order
from .residual import ENCODE_TOKENS, Codec, Encoded
from .store import TokenStore, write_store

KIND = "multivector"
FILE_NAME = "multivector.lex"
EXACT_BITS = 8
SAMPLED_TOKENS = 1024
CHECKED_DOCS = 4096
Codes = npt.NDArray[np.uint16]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Encoded tokens of documents, ready to be written.

    Attributes
    ----------
    offsets : (n + 1,) int64
    codes : (T,) uint16
    small : Encoded
        At the index's bits.
    exact : Encoded or None
        At 8 bits, when the index keeps them.
    """

    offsets: Int64s
    codes: Codes
    small: Encoded
    exact: Encoded | None

    def take(self, order: Int32s) -> TokenRows:
        """Return the documents in another order; ``order[new] = old``."""
        offsets, picks = picks_of(self.offsets, order)
        exact = None if self.exact is None else self.exact.take(picks)
        return TokenRows(offsets, self.codes[picks], self.small.take(picks), exact)

    @classmethod
    def joined(cls, parts: Sequence[TokenRows], dim: int, nbits: int) -> TokenRows:
        """Put the documents of all parts end to end; all have exact tokens, or none has."""
        exact = [part.exact for part in parts if part.exact is not None]
        return cls(
            offsets=joined_offsets([part.offsets for part in parts]),
            codes=np.concatenate([np.empty(0, np.uint16), *(part.codes for part in parts)]),
            small=join([part.small for part in parts], dim, nbits),
            exact=join(exact, dim, EXACT_BITS) if exact else None,
        )


def encode_tokens(
    codec: Codec, offsets: Int64s, batches: Iterator[Floats], nbits: int, *, exact: bool
) -> tuple[TokenRows, dict[str, float]]:
    """Encode token matrices that come end to end.

    Returns
    -------
    (rows, errors)
        Errors are means over tokens: ``residual``, the length of what centroids leave over; ``round_trip`` and
        ``exact_round_trip``, the distance of a token to its reconstruction, from a sample of `SAMPLED_TOKENS` a batch.
    """
    widths = (nbits, EXACT_BITS) if exact else (nbits,)
    codes: list[Codes] = []
    encoded: list[list[Encoded]] = [[] for _ in widths]
    sums = dict.fromkeys(["residual", "round_trip", *(["exact_round_trip"] if exact else [])], 0.0)

    def encode(tokens: Floats) -> tuple[Int32s, list[Encoded], list[float]]:
        rotated = codec.rotate(tokens)
        nearest = codec.assign(rotated)
        parts, residuals = zip(*(codec.encode(rotated, nearest, width) for width in widths), strict=True)
        return nearest, list(parts), [residuals[0], *(_round_trip(codec, rotated, nearest, part) for part in parts)]

    for nearest, parts, errors in _in_threads(encode, _pieces(batches)):
        codes.append(nearest.astype(np.uint16))
        for kept, part in zip(encoded, parts, strict=True):
            kept.append(part)
        for name, error in zip(sums, errors, strict=True):
            sums[name] += error * len(nearest)
    joined = np.concatenate([np.empty(0, np.uint16), *codes])
    small, *large = (join(kept, codec.dim, width) for kept, width in zip(encoded, widths, strict=True))
    rows = TokenRows(offsets, joined, small, large[0] if large else None)
    return rows, {name: total / max(1, len(joined)) for name, total in sums.items()}


def _pieces(batches: Iterator[Floats]) -> Iterator[Floats]:
    for batch in batches:
        for first in range(0, len(batch), ENCODE_TOKENS):
            yield batch[first : first + ENCODE_TOKENS]


def _in_threads(function: Callable[[Floats], T], items: Iterator[Floats]) -> Iterator[T]:
    """Map in order over all cores, a few items ahead, so that memory stays bounded."""
    n_threads = os.cpu_count() or 1
    with ThreadPoolExecutor(n_threads) as pool:
        waiting: deque[Future[T]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * n_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _round_trip(codec: Codec, rotated: Floats, codes: Int32s, encoded: Encoded) -> float:
    """Mean distance of some tokens, evenly drawn, to what their codes say."""
    drawn = slice(None, None, max(1, len(rotated) // SAMPLED_TOKENS))
    found = codec.decode(codes[drawn], Encoded(encoded.levels[drawn], encoded.scalars[drawn]), rotated=True)
    return float(np.linalg.norm(rotated[drawn] - found, axis=1).mean()) if len(found) else 0.0


def join(parts: Sequence[Encoded], dim: int, nbits: int) -> Encoded:
    """Put encoded tokens end to end; the shape of none is known too."""
    levels = np.concatenate([np.empty((0, dim * nbits // 8), np.uint8), *(part.levels for part in parts)])
    return Encoded(levels, np.concatenate([np.empty((0, 2), np.uint8), *(part.scalars for part in parts)]))


def write_multivector(folder: Path, rows: TokenRows, codec: Codec, nbits: int) -> None:
    """Write ``multivector.lex`` and ``tokens.lex``."""
    n_docs = len(rows.offsets) - 1
    starts = count_documents(rows.offsets, rows.codes, codec.n_centroids)
    with ArrayFileWriter(folder / FILE_NAME, KIND) as out:
        out.add("shape", np.array([n_docs, codec.dim, nbits], np.int64))
        out.add("offsets", rows.offsets)
        out.add("list_starts", starts)
        out.add("list_documents", list_documents(rows.offsets, rows.codes, starts))
        out.add("codes", rows.codes)
        if rows.exact is not None:
            out.add("scalars", rows.small.scalars)
            out.add("levels", rows.small.levels)
    order = locality_order(rows.offsets, rows.codes, codec)
    write_store(folder, order, rows.offsets, rows.codes, rows.small if rows.exact is None else rows.exact)


@dataclass(frozen=True, eq=False)
class StoredTokens(Encoded):
    """Residual codes in a file, which kernels verify as they read them, through ``file.checked``."""

    file: ArrayFile

    @classmethod
    def of(cls, file: ArrayFile, n_tokens: int, width: int) -> StoredTokens:
        """Map the codes of so many tokens, of ``width`` bytes each."""
        levels = file.unverified("levels", "uint8", (n_tokens, width))
        return cls(levels, file.unverified("scalars", "uint8", (n_tokens, 2)), file)


class MultiVectorIndex:
    """One segment's multi-vector part, memory-mapped.

    Attributes
    ----------
    codec : Codec
        That encoded it.

    Raises
    ------
    IndexFormatError
        A damaged file, or arrays that do not fit each other or the codec (kernels check no bounds, so this is checked here).
    """

    def __init__(self, folder: Path, codec: Codec) -> None:
        file, self.codec = ArrayFile(folder / FILE_NAME, KIND), codec
        self.file = file
        self.n_docs, self.dim, self.nbits = (int(number) for number in file.array("shape", "int64", (3,)))
        file.require(self.dim == codec.dim and self.nbits in codec.ranges, "arrays that fit the codec")
        self.codes: Codes = file.array("codes", "uint16", (None,))
        self.offsets: Int64s = file.array("offsets", "int64", (self.n_docs + 1,))
        self.list_starts: Int64s = file.array("list_starts", "int64", (codec.n_centroids + 1,))
        self.list_documents: Int32s = file.array("list_documents", "int32", (None,))
        self.small: StoredTokens | None = None
        if "levels" in file:
            self.small = StoredTokens.of(file, len(self.codes), self.dim * self.nbits // 8)
        file.require(is_indptr(self.offsets, len(self.codes)) and is_indptr(self.list_starts, len(self.list_documents)))
        file.require(not len(self.codes) or int(self.codes.max()) < codec.n_centroids)
        documents = self.list_documents
        file.require(not len(documents) or 0 <= int(documents.min()) <= int(documents.max()) < self.n_docs)
        self.store = TokenStore(folder, self.offsets, self.dim, EXACT_BITS if self.small else self.nbits, codec.n_centroids)

    def totals(self) -> dict[str, int]:
        """Tokens."""
        return {"n_tokens": len(self.codes)}

    @property
    def n_bytes(self) -> int:
        """Size of the files in bytes."""
        return self.file.n_bytes + self.store.file.n_bytes

    def tokens(self, codec: Codec, first: int, last: int, *, rotated: bool = False) -> Floats:
        """Decode the tokens of documents ``first`` to ``last`` - 1, from the store."""
        codes, encoded = self.store.unpack(np.arange(first, last))
        return codec.decode(codes, encoded, rotated=rotated)

    def rows(self, live: Mask | None = None) -> TokenRows:
        """Encoded tokens as they were written, those of documents where ``live`` is false left out. Copies."""
        kept = np.arange(self.n_docs) if live is None else np.flatnonzero(live)
        self.verify()
        codes, encoded = self.store.unpack(kept)
        offsets, tokens = picks_of(self.offsets, kept)
        if self.small is None:
            return TokenRows(offsets, codes, encoded, None)
        return TokenRows(offsets, codes, self.small.take(tokens), encoded)

    def sizes(self) -> dict[str, int]:
        """Bytes of each array; those of the token store are called ``store_...``."""
        return {**self.file.sizes(), **{f"store_{name}": n_bytes for name, n_bytes in self.store.file.sizes().items()}}

    def verify(self) -> None:
        """Verify every checksum."""
        self.file.verify()
        self.store.file.verify()

    def check(self) -> None:
        """Verify every checksum, that the lists are what the codes say, and that the store has the same codes."""
        self.file.verify()
        self.store.check()
        starts = count_documents(self.offsets, self.codes, len(self.list_starts) - 1)
        same = np.array_equal(starts, self.list_starts)
        if not (same and np.array_equal(list_documents(self.offsets, self.codes, starts), self.list_documents)):
            raise IndexFormatError(self.file.path, expected="lists that follow from the codes", found="others")
        for first in range(0, self.n_docs, CHECKED_DOCS):
            last = min(first + CHECKED_DOCS, self.n_docs)
            codes, _ = self.store.unpack(np.arange(first, last))
            if not np.array_equal(codes, self.codes[self.offsets[first] : self.offsets[last]]):
                raise IndexFormatError(self.store.file.path, expected=f"the codes of {FILE_NAME}", found="others")
