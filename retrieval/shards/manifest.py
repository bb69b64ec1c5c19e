"""The manifest of a set of shards: which indexes, at which commits, are one collection.

``shards.json`` names the shards in the order of documents. A shard is an ordinary index in a folder beside it. Replacing the
file is the commit of the set: a reader that finds a shard at another commit than the one named reads the file again.
"""

from __future__ import annotations

import dataclasses
import json
import uuid
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...index import manifest as manifests
from ...index.errors import IndexFormatError, IndexNotFoundError
from ...index.refusals import storage_errors
from ...index.storage import replace_file
from ...index.typed import typed

FORMAT, VERSION = "lexmax-shards", 1
ADVICE = "restore it from a copy or build the shards again"


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """One shard at one commit.

    Attributes
    ----------
    folder : str
        Name of the index folder inside the set's.
    build_id, generation : str, int
        Which index, and which commit of it.
    n_docs : int
        Live documents.
    """

    folder: str
    build_id: str
    generation: int
    n_docs: int

    @classmethod
    def of(cls, folder: Path) -> ShardRecord:
        """Record the newest commit of an index."""
        manifest = manifests.read(folder)
        return cls(
            folder=folder.name, build_id=manifest.build_id, generation=manifest.generation, n_docs=manifest.n_docs
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ShardManifest:
    """One commit of a set.

    Attributes
    ----------
    shards : list of ShardRecord
        In the order of documents.
    search : str or None
        Default search expression.
    generation : int
        Number of the commit, from 1.
    set_id : str
        Random identity of the set.
    """

    shards: list[ShardRecord]
    search: str | None = None
    generation: int = 0
    set_id: str = field(default_factory=lambda: uuid.uuid4().hex)


def is_set(path: Path) -> bool:
    """Whether a folder holds a set of shards."""
    return (path / manifests.SET_FILE_NAME).is_file()


def is_index(path: Path) -> bool:
    """Whether a folder holds an index or a set of shards."""
    return is_set(path) or (path / manifests.FILE_NAME).is_file()


def read(path: Path) -> ShardManifest:
    """Read the newest commit of a set.

    Raises
    ------
    IndexNotFoundError, IndexFormatError, StorageError
        No set there, a damaged or foreign file, or the system refuses to read it.
    """
    file = path / manifests.SET_FILE_NAME
    with storage_errors(file):
        try:
            record = json.loads(file.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise IndexNotFoundError(path) from None
        except (ValueError, RecursionError) as failure:
            raise IndexFormatError(file, expected="JSON", found=failure, advice=ADVICE) from failure
    if not isinstance(record, dict) or record.get("format") != FORMAT or record.get("version") != VERSION:
        found = f"{record.get('format')} {record.get('version')}" if isinstance(record, dict) else "something else"
        raise IndexFormatError(file, expected=f"{FORMAT} {VERSION}", found=found, advice=ADVICE)
    crc = record.pop("crc32", None)
    if crc != _checksum(record):
        raise IndexFormatError(file, expected=f"checksum {crc}", found=_checksum(record), advice=ADVICE)
    try:
        manifest = typed(ShardManifest, record.get("body"), "body")
        names = [shard.folder for shard in manifest.shards]
        if not names or len(set(names)) < len(names) or any(not _is_name(name) for name in names):
            raise ValueError("body.shards names no folders, or some twice")
    except ValueError as failure:
        raise IndexFormatError(file, expected="a set of shards", found=failure, advice=ADVICE) from failure
    return manifest


def fields_of(path: Path) -> tuple[dict[str, manifests.FieldRecord], str | None]:
    """Fields and default search of an index or of a set, whose shards all have the same; opens no files."""
    if not is_set(path):
        manifest = manifests.read(path)
        return manifest.fields, manifest.search
    shard_set = read(path)
    return manifests.read(path / shard_set.shards[0].folder).fields, shard_set.search


def publish(path: Path, manifest: ShardManifest) -> ShardManifest:
    """Commit a set atomically and durably as the next generation; returns what was written. Raises StorageError."""
    manifest = dataclasses.replace(manifest, generation=manifest.generation + 1)
    record: dict[str, Any] = {"format": FORMAT, "version": VERSION, "body": dataclasses.asdict(manifest)}
    record["crc32"] = _checksum(record)
    with storage_errors(path):
        replace_file(path / manifests.SET_FILE_NAME, json.dumps(record, indent=1).encode())
    return manifest


def _is_name(name: str) -> bool:
    return bool(name) and name not in (".", "..") and "/" not in name and "\0" not in name


def _checksum(value: Any) -> int:
    return zlib.crc32(json.dumps({name: each for name, each in value.items() if name != "crc32"}, sort_keys=True).encode())
