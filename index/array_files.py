"""Array files: named, aligned arrays that are written once, memory-mapped, and verified before they are used.

::

    0        prelude, 64 bytes: magic | format version | kind | random id | tail offset | tail CRC-32 | prelude CRC-32
    64       content: arrays, each starting at a multiple of 64 bytes, little-endian
    offset   tail, to the end of the file: CRC-32 of each 64 KiB of the content | directory, JSON {name: [dtype, shape, offset]}

The prelude is written last, so a file that was not finished has no valid prelude. Prelude and tail are verified at open, and
the content, chunk by chunk, when it is first read: `ArrayFile.array` verifies an array whole, and of one from
`ArrayFile.unverified` whoever reads it verifies what is read (`kernels.checksums`).
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from .arrays import Bytes
from .errors import IndexFormatError, StorageError
from .kernels import read_only
from .kernels.checksums import CHUNK_BYTES, DAMAGED, SOUND, UNREAD, Checked, verify_span
from .mapping import advise_random, map_file, release_pages
from .preludes import ADVICE, PRELUDE_BYTES, new_prelude, parse_prelude, unreadable

ALIGNMENT = PRELUDE_BYTES
UNFIT = "arrays that fit each other"
_DTYPES = {"bool", "uint8", "uint16", "uint32", "uint64", "int32", "int64", "float32"}


class _Entry(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def end(self) -> int:
        return self.offset + math.prod(self.shape) * np.dtype(self.dtype).itemsize


class ArrayFileWriter:
    """Write an array file; a context manager that finishes and syncs the file when its block ends well.

    Raises
    ------
    StorageError
        The disk refuses.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self.path, self.kind = path, kind
        self._directory: dict[str, tuple[str, Sequence[int], int]] = {}
        try:
            self._file: BinaryIO = path.open("wb")
        except OSError as failure:
            raise StorageError(f"{path}: cannot be written: {failure.strerror}") from failure
        self._file.write(bytes(ALIGNMENT))
        self._content = ContentSink(self._file)

    def add(self, name: str, array: npt.NDArray[Any]) -> None:
        """Append an array of any shape; its dtype must be one that the format knows."""
        array = np.ascontiguousarray(array)
        if array.dtype.name not in _DTYPES:
            raise TypeError(f"array files hold {sorted(_DTYPES)}, not {array.dtype}")
        with self.stream(name, dtype=array.dtype.name, shape=array.shape) as sink:
            sink.write(array.reshape(-1).view(np.uint8).data)

    @contextmanager
    def stream(self, name: str, *, dtype: str = "uint8", shape: tuple[int, ...] | None = None) -> Iterator[ContentSink]:
        """Append an array written piece by piece; a one-dimensional array of bytes unless ``shape`` is given."""
        first = self._content.n_bytes
        yield self._content
        n_bytes = self._content.n_bytes - first
        self._content.write(bytes(-n_bytes % ALIGNMENT))
        self._directory[name] = (dtype, shape if shape is not None else (n_bytes,), ALIGNMENT + first)

    def __enter__(self) -> ArrayFileWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if isinstance(error, OSError):
                raise error
            if kind is None:
                self._finish()
        except OSError as failure:
            raise StorageError(f"{self.path}: cannot be written: {failure.strerror}") from failure
        finally:
            with suppress(OSError):  # what could not be flushed was told above
                self._file.close()

    def _finish(self) -> None:
        tail = self._content.checksums().tobytes() + json.dumps(self._directory).encode()
        offset = ALIGNMENT + self._content.n_bytes
        self._file.write(tail)
        self._file.seek(0)
        self._file.write(new_prelude(self.kind, offset, tail))
        self._file.flush()
        os.fsync(self._file.fileno())


