"""Array files: named, aligned, checksummed arrays that are written once and memory-mapped.

::

    0        prelude, 64 bytes: magic | format version | kind | directory offset, length, CRC-32 | prelude CRC-32
    64       arrays, each starting at a multiple of 64 bytes, little-endian
    offset   directory: JSON [{name, dtype, shape, offset, n_bytes, crc32, structural}] to the end of the file

The prelude is written last, so a file that was not finished has no valid prelude. *Structural* arrays (offsets, sizes,
sorted keys: what other reads are computed from) are verified whenever a file is opened; the bulk of a large file is
verified by ``lexmax check``, by compaction and by ``verify=True``.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from .arrays import Bytes
from .errors import IndexFormatError, IndexLockedError, StorageError
from .mapping import map_file, release_pages
from .refusals import reason_of

MAGIC = b"\x89LEXMAX\n"
FORMAT_VERSION = 1
ALIGNMENT = 64
DAMAGED = "the file is damaged: restore it from a copy or build the index again"
SMALL_FILE_BYTES = 64 << 20
"""Files up to this size are verified wholly at every open: it costs at most some tens of milliseconds."""

_PRELUDE = struct.Struct("<8sI24sQQII")
_DTYPES = {"bool", "uint8", "uint16", "uint32", "uint64", "int32", "int64", "float32"}


def sync_folder(folder: Path) -> None:
    """Make renames and new names inside ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content`` so that a reader sees the old or the new file whole, even after a crash.

    Raises
    ------
    OSError
        The old file stays.
    StorageError
        ``committed``: the new file is in place, but its name may not survive a power cut.
    """
    temporary = path.with_name(path.name + ".tmp")
    folder = os.open(path.parent, os.O_RDONLY)  # before the renaming, after which nothing but syncing may fail
    try:
        try:
            with temporary.open("wb") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        try:
            os.fsync(folder)
        except Exception as failure:
            unsure = f"may not survive a power cut: its folder could not be synced ({reason_of(failure)})"
            raise StorageError(f"{path} is published, but {unsure}", committed=True) from failure
    finally:
        os.close(folder)


_held: set[BinaryIO] = set()
"""Lock files of this process."""


def _forget_locks() -> None:
    for file in _held:
        file.close()  # the lock is the parent's: a child that lives on must not keep it
    _held.clear()


os.register_at_fork(after_in_child=_forget_locks)


@contextmanager
def write_lock(path: Path) -> Iterator[None]:
    """Hold the single-writer lock; the system drops it when the process ends, however it ends. Forked children hold nothing.

    Raises
    ------
    IndexLockedError
        Another process or another Collection of this process holds it.
    """
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise IndexLockedError(f"{path.parent}: another writer holds the lock; wait for it to end") from None
        if not path.exists() or not os.path.samestat(path.stat(), os.fstat(file.fileno())):
            raise IndexLockedError(f"{path.parent}: another writer has just removed the lock; try again")
        _held.add(file)
        try:
            yield
        finally:
            _held.discard(file)
            if not file.closed:  # as it is in a forked child
                fcntl.flock(file, fcntl.LOCK_UN)  # closing alone would not do where a forked child has the descriptor yet


class ArrayFileWriter:
    """Write an array file; a context manager that finishes and syncs the file when its block ends well."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path, self.kind = path, kind
        self._file: BinaryIO = path.open("wb")
        self._directory: list[dict[str, Any]] = []
        self._file.write(bytes(ALIGNMENT))

    def add(self, name: str, array: npt.NDArray[Any], *, structural: bool = False) -> None:
        """Append an array of any shape; its dtype must be one that the format knows."""
        array = np.ascontiguousarray(array)
        if array.dtype.name not in _DTYPES:
            raise TypeError(f"array files hold {sorted(_DTYPES)}, not {array.dtype}")
        with self.stream(name, dtype=array.dtype.name, shape=array.shape, structural=structural) as sink:
            sink.write(array.reshape(-1).view(np.uint8).data)

    @contextmanager
    def stream(
        self,
        name: str,
        *,
        dtype: str = "uint8",
        shape: tuple[int, ...] | None = None,
        structural: bool = False,
    ) -> Iterator[ChecksumSink]:
        """Append an array written piece by piece; a one-dimensional array of bytes unless ``shape`` is given."""
        offset = self._file.tell()
        sink = ChecksumSink(self._file)
        yield sink
        n_bytes = sink.n_bytes
        sink.write(bytes(-n_bytes % ALIGNMENT))  # the checksum covers the padding too
        self._directory.append(
            {
                "name": name,
                "dtype": dtype,
                "shape": list(shape) if shape is not None else [n_bytes],
                "offset": offset,
                "n_bytes": n_bytes,
                "crc32": sink.crc32,
                "structural": structural,
            }
        )

    def __enter__(self) -> ArrayFileWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None:
                self._finish()
        except OSError as failure:
            raise StorageError(f"{self.path}: {failure.strerror} at byte {self._file.tell()}") from failure
        finally:
            self._file.close()

    def _finish(self) -> None:
        directory = json.dumps(self._directory).encode()
        offset = self._file.tell()
        self._file.write(directory)
        prelude = _PRELUDE.pack(MAGIC, FORMAT_VERSION, self.kind.encode(), offset, len(directory), zlib.crc32(directory), 0)[
            :-4
        ]
        self._file.seek(0)
        self._file.write(prelude + struct.pack("<I", zlib.crc32(prelude)))
        self._file.flush()
        os.fsync(self._file.fileno())


