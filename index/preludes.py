"""The first 64 bytes of an array file: what it is, which one it is, and what its tail must be."""

from __future__ import annotations

import os
import struct
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .errors import IndexFormatError, StorageError

MAGIC = b"\x89LEXMAX\n"
FORMAT_VERSION = 2
PRELUDE_BYTES = 64
ADVICE = "the file is damaged: restore it from a copy or build the index again"

_FIELDS = struct.Struct("<8sI16s16sQII4x")
"""Magic | format version | kind | random id | offset and CRC-32 of the tail | CRC-32 of all before."""
_CRC_AT = _FIELDS.size - 8


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """What tells a file from every other: the manifest keeps it, and a file that was exchanged is refused.

    Attributes
    ----------
    id : str
        Random; of the prelude, in hexadecimal digits.
    n_bytes : int
        Of the file.
    crc32 : int
        Of the prelude, which holds that of the tail, which holds those of the content.
    """

    id: str
    n_bytes: int
    crc32: int


class Prelude(NamedTuple):
    """What a prelude says; ``offset`` is where the tail begins, ``crc32`` the prelude's own."""

    kind: str
    id: str
    offset: int
    tail_crc32: int
    crc32: int

    def record(self, n_bytes: int) -> FileRecord:
        """Return what identifies a file of so many bytes."""
        return FileRecord(id=self.id, n_bytes=n_bytes, crc32=self.crc32)


def new_prelude(kind: str, offset: int, tail: bytes) -> bytes:
    """Make the prelude of a file whose tail, which begins at ``offset``, is written."""
    prelude = bytearray(_FIELDS.pack(MAGIC, FORMAT_VERSION, kind.encode(), uuid.uuid4().bytes, offset, zlib.crc32(tail), 0))
    struct.pack_into("<I", prelude, _CRC_AT, zlib.crc32(prelude[:_CRC_AT]))
    return bytes(prelude)


def parse_prelude(path: Path, data: bytes) -> Prelude:
    """Read a prelude; raises IndexFormatError when it is foreign, older, newer or damaged."""
    if len(data) < PRELUDE_BYTES or not data.startswith(MAGIC):
        found = data[: len(MAGIC)] or "an empty file"
        raise IndexFormatError(path, expected=f"magic {MAGIC!r}", found=found, advice="not a lexmax file")
    _, version, kind, identity, offset, tail_crc, crc = _FIELDS.unpack(data)
    sound = zlib.crc32(data[:_CRC_AT]) == crc and not any(data[_CRC_AT + 4 :])
    if version != FORMAT_VERSION and (sound or version < FORMAT_VERSION):
        advice = "upgrade lexmax" if version > FORMAT_VERSION else "an older lexmax wrote it: build the index again"
        raise IndexFormatError(path, expected=f"format version {FORMAT_VERSION}", found=version, advice=advice)
    if not sound:
        raise IndexFormatError(path, expected="an intact prelude", found="a wrong checksum", advice=ADVICE)
    return Prelude(kind.rstrip(b"\0").decode(errors="replace"), identity.hex(), offset, tail_crc, crc)


def read_record(path: Path) -> FileRecord:
    """Read what identifies an array file.

    Raises
    ------
    IndexFormatError
        Missing, foreign, older, newer or damaged.
    StorageError
        The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return parse_prelude(path, file.read(PRELUDE_BYTES)).record(os.fstat(file.fileno()).st_size)
    except OSError as failure:
        raise unreadable(path, failure) from failure


def unreadable(path: Path, failure: OSError) -> IndexFormatError | StorageError:
    """Return the error of a file that could not be opened or read."""
    if isinstance(failure, FileNotFoundError | NotADirectoryError):
        return IndexFormatError(path, expected="a file named by the manifest", found="nothing there")
    return StorageError(f"{path}: cannot be read: {failure.strerror}")