class ContentSink:
    """Writes the content of a file, and keeps the CRC-32 of each chunk of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._checksums, self._crc = file, list[int](), 0
        self.n_bytes = 0
        """Bytes of the content so far."""

    def write(self, piece: Any) -> None:
        """Write bytes or any buffer of bytes."""
        rest = memoryview(piece).cast("B")
        self._file.write(rest)
        while len(rest):
            room = CHUNK_BYTES - self.n_bytes % CHUNK_BYTES
            self._crc = zlib.crc32(rest[:room], self._crc)
            self.n_bytes += min(room, len(rest))
            if self.n_bytes % CHUNK_BYTES == 0:
                self._checksums.append(self._crc)
                self._crc = 0
            rest = rest[room:]

    def checksums(self) -> npt.NDArray[np.uint32]:
        """CRC-32 of each chunk, the last one maybe shorter."""
        last = [self._crc] if self.n_bytes % CHUNK_BYTES else []
        return np.array(self._checksums + last, np.uint32)


class ArrayFile:
    """A read-only, memory-mapped array file.

    Attributes
    ----------
    record : FileRecord
    checked : Checked
        For kernels that verify what they read of unverified arrays; call `raise_damage` after them.

    Raises
    ------
    IndexFormatError
        Missing, foreign, truncated, older, newer or damaged file.
    StorageError
        The file cannot be read.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self.path, self.kind = path, kind
        self._bytes = _map(path)
        prelude = parse_prelude(path, self._bytes[:ALIGNMENT].tobytes())
        self.record = prelude.record(len(self._bytes))
        self.require(prelude.kind == kind, f"a file of kind {kind!r}", prelude.kind)
        whole = ALIGNMENT <= prelude.offset <= len(self._bytes)
        tail = self._bytes[prelude.offset :].tobytes() if whole else b""
        self.require(zlib.crc32(tail) == prelude.tail_crc32, "a whole file with an intact directory", "a wrong checksum")
        content = self._bytes[ALIGNMENT : prelude.offset]
        n_chunks = -(-len(content) // CHUNK_BYTES)
        self.require(len(tail) >= 4 * n_chunks, f"checksums of {n_chunks} chunks", f"{len(tail)} bytes")
        self.checked = Checked(
            content, read_only(np.frombuffer(tail[: 4 * n_chunks], np.uint32)), np.zeros(n_chunks + 1, np.uint8)
        )  # fmt: skip
        self._entries = self._read_directory(tail[4 * n_chunks :], prelude.offset)

    def array(self, name: str, dtype: str | Sequence[str], shape: Sequence[int | None]) -> npt.NDArray[Any]:
        """Return an array, verified.

        Parameters
        ----------
        name : str
        dtype : str or sequence of str
            What it must be, or one of them.
        shape : sequence of int or None
            What it must be; None: any length.

        Raises
        ------
        IndexFormatError
            There is none, it is of another dtype or shape, or damaged.
        """
        array = self.unverified(name, dtype, shape)
        self.verify(array)
        return array

    def unverified(self, name: str, dtype: str | Sequence[str], shape: Sequence[int | None]) -> npt.NDArray[Any]:
        """Return an array of which the caller verifies what is read; parameters and errors are those of `array`."""
        if name not in self._entries:
            advice = "another version of lexmax wrote this: build the index again"
            raise IndexFormatError(self.path, expected=f"an array {name!r}", found=sorted(self._entries), advice=advice)
        entry, dtypes = self._entries[name], [dtype] if isinstance(dtype, str) else dtype
        fits = len(entry.shape) == len(shape) and all(
            wanted is None or n == wanted for n, wanted in zip(entry.shape, shape, strict=True)
        )
        if entry.dtype not in dtypes or not fits:
            expected = f"{UNFIT}: {name!r} of {' or '.join(dtypes)} {tuple(shape)}"
            raise IndexFormatError(self.path, expected=expected, found=f"{entry.dtype} {entry.shape}", advice=ADVICE)
        array: npt.NDArray[Any] = self._bytes[entry.offset : entry.end].view(entry.dtype).reshape(entry.shape)
        return array

    def require(self, sound: bool | np.bool_, expected: str = UNFIT, found: object = "others") -> None:
        """Raise IndexFormatError unless what must hold between arrays does."""
        if not sound:
            raise IndexFormatError(self.path, expected=expected, found=found, advice=ADVICE)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    @property
    def n_bytes(self) -> int:
        """Size of the file in bytes."""
        return len(self._bytes)

    def release(self) -> None:
        """Let the system take the file's pages out of this process's memory; they are read again when they are needed."""
        release_pages(self._bytes)

    def advise_random(self) -> None:
        """Tell the system that the file will be read here and there."""
        advise_random(self._bytes)

    def origin(self, name: str) -> int:
        """Byte of the content that an array begins at."""
        return self._entries[name].offset - ALIGNMENT

    def sizes(self) -> dict[str, int]:
        """Bytes of each array."""
        return {name: entry.end - entry.offset for name, entry in self._entries.items()}

    def verify(self, part: npt.NDArray[Any] | None = None) -> None:
        """Verify a contiguous part of one of the arrays, where it was not read yet, or the whole content again.

        Raises
        ------
        IndexFormatError
            Damage in it.
        """
        if part is None:
            states = self.checked.states[:-1]
            states[states == SOUND] = UNREAD  # it may have been damaged since
            verify_span(self.checked, 0, len(self.checked.content))
            self.release()  # what was only checked need not stay in this process's memory
            self.raise_damage()
        elif part.nbytes:
            self.verify_memory(part.ctypes.data, part.nbytes)

    def verify_memory(self, address: int, n_bytes: int) -> None:
        """Do the same for bytes of the content by their address, as Arrow has them."""
        first = address - self.checked.content.ctypes.data
        end = first + n_bytes
        self.require(0 <= first <= end <= len(self.checked.content), "memory of this file", "other memory")
        verify_span(self.checked, first, end)
        self._raise_damage(slice(first // CHUNK_BYTES, -(-end // CHUNK_BYTES)))

    def raise_damage(self) -> None:
        """Raise IndexFormatError when damage was found anywhere, by a kernel or by anything else."""
        if self.checked.states[-1] == DAMAGED:
            self._raise_damage(slice(0, len(self.checked.checksums)))

    def _raise_damage(self, chunks: slice) -> None:
        content, checksums, states = self.checked
        for chunk in range(len(checksums))[chunks]:
            if states[chunk] == DAMAGED:
                first, end = ALIGNMENT + chunk * CHUNK_BYTES, ALIGNMENT + min((chunk + 1) * CHUNK_BYTES, len(content))
                found = zlib.crc32(content[first - ALIGNMENT : end - ALIGNMENT].data)
                held = ", ".join(
                    repr(name) for name, entry in self._entries.items() if entry.offset < end and first < entry.end
                )
                expected = f"CRC-32 {checksums[chunk]:08x} of bytes {first} to {end}, of array {held or 'none'}"
                raise IndexFormatError(self.path, expected=expected, found=f"{found:08x}", advice=ADVICE)

    def _read_directory(self, text: bytes, end: int) -> dict[str, _Entry]:
        try:
            directory = json.loads(text)
            entries = {name: _entry(*fields) for name, fields in directory.items()}
        except (AttributeError, TypeError, ValueError, RecursionError) as failure:
            raise IndexFormatError(self.path, expected="a directory of arrays", found=failure, advice=ADVICE) from failure
        spans = sorted((entry.offset, entry.end) for entry in entries.values())
        apart = all(before <= start for (_, before), (start, _) in pairwise([(0, ALIGNMENT), *spans, (end, end)]))
        self.require(apart, "arrays side by side in the file", "arrays that overlap or lie outside")
        return entries


def _entry(dtype: Any, shape: Any, offset: Any) -> _Entry:
    """Check one entry of a directory; raises TypeError or ValueError."""
    if dtype not in _DTYPES or type(offset) is not int or offset % ALIGNMENT:
        raise ValueError(f"an array of {dtype!r} at {offset!r}")
    if not all(type(n) is int and 0 <= n < 1 << 48 for n in shape):
        raise ValueError(f"an array of shape {shape!r}")
    return _Entry(dtype, tuple(shape), offset)


def _map(path: Path) -> Bytes:
    try:
        return map_file(path)
    except OSError as failure:
        raise unreadable(path, failure) from failure
