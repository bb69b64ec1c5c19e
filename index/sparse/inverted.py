"""The inverted part of a segment: posting lists, block maxima and the document rows they came from.

Arrays of ``inverted.lex``; T distinct terms, P postings, n documents, windows of W documents, blocks of 8::

    terms (T,) i32 ascending         term numbers; a term's position here is its *rank*
    starts (T+1,) i64                postings of rank t are starts[t]:starts[t+1], in document order
    slots (P,) u16 | impacts (P,) u8 document number inside its window, quantised weight
    run_starts (T+1,) i64 | run_windows (R,) u16 | run_offsets (R,) u32   where each window's postings begin
    kth (T, 4) u8                    1st, 10th, 100th and 1000th largest impact
    dense_rows (T,) i32 | dense (F, blocks / 2) u8   block maxima of the F frequent terms, 4 bits each; -1: none
    column_of (T,) i32 | columns (C, n padded to 64) u8   impacts of the C most frequent terms by document; -1: none
    forward_indptr (n+1,) i64 | forward u8     document rows, packed as `kernels.rows` says
    counts (P,) u8 to u32 | lengths (n,) u32    BM25 only: what the impacts were computed from
    weights (P,) f32                  other fields, and only while the field's scale does not fit them (see `weighing`)

A term that is not frequent needs no block maxima: adding the impacts of its postings to their blocks is a bound too. A scan
adds a column with vector instructions, 64 documents at a time, and then needs no postings of its term. Files that earlier
versions wrote have no columns.
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
from ..kernels import is_interpreted, read_only
from ..kernels import postings as kernels
from ..kernels.checksums import CHUNK_BITS, SOUND
from ..kernels.handles import handle_of
from ..kernels.postings import BLOCK, KTH, PostingArrays
from ..kernels.rows import PAD, pack_rows, rank_bytes, unpack_rows
from .quantize import Impacts

KIND = "inverted"
_READ = ("slots", "impacts", "dense", "forward", "columns")
WINDOW = 65536
"""Documents of a window, as many as slots can tell apart: their scores fill 128 KiB, which a second-level cache holds."""
WINDOW_STEP = 512
"""Small segments have one window, of a multiple of this size."""
MAX_COUNTED_TERM = 1 << 26
"""Terms up to this number are counted to find the distinct ones; where there are larger ones all are sorted."""
COUNTS = ("uint8", "uint16", "uint32")
DENSE_SHARE = 0.02
"""A term in more than this share of the documents gets a dense row of block maxima."""
COLUMN_SHARE = 0.125
"""A term in more than this share of the documents gets a column: from here on it is faster than the term's postings."""
COLUMN_STEP = 64
"""Columns are padded to a multiple of so many documents."""


@dataclass(frozen=True, kw_only=True)
class ImpactRows:
    """Document rows ready to be inverted.

    Attributes
    ----------
    indptr : (n + 1,) int64
    terms : (P,) int32, ascending in a row
    impacts : (P,) uint8, 1..255
    counts, lengths : (P,) unsigned and (n,) uint32, or None
        BM25's term counts and document lengths in tokens.
    weights : (P,) float32, or None
        What the impacts were rounded from, where they do not tell it well.
    """

    indptr: Int64s
    terms: Int32s
    impacts: Impacts
    counts: npt.NDArray[np.unsignedinteger[Any]] | None = None
    lengths: npt.NDArray[np.uint32] | None = None
    weights: Floats | None = None

    def ranks(self) -> tuple[Int32s, npt.NDArray[np.uint32]]:
        """Distinct terms, ascending, and for each entry the position of its term among them."""
        if len(self.terms) and self.terms.max() > MAX_COUNTED_TERM:
            distinct, ranks = np.unique(self.terms, return_inverse=True)
            return distinct, ranks.astype(np.uint32)
        present = np.bincount(self.terms) > 0 if len(self.terms) else np.zeros(0, np.bool_)
        rank_of = np.cumsum(present, dtype=np.uint32) - np.uint32(1)
        return np.flatnonzero(present).astype(np.int32), rank_of[self.terms]

    def take(self, order: Int32s) -> ImpactRows:
        """Return the rows in another order; ``order[new] = old``."""
        indptr, picks = picks_of(self.indptr, order)
        return ImpactRows(
            indptr=indptr,
            terms=self.terms[picks],
            impacts=self.impacts[picks],
            counts=None if self.counts is None else self.counts[picks],
            lengths=None if self.lengths is None else self.lengths[order],
            weights=None if self.weights is None else self.weights[picks],
        )

    @classmethod
    def joined(cls, parts: Sequence[ImpactRows]) -> ImpactRows:
        """Put the rows of all parts end to end; all have counts and lengths, or none. Weights are lost unless all have them."""
        counts = [part.counts for part in parts if part.counts is not None]
        lengths = [part.lengths for part in parts if part.lengths is not None]
        weights = [part.weights for part in parts if part.weights is not None]
        return cls(
            indptr=joined_offsets([part.indptr for part in parts]),
            terms=np.concatenate([np.empty(0, np.int32), *(part.terms for part in parts)]),
            impacts=np.concatenate([np.empty(0, np.uint8), *(part.impacts for part in parts)]),
            counts=np.concatenate(counts) if counts else None,
            lengths=np.concatenate(lengths) if lengths else None,
            weights=np.concatenate(weights) if weights and len(weights) == len(parts) else None,
        )