class ChecksumSink:
    """The write half of a file that keeps count and CRC-32 of what passes; enough of a file for pyarrow."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.n_bytes, self.crc32, self.closed = 0, 0, False

    def write(self, piece: Any) -> int:
        """Write bytes or any buffer of bytes."""
        view = memoryview(piece)
        self._file.write(view)
        self.crc32 = zlib.crc32(view, self.crc32)
        self.n_bytes += view.nbytes
        return view.nbytes

    def flush(self) -> None:
        """Do nothing: the writer syncs once, at the end."""

    def close(self) -> None:
        """Mark the stream as ended; the file stays open."""
        self.closed = True


class ArrayFile:
    """A read-only, memory-mapped array file: ``file[name]`` is a read-only array over the map.

    Parameters
    ----------
    path : Path
    kind : str
        What the file must be; another kind is refused.
    verify : bool or None
        True: verify every array. False: the structural ones. None: every array of a small file, else the structural ones.

    Raises
    ------
    IndexFormatError
        Missing, foreign, truncated, newer or damaged file.
    """

    def __init__(self, path: Path, kind: str, *, verify: bool | None = None) -> None:
        self.path, self.kind = path, kind
        self._bytes = _map(path)
        self._entries = self._read_directory()
        whole = len(self._bytes) <= SMALL_FILE_BYTES if verify is None else verify
        self.verify(structural_only=not whole)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        entry = self._entry(name)
        array: npt.NDArray[Any] = self._raw(entry).view(entry["dtype"]).reshape(entry["shape"])
        return array

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    @property
    def n_bytes(self) -> int:
        """Size of the file in bytes."""
        return len(self._bytes)

    def sizes(self) -> dict[str, int]:
        """Bytes of each array."""
        return {name: int(entry["n_bytes"]) for name, entry in self._entries.items()}

    def verify(self, *, structural_only: bool = False) -> None:
        """Compare checksums; raises IndexFormatError at the first array that differs."""
        for name, entry in self._entries.items():
            if structural_only and not entry["structural"]:
                continue
            end = entry["offset"] + -(-entry["n_bytes"] // ALIGNMENT) * ALIGNMENT
            found = zlib.crc32(self._bytes[entry["offset"] : end].data)
            if found != entry["crc32"]:
                raise IndexFormatError(
                    self.path,
                    expected=f"CRC-32 {entry['crc32']:08x} of array {name!r} at byte {entry['offset']}",
                    found=f"{found:08x}",
                    advice=DAMAGED,
                )
        release_pages(self._bytes)  # what was only checked need not stay in this process's memory

    def _entry(self, name: str) -> dict[str, Any]:
        if name not in self._entries:
            advice = "another version of lexmax wrote this: build the index again"
            raise IndexFormatError(self.path, expected=f"an array {name!r}", found=sorted(self._entries), advice=advice)
        return self._entries[name]

    def _raw(self, entry: dict[str, Any]) -> npt.NDArray[np.uint8]:
        return self._bytes[entry["offset"] : entry["offset"] + entry["n_bytes"]]

    def _read_directory(self) -> dict[str, dict[str, Any]]:
        path, size = self.path, len(self._bytes)
        if size < ALIGNMENT or self._bytes[:8].tobytes() != MAGIC:
            found = self._bytes[:8].tobytes() if size else "an empty file"
            raise IndexFormatError(path, expected=f"magic {MAGIC!r}", found=found, advice="not a lexmax file")
        prelude = self._bytes[: _PRELUDE.size].tobytes()
        _, version, kind, offset, length, crc, prelude_crc = _PRELUDE.unpack(prelude)
        if zlib.crc32(prelude[:-4]) != prelude_crc or self._bytes[_PRELUDE.size : ALIGNMENT].any():
            raise IndexFormatError(path, expected="an intact prelude", found="a wrong checksum", advice=DAMAGED)
        if version > FORMAT_VERSION:
            raise IndexFormatError(path, expected=f"format version <= {FORMAT_VERSION}", found=version, advice="upgrade lexmax")
        if kind.rstrip(b"\0").decode() != self.kind:
            raise IndexFormatError(path, expected=f"a file of kind {self.kind!r}", found=kind.rstrip(b"\0"))
        if size != offset + length:
            raise IndexFormatError(path, expected=f"{offset + length} bytes", found=size, advice="truncated or extended")
        directory = self._bytes[offset:].tobytes()
        if zlib.crc32(directory) != crc:
            found = f"{zlib.crc32(directory):08x}"
            raise IndexFormatError(path, expected=f"directory CRC-32 {crc:08x}", found=found, advice=DAMAGED)
        return {entry["name"]: entry for entry in json.loads(directory)}


def _map(path: Path) -> Bytes:
    try:
        return map_file(path)
    except FileNotFoundError:
        raise IndexFormatError(path, expected="a file named by the manifest", found="nothing there") from None
    except OSError as failure:
        raise StorageError(f"{path}: cannot be read: {failure.strerror}") from failure
