"""The token store of a segment: everything that scoring a document needs, in one record, where similar documents are near.

Arrays of ``tokens.lex``; n documents, T tokens::

    records (T * token_bytes,) u8    of each document its centroid codes (u16), scalars (2 x u8) and levels, see `residual`
    slots (n,) i32                   where each document's record stands in the file
    starts (n+1,) i64                tokens of slot s are starts[s]:starts[s + 1], its record begins at token_bytes * starts[s]
    checks (n,) u32                  XXH64 of each document's record, seeded by document and place

So the directory takes 16 bytes a document, and a reranker reads one stretch of the file for each candidate, or for several
that are neighbours (`locality`). Records are verified one by one, not by chunks of the file, so nothing else is read for it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..array_files import ArrayFile, ArrayFileWriter
from ..arrays import Bytes, Int32s, Int64s, is_indptr, is_permutation
from ..errors import IndexFormatError
from ..kernels import read_only
from ..kernels.checksums import DAMAGED, UNREAD
from ..kernels.records import SCALAR_BYTES, checksum, pack_records, unpack_records, verify_records
from ..preludes import ADVICE, PRELUDE_BYTES
from ..reading.backends import open_reader
from ..reading.reader import FileReader, open_checked
from ..refusals import storage_errors
from .residual import Encoded

FILE_NAME, KIND = "tokens.lex", "tokens"
BLOCK_TOKENS = 1 << 16
"""Tokens whose records are made at once."""
Codes = npt.NDArray[np.uint16]
Positions = npt.NDArray[np.integer]


class Places(NamedTuple):
    """Where the records of some documents are; arrays of one length.

    Attributes
    ----------
    documents : (n,) int32
        Positions in the segment.
    firsts, n_tokens : (n,) int64
        Number of a record's first token in the file, and its tokens.
    checks : (n,) uint32
        Checksums that the records must have.
    """

    documents: Int32s
    firsts: Int64s
    n_tokens: Int64s
    checks: npt.NDArray[np.uint32]

    def take(self, picks: Int64s | slice) -> Places:
        """Return some of them."""
        return Places(self.documents[picks], self.firsts[picks], self.n_tokens[picks], self.checks[picks])


class TokenStore:
    """The records of one segment, memory-mapped until `put` says otherwise.

    Attributes
    ----------
    file : ArrayFile
    nbits : int
        Bits per dimension of the residuals.
    token_bytes : int
    records : (n_bytes,) uint8
        In the memory map or a copy of it, unverified: see `verified`.
    reader : FileReader or None
        Reads records from disk, where they are not to be in memory.

    Raises
    ------
    IndexFormatError
        Damaged file, or documents of other lengths than ``offsets`` says.
    """

    def __init__(self, folder: Path, offsets: Int64s, dim: int, nbits: int, n_centroids: int) -> None:
        file, n_docs = ArrayFile(folder / FILE_NAME, KIND), len(offsets) - 1
        self.file, self.nbits, self.token_bytes = file, nbits, SCALAR_BYTES + dim * nbits // 8
        self.n_centroids = n_centroids
        self.slots: Int32s = file.array("slots", "int32", (n_docs,))
        self.starts: Int64s = file.array("starts", "int64", (n_docs + 1,))
        self.checks = file.array("checks", "uint32", (n_docs,))
        self.records: Bytes = file.unverified("records", "uint8", (int(offsets[-1]) * self.token_bytes,))
        file.require(is_indptr(self.starts, int(offsets[-1])) and is_permutation(self.slots))
        file.require(np.array_equal(np.diff(self.starts)[self.slots], np.diff(offsets)))
        self._states = np.zeros(n_docs, np.uint8)  # UNREAD
        self.reader: FileReader | None = None
        self._mapped = self.records

    @property
    def place(self) -> str:
        """Where records are: "memory", "mmap", or the backend that reads them."""
        if self.reader is not None:
            return self.reader.backend
        return "mmap" if self.records is self._mapped else "memory"

    def put(self, place: str | None) -> None:
        """Put records into memory, leave them to the memory map, or open the file for a backend; None: the first that works.

        Raises
        ------
        IndexFormatError
            The file is another one by now, or was cut short.
        StorageError
            It cannot be opened or read, or there is not enough memory.
        """
        if place == self.place or (place is None and self.reader is not None):
            return
        if place == "mmap":
            self.file.advise_random()
            self.records, self.reader = self._mapped, None
            return
        self.slots, self.starts, self.checks = self.slots.copy(), self.starts.copy(), self.checks.copy()
        if place == "memory":
            self.records, self.reader = self._copied(), None
        else:
            self.records, self.reader = self._mapped, open_reader(self.file.path, self.file.record, place)
        self.file.release()

    def _copied(self) -> Bytes:
        descriptor = open_checked(self.file.path, self.file.record, direct=False)
        try:
            with storage_errors(self.file.path):
                records, n_bytes = np.empty(self._mapped.nbytes, np.uint8), 0
                while n_bytes < len(records):
                    n_read = os.preadv(descriptor, [records[n_bytes:].data], self.origin + n_bytes)
                    self.file.require(n_read > 0, f"{len(records)} bytes of records", n_bytes)
                    n_bytes += n_read
        finally:
            os.close(descriptor)
        return read_only(records)

    @property
    def origin(self) -> int:
        """Byte of the file that records begin at."""
        return PRELUDE_BYTES + self.file.origin("records")

    @property
    def directory_bytes(self) -> int:
        """Bytes of what tells where records are."""
        return self.slots.nbytes + self.starts.nbytes + self.checks.nbytes

    def n_tokens(self, positions: Positions) -> Int64s:
        """Tokens of documents at some positions."""
        slots = self.slots[positions]
        return self.starts[slots + 1] - self.starts[slots]

    def places(self, positions: Positions) -> Places:
        """Where the records of documents at some positions are."""
        slots = self.slots[positions]
        firsts = self.starts[slots]
        return Places(positions.astype(np.int32), firsts, self.starts[slots + 1] - firsts, self.checks[positions])

    def looked_up(self, positions: Positions) -> tuple[Places, Bytes]:
        """Return where records are in `records`, and of each whether it is SOUND or DAMAGED, which is found out once."""
        places = self.places(positions)
        states = self._states[positions]
        verify_records(
            np.arange(len(positions)), places.documents, places.firsts * self.token_bytes, places.n_tokens, places.firsts,
            places.checks, self.records, self.token_bytes, self.n_centroids, states,
        )  # fmt: skip
        self._states[positions] = states
        return places, states

    def verified(self, positions: Positions) -> Places:
        """Return where records are in `records`; raises IndexFormatError for a damaged one."""
        places, states = self.looked_up(positions)
        damaged = np.flatnonzero(states == DAMAGED)
        if len(damaged):
            raise self.damage(places, int(damaged[0]), self.records, int(places.firsts[damaged[0]]) * self.token_bytes)
        return places

    def damage(self, places: Places, number: int, source: Bytes | None = None, at: int = 0) -> IndexFormatError:
        """Return the error of one of some records, of which ``source`` has at byte ``at`` what was read; None: nothing was."""
        document, first, n_tokens, check = (each[number] for each in places)
        n_bytes = int(n_tokens) * self.token_bytes
        start = self.origin + int(first) * self.token_bytes
        where = f"bytes {start} to {start + n_bytes}, of array 'records'"
        expected = f"document {document} of the segment, whose record has XXH64 {int(check):08x} in {where}"
        found = "the end of the file"
        if source is not None:
            right = int(checksum(read_only(source[at : at + n_bytes]), document, first))
            found = f"{right:08x}" if right != check else "codes of no centroid"
        return IndexFormatError(self.file.path, expected=expected, found=found, advice=ADVICE)

    def unpack(self, positions: Positions) -> tuple[Codes, Encoded]:
        """Centroid codes and residuals of documents at some positions, end to end, verified."""
        places = self.verified(positions)
        n_tokens = int(places.n_tokens.sum())
        codes, scalars = np.empty(n_tokens, np.uint16), np.empty((n_tokens, 2), np.uint8)
        levels = np.empty((n_tokens, self.token_bytes - SCALAR_BYTES), np.uint8)
        unpack_records(places.firsts * self.token_bytes, places.n_tokens, self.records, codes, scalars, levels)
        return codes, Encoded(levels, scalars)

    def check(self) -> None:
        """Verify every checksum of the file and of the records; raises IndexFormatError."""
        self.file.verify()
        self._states[:] = UNREAD
        self.verified(np.arange(len(self.slots)))


def write_store(folder: Path, order: Int32s, offsets: Int64s, codes: Codes, encoded: Encoded) -> None:
    """Write ``tokens.lex``.

    Parameters
    ----------
    folder : Path
    order : (n,) int32
        The document of each slot.
    offsets, codes, encoded
        Tokens of all documents, document by document.
    """
    n_docs, token_bytes = len(order), SCALAR_BYTES + encoded.levels.shape[1]
    starts = np.zeros(n_docs + 1, np.int64)
    np.cumsum(np.diff(offsets)[order], out=starts[1:])
    slots, checks = np.empty(n_docs, np.int32), np.empty(n_docs, np.uint32)
    slots[order] = np.arange(n_docs, dtype=np.int32)
    with ArrayFileWriter(folder / FILE_NAME, KIND) as out:
        with out.stream("records") as sink:
            first = 0
            while first < n_docs:
                last = max(first + 1, int(np.searchsorted(starts, starts[first] + BLOCK_TOKENS, side="right")) - 1)
                records = np.empty(int(starts[last] - starts[first]) * token_bytes, np.uint8)
                found = np.empty(last - first, np.uint32)
                pack_records(
                    order[first:last], starts[first:last], offsets, codes, encoded.scalars, encoded.levels, records, found
                )  # fmt: skip
                sink.write(records.data)
                checks[order[first:last]] = found
                first = last
        out.add("slots", slots)
        out.add("starts", starts)
        out.add("checks", checks)
