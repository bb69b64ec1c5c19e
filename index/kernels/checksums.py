"""CRC-32 of an array file in chunks of 64 KiB, each verified when something first reads from it.

A kernel calls `verify_span` right before it reads bytes for the first time::

    if is_unread(checked.states, first, end):
        verify_span(checked, first, end)

and where they were read before that costs a load for each chunk: two functions, since the first is inlined and the second not.
Damage raises nothing inside a kernel: it is noted, and `storage.ArrayFile.raise_damage` tells the caller when the kernel has
returned. Until then kernels work on damaged values, which must not lead them to an address outside their arrays.
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from . import kernel, kernel_or

CHUNK_BITS = 16
CHUNK_BYTES = 1 << CHUNK_BITS
UNREAD, SOUND, DAMAGED = np.uint8(0), np.uint8(1), np.uint8(2)
SLICES = 16
"""Bytes that are looked up at once ("slicing": Kounavis and Berry, ISCC 2005)."""

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]


class Checked(NamedTuple):
    """The content of a file and what is known of it.

    Attributes
    ----------
    content : (n_bytes,) uint8, read-only
    checksums : (n_chunks,) uint32, read-only
    states : (n_chunks + 1,) uint8
        UNREAD, SOUND or DAMAGED; the last is DAMAGED once any is. Threads write it without a lock: all write the same.
    """

    content: U8
    checksums: U32
    states: U8


class HasChecked(Protocol):
    """A named tuple with the three arrays of `Checked`, maybe among others."""

    @property
    def content(self) -> U8: ...  # noqa: D102
    @property
    def checksums(self) -> U32: ...  # noqa: D102
    @property
    def states(self) -> U8: ...  # noqa: D102


def _tables() -> U32:
    """``tables[k, b]``: CRC-32 of the byte ``b`` with ``k`` zeros after it, without the inversions."""
    tables = np.zeros((SLICES, 256), np.uint32)
    crcs = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        crcs = np.where(crcs & 1, (crcs >> 1) ^ np.uint32(0xEDB88320), crcs >> 1).astype(np.uint32)
    tables[0] = crcs
    for k in range(1, SLICES):
        tables[k] = tables[0][tables[k - 1] & 255] ^ (tables[k - 1] >> 8)
    return tables


_T = _tables()


@kernel_or(zlib.crc32)
def crc32(data: U8) -> Any:
    """CRC-32 of bytes (n,) uint8, as zlib has it; zlib itself stands in where kernels are interpreted."""
    whole = len(data) // SLICES * SLICES
    words = data[:whole].view(np.uint32)
    crc, byte = np.uint32(0xFFFFFFFF), np.uint32(255)
    for i in range(0, len(words), 4):
        a, b, c, d = words[i] ^ crc, words[i + 1], words[i + 2], words[i + 3]
        crc = (
            _T[15, a & byte] ^ _T[14, (a >> 8) & byte] ^ _T[13, (a >> 16) & byte] ^ _T[12, a >> 24]
            ^ _T[11, b & byte] ^ _T[10, (b >> 8) & byte] ^ _T[9, (b >> 16) & byte] ^ _T[8, b >> 24]
            ^ _T[7, c & byte] ^ _T[6, (c >> 8) & byte] ^ _T[5, (c >> 16) & byte] ^ _T[4, c >> 24]
            ^ _T[3, d & byte] ^ _T[2, (d >> 8) & byte] ^ _T[1, (d >> 16) & byte] ^ _T[0, d >> 24]
        )  # fmt: skip
    for i in range(whole, len(data)):
        crc = _T[0, (crc ^ data[i]) & byte] ^ (crc >> np.uint32(8))
    return crc ^ np.uint32(0xFFFFFFFF)


@kernel
def is_unread(states: U8, first: Any, end: Any) -> bool:
    """Whether some of the bytes ``first`` to ``end`` - 1 were not verified yet."""
    for chunk in range(first >> CHUNK_BITS, ((end - 1) >> CHUNK_BITS) + 1):  # noqa: SIM110
        if states[chunk] == UNREAD:
            return True
    return False


@kernel
def verify_span(checked: HasChecked, first: Any, end: Any) -> None:
    """Verify the chunks that the bytes ``first`` to ``end`` - 1 of the content lie in, and note what was found."""
    for chunk in range(first >> CHUNK_BITS, ((end - 1) >> CHUNK_BITS) + 1):
        if checked.states[chunk] == UNREAD:
            data = checked.content[chunk << CHUNK_BITS : min((chunk + 1) << CHUNK_BITS, len(checked.content))]
            if crc32(data) == checked.checksums[chunk]:
                checked.states[chunk] = SOUND
            else:
                checked.states[chunk] = checked.states[-1] = DAMAGED


@kernel
def position(checked: HasChecked, array: npt.NDArray[Any]) -> Any:
    """Return the byte of the content that an array of the file begins at."""
    return np.int64(array.ctypes.data) - np.int64(checked.content.ctypes.data)
