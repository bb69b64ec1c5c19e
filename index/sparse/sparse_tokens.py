"""The sparse tokens of a segment: what SLIM (arXiv 2302.06587) scores its candidates by, beside the inverted part.

Arrays of ``sparse_tokens.lex``; n documents, T tokens, E entries::

    offsets (n+1,) i64               tokens of document d are offsets[d]:offsets[d + 1]
    indptr (T+1,) u32 or i64         entries of token t are indptr[t]:indptr[t + 1]
    ranks (E,) u16 or u32 | impacts (E,) u8    ranks of terms in the segment's inverted part, quantised weights
    weights (E,) f32                 only where the inverted part has them

The inverted part holds each document's largest impact of each term. Impacts rise with weights and have one scale, so that it
is the same whether maxima are taken of weights or of impacts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..array_files import ArrayFile, ArrayFileWriter
from ..arrays import Floats, Int32s, Int64s, is_indptr, joined_offsets, picks_of
from ..representations.sparse_multivectors import SparseMultiVectors, fold
from .inverted import ImpactRows, InvertedIndex
from .quantize import Impacts, quantize

KIND = "sparse-tokens"
FILE_NAME = "sparse_tokens.lex"
CHECKED_DOCS = 4096
"""Documents whose maxima `SparseTokenIndex.check` takes at a time."""


@dataclass(frozen=True, eq=False)
class SparseTokenRows:
    """Quantised tokens of documents, ready to be written.

    Attributes
    ----------
    offsets : (n + 1,) int64
    rows : ImpactRows
        A row a token.
    """

    offsets: Int64s
    rows: ImpactRows

    @classmethod
    def quantized(cls, vectors: SparseMultiVectors, scale: float, *, keep: bool) -> SparseTokenRows:
        """Round weights to impacts; with ``keep``, rows have both."""
        rows, weights = vectors.rows, vectors.rows.weights if keep else None
        impacts = quantize(rows.weights, scale)
        return cls(vectors.offsets, ImpactRows(indptr=rows.indptr, terms=rows.terms, impacts=impacts, weights=weights))

    @classmethod
    def joined(cls, parts: Sequence[SparseTokenRows]) -> SparseTokenRows:
        """Put the documents of all parts end to end."""
        rows = ImpactRows.joined([part.rows for part in parts])
        return cls(joined_offsets([part.offsets for part in parts]), rows)

    def take(self, order: npt.NDArray[Any]) -> SparseTokenRows:
        """Return some of the documents, or all in another order; ``order[new] = old``."""
        offsets, tokens = picks_of(self.offsets, order)
        return SparseTokenRows(offsets, self.rows.take(tokens.astype(np.int32)))

    def write(self, path: Path) -> None:
        """Write ``sparse_tokens.lex``; its ranks are those of an inverted part of the documents' maxima."""
        terms, ranks = self.rows.ranks()
        with ArrayFileWriter(path, KIND) as out:
            out.add("offsets", self.offsets)
            indptr = self.rows.indptr
            out.add("indptr", indptr.astype(np.uint32) if indptr[-1] < 1 << 32 else indptr)
            out.add("ranks", ranks.astype(np.uint16) if len(terms) <= 1 << 16 else ranks)
            out.add("impacts", self.rows.impacts)
            if self.rows.weights is not None:
                out.add("weights", self.rows.weights)


class SparseTokenIndex:
    """One segment's inverted part and sparse tokens, memory-mapped.

    Raises
    ------
    IndexFormatError
        A damaged file, or offsets that do not fit each other (kernels check no bounds but those of ranks).
    """

    def __init__(self, folder: Path) -> None:
        self.inverted = InvertedIndex(folder / "inverted.lex")
        file = self.file = ArrayFile(folder / FILE_NAME, KIND)
        self.offsets: Int64s = file.array("offsets", "int64", (self.n_docs + 1,))
        self.indptr: npt.NDArray[Any] = file.array("indptr", ("uint32", "int64"), (None,))
        self.ranks: npt.NDArray[Any] = file.unverified("ranks", ("uint16", "uint32"), (None,))
        self.impacts: Impacts = file.unverified("impacts", "uint8", (len(self.ranks),))
        self.weights: Floats | None = None
        if "weights" in file:
            self.weights = file.unverified("weights", "float32", (len(self.ranks),))
        file.require(is_indptr(self.offsets, len(self.indptr) - 1) and is_indptr(self.indptr, len(self.ranks)))

    @property
    def n_docs(self) -> int:
        """Number of documents."""
        return self.inverted.n_docs

    @property
    def n_tokens(self) -> int:
        """Number of tokens."""
        return len(self.indptr) - 1

    def totals(self) -> dict[str, int]:
        """Postings and tokens."""
        return {**self.inverted.totals(), "n_tokens": self.n_tokens}

    @property
    def n_bytes(self) -> int:
        """Size of both files in bytes."""
        return self.inverted.n_bytes + self.file.n_bytes

    def rows(self, live: npt.NDArray[np.bool_] | None = None) -> SparseTokenRows:
        """Tokens as they were written, those of documents where ``live`` is false left out. Copies."""
        whole = self.span(0, self.n_docs)
        return whole if live is None else whole.take(np.flatnonzero(live))

    def span(self, first: int, last: int) -> SparseTokenRows:
        """Tokens of documents ``first`` to ``last`` - 1, with term numbers of the index."""
        offsets = self.offsets[first : last + 1]
        indptr = self.indptr[offsets[0] : offsets[-1] + 1].astype(np.int64)
        entries = slice(int(indptr[0]), int(indptr[-1]))
        weights = None if self.weights is None else self.weights[entries]
        for array in (self.ranks[entries], self.impacts[entries], weights):
            if array is not None:
                self.file.verify(array)
        ranks = self.ranks[entries]
        self.file.require(not len(ranks) or int(ranks.max()) < len(self.inverted.terms), "ranks of the inverted part")
        terms: Int32s = self.inverted.terms[ranks]
        rows = ImpactRows(indptr=indptr - indptr[0], terms=terms, impacts=self.impacts[entries], weights=weights)
        return SparseTokenRows(offsets - offsets[0], rows)

    def sizes(self) -> dict[str, int]:
        """Bytes of each array; those of the tokens are called ``token_...``."""
        return {**self.inverted.sizes(), **{f"token_{name}": n_bytes for name, n_bytes in self.file.sizes().items()}}

    def verify(self) -> None:
        """Verify every checksum."""
        self.inverted.verify()
        self.file.verify()

    def check(self) -> None:
        """Verify every checksum, and that the inverted part holds the maxima of the tokens."""
        self.file.verify()
        self.inverted.check()
        arrays = self.inverted.arrays
        for first in range(0, self.n_docs, CHECKED_DOCS):
            last = min(first + CHECKED_DOCS, self.n_docs)
            part = self.span(first, last)
            indptr, terms, impacts = fold(part.offsets, part.rows.indptr, part.rows.terms, part.rows.impacts, np.maximum)
            stored = arrays.forward_indptr[first : last + 1]
            ranks, maxima = self.inverted.entries(first, last)
            same = np.array_equal(indptr, stored - stored[0]) and np.array_equal(terms, self.inverted.terms[ranks])
            self.file.require(same and np.array_equal(impacts, maxima), "tokens whose maxima are the inverted part")