def invert(rows: ImpactRows) -> dict[str, npt.NDArray[Any]]:
    """Arrays of the file by name: `write_inverted` writes them, and a part that differs from them is damaged."""
    n_docs = len(rows.indptr) - 1
    window = min(WINDOW, max(1, -(-n_docs // WINDOW_STEP)) * WINDOW_STEP)
    terms, ranks = rows.ranks()
    starts, run_starts = kernels.count_postings(rows.indptr, ranks, len(terms), window)
    slots, impacts, run_windows, run_offsets = kernels.transpose(rows.indptr, ranks, rows.impacts, starts, run_starts, window)
    frequent, dense_rows = _in_more(starts, DENSE_SHARE * n_docs)
    n_blocks = -(-n_docs // window) * (window // BLOCK)
    kth = kernels.kth_impacts(starts, impacts, KTH)
    dense = kernels.block_maxima(frequent, starts, slots, impacts, run_starts, run_windows, run_offsets, kth, window, n_blocks)
    common, column_of = _in_more(starts, COLUMN_SHARE * n_docs)
    columns = kernels.fill_columns(
        common, starts, slots, impacts, run_starts, run_windows, run_offsets, window, _padded(n_docs)
    )  # fmt: skip
    arrays: dict[str, npt.NDArray[Any]] = {
        "shape": np.array([n_docs, window], np.int64), "terms": terms, "starts": starts, "run_starts": run_starts,
        "run_windows": run_windows, "run_offsets": run_offsets, "kth": kth, "dense_rows": dense_rows, "column_of": column_of,
        "forward_indptr": rows.indptr, "slots": slots, "impacts": impacts, "dense": dense, "columns": columns,
        "forward": pack_rows(rows.indptr, ranks, rows.impacts, rank_bytes(len(terms))),
    }  # fmt: skip
    if rows.counts is not None and rows.lengths is not None:
        arrays |= {"counts": rows.counts, "lengths": rows.lengths}
    if rows.weights is not None:
        arrays["weights"] = rows.weights
    return arrays


def _in_more(starts: Int64s, n_docs: float) -> tuple[Int64s, Int32s]:
    """Ranks of the terms in more than so many documents, at least a block's; and for each term its place among them or -1."""
    chosen = np.flatnonzero(np.diff(starts) > max(n_docs, BLOCK))
    place_of = np.full(len(starts) - 1, -1, np.int32)
    place_of[chosen] = np.arange(len(chosen))
    return chosen, place_of


def write_inverted(path: Path, rows: ImpactRows) -> None:
    """Invert ``rows`` and write ``inverted.lex``."""
    with ArrayFileWriter(path, KIND) as out:
        for name, array in invert(rows).items():
            out.add(name, array)


class InvertedIndex:
    """One segment's inverted part, memory-mapped.

    Attributes
    ----------
    arrays : PostingArrays
        What kernels read. They verify slots, impacts, block maxima and document rows as they read them: `raise_damage`
        of ``file`` after each kernel.

    Raises
    ------
    IndexFormatError
        Damaged file, or offsets that do not fit each other (kernels check no bounds, so this is checked here).
    """

    def __init__(self, path: Path) -> None:
        file = self.file = ArrayFile(path, KIND)
        self.n_docs, self.window = (int(number) for number in file.array("shape", "int64", (2,)))
        window = self.window
        file.require(self.n_docs >= 0 and 0 < window <= 1 << 16 and window % (2 * BLOCK) == 0)
        self.terms: Int32s = file.array("terms", "int32", (None,))
        n_terms, n_windows = len(self.terms), -(-self.n_docs // window)
        slots = file.unverified("slots", "uint16", (None,))
        run_windows = file.array("run_windows", "uint16", (None,))
        column_of, columns = self._columns(n_terms)
        self.arrays = PostingArrays(
            starts=file.array("starts", "int64", (n_terms + 1,)),
            slots=slots,
            impacts=file.unverified("impacts", "uint8", (len(slots),)),
            run_starts=file.array("run_starts", "int64", (n_terms + 1,)),
            run_windows=run_windows,
            run_offsets=file.array("run_offsets", "uint32", (len(run_windows),)),
            kth=file.array("kth", "uint8", (n_terms, len(KTH))),
            dense_rows=file.array("dense_rows", "int32", (n_terms,)),
            dense=file.unverified("dense", "uint8", (None, n_windows * (window // BLOCK) // 2)),
            column_of=column_of,
            columns=columns,
            forward_indptr=file.array("forward_indptr", "int64", (self.n_docs + 1,)),
            forward=file.unverified("forward", "uint8", (len(slots) * (rank_bytes(n_terms) + 1) + PAD,)),
            origins=read_only(np.array([file.origin(name) if name in file else 0 for name in _READ])),
            **file.checked._asdict(),
        )
        self._handle = handle_of(self.arrays)
        self._validate(n_windows)

    @property
    def packed(self) -> Any:
        """The arrays as kernels take them that are called for each query: see `kernels.postings.opened`."""
        return tuple(self.arrays) if is_interpreted() else self._handle

    def _columns(self, n_terms: int) -> tuple[Int32s, Impacts]:
        """Read ``column_of`` and ``columns``; a file without them is read as one in which no term is frequent enough."""
        width = _padded(self.n_docs)
        if "columns" in self.file:
            return self.file.array("column_of", "int32", (n_terms,)), self.file.unverified("columns", "uint8", (None, width))
        return read_only(np.full(n_terms, -1, np.int32)), read_only(np.empty((0, width), np.uint8))

    @property
    def counts(self) -> npt.NDArray[Any] | None:
        """BM25: the term count of each entry of the document rows, verified; None elsewhere."""
        return self.file.array("counts", COUNTS, (self.n_postings,)) if "counts" in self.file else None

    @property
    def lengths(self) -> npt.NDArray[np.uint32] | None:
        """BM25: the length of each document in tokens, verified; None elsewhere."""
        return self.file.array("lengths", "uint32", (self.n_docs,)) if "lengths" in self.file else None

    @property
    def n_postings(self) -> int:
        """Number of postings."""
        return len(self.arrays.slots)

    def totals(self) -> dict[str, int]:
        """Postings, and the sum of BM25's lengths."""
        lengths = self.lengths
        return {"n_postings": self.n_postings, "total_length": 0 if lengths is None else int(lengths.sum(dtype=np.int64))}

    @property
    def n_bytes(self) -> int:
        """Size of the file in bytes."""
        return self.file.n_bytes

    @property
    def weights(self) -> Floats | None:
        """What the impacts of the document rows were rounded from, verified; None where they were not kept."""
        return self.file.array("weights", "float32", (self.n_postings,)) if "weights" in self.file else None

    def ranks(self, terms: Int32s) -> Int64s:
        """Rank of each term number, -1 for a term without postings; ``terms`` in any order."""
        if not len(self.terms):
            return np.full(len(terms), -1, np.int64)
        at = np.minimum(np.searchsorted(self.terms, terms), len(self.terms) - 1)
        return np.where(self.terms[at] == terms, at, -1).astype(np.int64)

    def look_up(self, terms: Int32s, reaches: Int64s) -> Int64s:
        """Rank of each of the ascending term numbers, -1 without postings; raises ``reaches`` in place (see the kernel)."""
        ranks = np.empty(len(terms), np.int64)
        kernels.look_up(self.terms, self.arrays.kth, terms, ranks, reaches)
        return ranks

    def row(self, position: int) -> tuple[Int32s, Impacts]:
        """Term numbers and impacts of one document."""
        ranks, impacts = self.entries(position, position + 1)
        return self.terms[ranks], impacts

    def entries(self, first: int = 0, last: int | None = None) -> tuple[npt.NDArray[np.uint32], Impacts]:
        """Ranks and impacts of the documents ``first`` to ``last``, a row after the other. Copies."""
        last = self.n_docs if last is None else last
        arrays = self.arrays
        self.verify_rows(first, last)
        ranks, impacts = unpack_rows(arrays.forward_indptr, arrays.forward, rank_bytes(len(self.terms)), first, last)
        self.file.require(not len(ranks) or int(ranks.max()) < len(self.terms), f"ranks below {len(self.terms)}")
        return ranks, impacts

    def rows_of(self, documents: Int32s) -> ImpactRows:
        """Rows of some documents, terms and impacts alone, verified; ``documents`` (n,) ascending."""
        indptr, ranks, impacts = kernels.unpack_documents(self.packed, documents)
        self.file.raise_damage()
        self.file.require(not len(ranks) or int(ranks.max()) < len(self.terms), f"ranks below {len(self.terms)}")
        return ImpactRows(indptr=indptr, terms=self.terms[ranks], impacts=impacts)

    def verify_rows(self, first: int, last: int) -> None:
        """Verify the rows of the documents ``first`` to ``last``, before a kernel that does not."""
        span = (rank_bytes(len(self.terms)) + 1) * self.arrays.forward_indptr[[first, last]]
        self.file.verify(self.arrays.forward[slice(*span.tolist())])

    def rows(self, live: npt.NDArray[np.bool_] | None = None) -> ImpactRows:
        """Document rows as they were written, those where ``live`` is false left out. Copies."""
        arrays = self.arrays
        widths = np.diff(arrays.forward_indptr)
        kept = np.ones(self.n_docs, np.bool_) if live is None else live
        entries = np.repeat(kept, widths)
        ranks, impacts = self.entries()
        indptr = np.zeros(int(kept.sum()) + 1, np.int64)
        np.cumsum(widths[kept], out=indptr[1:])
        counts, lengths, weights = self.counts, self.lengths, self.weights
        return ImpactRows(
            indptr=indptr,
            terms=self.terms[ranks[entries]],
            impacts=impacts[entries],
            counts=None if counts is None else counts[entries],
            lengths=None if lengths is None else lengths[kept],
            weights=None if weights is None else weights[entries],
        )

    def sizes(self) -> dict[str, int]:
        """Bytes of each array."""
        return self.file.sizes()

    def verify(self) -> None:
        """Verify every checksum."""
        self.file.verify()

    def check(self) -> None:
        """Verify every checksum, and that all arrays are what a build of the document rows would write."""
        self.file.verify()
        for name, array in invert(self.rows()).items():
            if name in ("column_of", "columns") and "columns" not in self.file:
                continue  # an earlier version wrote it
            stored = self.file.array(name, array.dtype.name, array.shape)
            self.file.require(np.array_equal(stored, array), f"{name} that follow from the document rows")

    def _validate(self, n_windows: int) -> None:
        arrays, n_terms, n_postings, require = self.arrays, len(self.terms), self.n_postings, self.file.require
        require(is_indptr(arrays.starts, n_postings) and is_indptr(arrays.run_starts, len(arrays.run_windows)))
        require(is_indptr(arrays.forward_indptr, n_postings))
        require(not n_terms or -1 <= arrays.dense_rows.min() <= arrays.dense_rows.max() < len(arrays.dense))
        require(not n_terms or -1 <= arrays.column_of.min() <= arrays.column_of.max() < len(arrays.columns))
        require(not n_terms or (self.terms[0] >= 0 and np.all(self.terms[1:] > self.terms[:-1])), "ascending terms")
        require(_are_runs(arrays, n_windows))


class MemoryIndex:
    """An inverted part that is not kept: rows of some documents, inverted in memory.

    Attributes
    ----------
    terms, window, arrays, packed
        As those of `InvertedIndex`; there is nothing to verify.
    """

    def __init__(self, rows: ImpactRows) -> None:
        arrays = invert(rows)
        self.terms: Int32s = arrays["terms"]
        self.window = int(arrays["shape"][1])
        longest = max(array.nbytes for array in arrays.values())
        arrays |= {
            "origins": np.zeros(len(_READ), np.int64), "content": np.empty(0, np.uint8), "checksums": np.empty(0, np.uint32),
            "states": np.full((longest >> CHUNK_BITS) + 2, SOUND, np.uint8),
        }  # fmt: skip
        self.arrays = PostingArrays(*(arrays[name] for name in PostingArrays._fields))
        self._handle = handle_of(self.arrays)

    @property
    def packed(self) -> Any:
        """As `InvertedIndex.packed`."""
        return tuple(self.arrays) if is_interpreted() else self._handle


def _padded(n_docs: int) -> int:
    return -(-n_docs // COLUMN_STEP) * COLUMN_STEP


def _are_runs(arrays: PostingArrays, n_windows: int) -> bool:
    """Whether each term's runs ascend in windows and offsets, from offset 0 and inside its postings and the windows."""
    firsts, windows, offsets = arrays.run_starts[:-1], arrays.run_windows, arrays.run_offsets
    if len(firsts) == 0:
        return len(windows) == 0
    if np.any(np.diff(arrays.run_starts) <= 0) or np.any(offsets[firsts] != 0) or np.any(windows >= n_windows):
        return False
    if np.any(offsets[arrays.run_starts[1:] - 1] >= np.diff(arrays.starts)):
        return False
    falls = (windows[1:] <= windows[:-1]) | (offsets[1:] <= offsets[:-1])
    falls[firsts[1:] - 1] = False
    return not bool(falls.any())
