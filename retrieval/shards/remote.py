"""Sets of shards on object stores: a commit is uploaded as a whole, and downloaded to every machine that serves it.

An address is one of `pyarrow.fs`: ``s3://bucket/prefix``, ``gs://bucket/prefix``, ``file:///folder``; an S3-compatible store is
``s3://KEY:SECRET@bucket/prefix?endpoint_override=host:port&scheme=http``. There stand::

    shards.json                              of the newest commit; written last
    shard-000-1f2e3d4c5b6a7988/...           files of a shard's index: named once, never changed
    shard-000-1f2e3d4c5b6a7988/commit-7.json its manifest at commit 7, and which files that has

Files that are there already are not sent again. Those of older commits stay, for machines that still read them.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from pyarrow import ArrowException
from pyarrow.fs import FileInfo, FileSystem, FileType

from ...index import manifest as manifests
from ...index.arguments import path_of
from ...index.collection import LOCK_NAME, Collection
from ...index.errors import DatasetError, IndexFormatError, IndexNotFoundError, LexmaxError, StorageError
from ...index.refusals import reason_of, storage_errors
from ...index.storage import replace_file, write_lock
from . import manifest as sets
from .snapshot import ShardedSnapshot

BLOCK = 8 << 20
"""Bytes that are copied at a time."""


def upload(path: Path | str, address: str) -> sets.ShardManifest:
    """Verify a set of shards and upload its newest commit; no writer may have it open meanwhile.

    Raises
    ------
    IndexNotFoundError, IndexFormatError, IndexLockedError
        No set there, a damaged one, or one that is being written.
    FileExistsError
        Another set is at the address.
    StorageError
        The store refuses, or cannot be reached.
    ValueError
        A malformed address.
    """
    folder = path_of(path)
    with storage_errors(folder), ExitStack() as locks:
        if not sets.is_set(folder):
            raise IndexNotFoundError(folder)
        locks.enter_context(write_lock(folder / LOCK_NAME))
        shard_set = ShardedSnapshot.open(folder, verify=True).shard_set
        for shard in shard_set.shards:
            locks.enter_context(Collection.open(folder / shard.folder))  # removes what an interrupted writer left
        with _store(address) as (store, root, told):
            known = _newest(store, root)
            if known is not None and known[0].set_id != shard_set.set_id:
                raise FileExistsError(f"{told} holds another set of shards: choose another prefix")
            for shard in shard_set.shards:
                _upload_shard(folder / shard.folder, store, f"{root}/{_name(shard)}", shard.generation)
            _write(store, f"{root}/{manifests.SET_FILE_NAME}", (folder / manifests.SET_FILE_NAME).read_bytes())
    return shard_set


def download(address: str, path: Path | str) -> sets.ShardManifest:
    """Download the newest commit to a folder, new or of an older commit of the same set; every file is verified.

    The folder changes once all is there and sound. Searches of the older commit go on meanwhile; `Retriever.reload` moves to
    the new one. What only older commits had is removed with the next compaction or upload.

    Raises
    ------
    DatasetError
        There is no set at the address.
    IndexFormatError
        There is a damaged one.
    FileExistsError
        The folder holds something else.
    IndexLockedError, StorageError
        Somebody writes to the folder, or the store or the disk refuses.
    ValueError
        A malformed address.
    """
    folder = path_of(path)
    if folder.exists() and not sets.is_set(folder) and any(each.name != LOCK_NAME for each in folder.iterdir()):
        raise FileExistsError(f"{folder} holds something else than a set of shards: choose another folder")
    with storage_errors(folder), _store(address) as (store, root, told):
        newest = _newest(store, root)
        if newest is None:
            raise DatasetError(f"{told}: there is no set of shards; `lexmax shards SET --upload ADDRESS` puts one there")
        shard_set, content = newest
        folder.mkdir(parents=True, exist_ok=True)
        with write_lock(folder / LOCK_NAME), tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as place:
            if sets.is_set(folder) and sets.read(folder).set_id != shard_set.set_id:
                raise FileExistsError(f"{folder} holds another set of shards: choose another folder")
            for shard in shard_set.shards:
                _download_shard(store, f"{root}/{_name(shard)}", shard, folder / shard.folder, Path(place) / shard.folder)
            (Path(place) / manifests.SET_FILE_NAME).write_bytes(content)
            ShardedSnapshot.open(place, verify=True)
            for shard in shard_set.shards:
                _take(Path(place) / shard.folder, folder / shard.folder)
            replace_file(folder / manifests.SET_FILE_NAME, content)
    return shard_set


def _name(shard: sets.ShardRecord) -> str:
    return f"{shard.folder}-{shard.build_id[:16]}"


def _upload_shard(folder: Path, store: Any, root: str, generation: int) -> None:
    names = [each.relative_to(folder).as_posix() for each in sorted(folder.rglob("*")) if each.is_file()]
    sizes = {name: (folder / name).stat().st_size for name in names if name not in (LOCK_NAME, manifests.FILE_NAME)}
    infos = store.get_file_info([f"{root}/{name}" for name in sizes])
    for (name, size), info in zip(sizes.items(), infos, strict=True):
        if not _is_whole(info, size):
            with (folder / name).open("rb") as source:
                _copy(source, store, f"{root}/{name}")
    commit = {"manifest": (folder / manifests.FILE_NAME).read_text(), "files": sizes}
    _write(store, f"{root}/commit-{generation}.json", json.dumps(commit).encode())


def _download_shard(store: Any, root: str, shard: sets.ShardRecord, old: Path, new: Path) -> None:
    """Make the folder of a shard: what the old one has is linked, the rest downloaded."""
    where = f"{root}/commit-{shard.generation}.json"
    try:
        commit = json.loads(_read(store, where))
        text, sizes = commit["manifest"], dict(commit["files"])
        if not isinstance(text, str) or not all(_is_inside(name) and type(size) is int for name, size in sizes.items()):
            raise ValueError("files outside of the folder, or without a size")
    except (ValueError, KeyError, TypeError) as failure:
        raise IndexFormatError(Path(where), expected="a commit of a shard", found=failure, advice="upload again") from failure
    for name, size in sizes.items():
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        if (old / name).is_file() and (old / name).stat().st_size == size:
            (new / name).hardlink_to(old / name)
            continue
        with store.open_input_stream(f"{root}/{name}") as source, (new / name).open("wb") as out:
            shutil.copyfileobj(source, out, BLOCK)
    new.mkdir(parents=True, exist_ok=True)
    (new / manifests.FILE_NAME).write_text(text)


def _take(new: Path, old: Path) -> None:
    """Move the files of a verified shard to their place, the manifest last."""
    for each in sorted(new.rglob("*")):
        target = old / each.relative_to(new)
        if each.is_file() and each.name != manifests.FILE_NAME and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            each.rename(target)
    replace_file(old / manifests.FILE_NAME, (new / manifests.FILE_NAME).read_bytes())


def _is_inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and not PurePosixPath(name).is_absolute() and ".." not in parts and "\\" not in name and "\0" not in name


def _is_whole(info: FileInfo, size: int) -> bool:
    return bool(info.type == FileType.File and info.size == size)


def _newest(store: Any, root: str) -> tuple[sets.ShardManifest, bytes] | None:
    """Read the newest commit at an address, parsed and as it stands there; None where there is none."""
    name = f"{root}/{manifests.SET_FILE_NAME}"
    if store.get_file_info(name).type != FileType.File:
        return None
    content = _read(store, name)
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / manifests.SET_FILE_NAME).write_bytes(content)
        return sets.read(Path(place)), content


def _read(store: Any, name: str) -> bytes:
    with store.open_input_stream(name) as source:
        return bytes(source.read())


def _write(store: Any, name: str, content: bytes) -> None:
    """Replace a small file: an object at once, a file of a folder by its name."""
    if store.type_name != "local":
        with store.open_output_stream(name) as out:
            out.write(content)
        return
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    replace_file(Path(name), content)


def _copy(source: Any, store: Any, name: str) -> None:
    if store.type_name == "local":
        Path(name).parent.mkdir(parents=True, exist_ok=True)
    with store.open_output_stream(name) as out:
        shutil.copyfileobj(source, out, BLOCK)


@contextmanager
def _store(address: str) -> Iterator[tuple[Any, str, str]]:
    """Open the file system of an address: it, the prefix there, and the address without keys, for messages."""
    try:
        store, root = FileSystem.from_uri(address)
    except (ValueError, ArrowException) as failure:
        reason = reason_of(failure).replace(address, "it")
        raise ValueError(f"no address of an object store, such as s3://bucket/prefix or file:///folder: {reason}") from None
    told = f"{store.type_name}:{root}"
    try:
        yield store, root.rstrip("/"), told
    except (LexmaxError, IndexNotFoundError, FileExistsError):
        raise
    except (OSError, ArrowException) as failure:
        raise StorageError(f"{told}: {reason_of(failure)}") from failure
