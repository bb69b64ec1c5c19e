"""String tables: an ordered list of strings with a hash index, memory-mapped, so that opening one costs nothing.

Used for doc_ids (string -> doc_num) and for vocabularies (string -> term number)::

    characters (total,) u8 UTF-8 | offsets (n+1,) i64 | hashes (n,) u64 ascending | order (n,) i32
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .array_files import ArrayFile, ArrayFileWriter
from .arrays import Int32s, Int64s, offsets_of
from .errors import IndexFormatError
from .kernels import read_only
from .kernels.hashing import find_strings, hash_strings

KIND = "strings"


class StringTable:
    """An immutable list of strings that finds positions by string; make one with `of` or `open`."""

    def __init__(
        self,
        characters: npt.NDArray[np.uint8],
        offsets: Int64s,
        hashes: npt.NDArray[np.uint64],
        order: Int32s,
    ) -> None:
        self._characters, self._offsets, self._hashes, self._order = characters, offsets, hashes, order
        self.n_bytes = characters.nbytes + offsets.nbytes + hashes.nbytes + order.nbytes

    @classmethod
    def of(cls, strings: Sequence[str]) -> StringTable:
        """Build a table in memory; of equal strings the first is found."""
        characters, offsets = packed(strings)
        hashes = hash_strings(characters, offsets)
        order = np.argsort(hashes, kind="stable")
        return cls(characters, offsets, read_only(hashes[order]), read_only(order.astype(np.int32)))

    @classmethod
    def open(cls, path: Path) -> StringTable:
        """Map a table; raises IndexFormatError when it is damaged, or no strings come of its arrays."""
        file = ArrayFile(path, KIND)
        hashes = file.array("hashes", "uint64", (None,))
        n = len(hashes)
        offsets, order = file.array("offsets", "int64", (n + 1,)), file.array("order", "int32", (n,))
        table = cls(file.array("characters", "uint8", (None,)), offsets, hashes, order)
        file.require(offsets[0] == 0 and offsets[-1] == len(table._characters))
        file.require(not n or 0 <= order.min() <= order.max() < n)
        try:
            table.to_arrow().validate(full=True)
        except pa.ArrowInvalid as failure:
            raise IndexFormatError(path, expected="strings in UTF-8", found=failure) from failure
        return table

    def check(self, path: Path) -> None:
        """Raise IndexFormatError unless every string is found; ``path`` is the table's file."""
        hashes = hash_strings(self._characters, self._offsets)
        order = np.argsort(hashes, kind="stable")
        if not (np.array_equal(self._hashes, hashes[order]) and np.array_equal(self._order, order)):
            raise IndexFormatError(path, expected="hashes that follow from the strings", found="others")

    def write(self, path: Path) -> None:
        """Write the table as an array file."""
        with ArrayFileWriter(path, KIND) as out:
            out.add("offsets", self._offsets)
            out.add("hashes", self._hashes)
            out.add("order", self._order)
            out.add("characters", self._characters)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, position: int) -> str:
        return bytes(self._characters[self._offsets[position] : self._offsets[position + 1]]).decode()

    def take(self, positions: Iterable[int]) -> list[str]:
        """Strings at ``positions``."""
        return [self[int(position)] for position in positions]

    def find(self, strings: Sequence[str]) -> Int32s:
        """Position of each string, -1 where it is absent."""
        wanted = packed(strings, errors="surrogatepass")  # what is no Unicode text is absent
        return find_strings(self._characters, self._offsets, self._hashes, self._order, *wanted)

    def to_arrow(self) -> pa.LargeStringArray:
        """Return the strings as an Arrow column, without copying."""
        buffers = (pa.py_buffer(self._offsets), pa.py_buffer(self._characters))
        return pa.LargeStringArray.from_buffers(len(self), *buffers)


def packed(strings: Sequence[str], errors: str = "strict") -> tuple[npt.NDArray[np.uint8], Int64s]:
    """Return the characters of strings in UTF-8, end to end, and where each begins, read-only."""
    joined = "".join(strings)  # not through pyarrow, which would import pandas
    if joined.isascii():
        characters, lengths = joined.encode(), list(map(len, strings))
    else:
        encoded = [string.encode(errors=errors) for string in strings]
        characters, lengths = b"".join(encoded), list(map(len, encoded))
    return read_only(np.frombuffer(characters, np.uint8)), read_only(offsets_of(np.array(lengths, np.int64)))
