"""Hugging Face Hub: indexes and model folders, pushed and pulled whole.

An index goes to a dataset repository, a model to a model repository. What is pulled is held to the hub's checksums, file by
file, and then verified as what it claims to be, before it gets its name. Files of kinds that could run code are never taken: an
index consists of arrays and JSON, a model of safetensors, JSON and texts.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from ...index import manifest
from ...index.collection import LOCK_NAME, Collection
from ...index.errors import IndexFormatError, MissingDependencyError, RepresentationError, StorageError
from ...index.snapshot import Snapshot

try:
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
except ImportError as problem:
    raise MissingDependencyError("huggingface-hub", "hub", "lexmax push and pull") from problem

Kind = Literal["index", "model"]
REPOSITORIES = {"index": "dataset", "model": "model"}
SUFFIXES = {"index": (".lex", ".json", ".md"), "model": (".safetensors", ".json", ".txt", ".md", ".metadata", ".model")}
IGNORED = (".gitattributes", ".gitignore")


def push(folder: Path | str, repository: str, *, private: bool = False, message: str = "", endpoint: str | None = None) -> str:
    """Verify a folder and push it in one commit; the repository then holds it and nothing else. Returns the commit's id.

    Parameters
    ----------
    folder : Path or str
        An index, which no writer may have open meanwhile, or a model's folder.
    repository : str
        ``USER/NAME``, made if need be.
    endpoint : str or None
        Address of the hub; None: huggingface.co, or ``HF_ENDPOINT``.

    Raises
    ------
    IndexFormatError, IndexLockedError, RepresentationError
        The folder is damaged, being written, or neither an index nor a model of safetensors.
    StorageError
        The hub refuses, or cannot be reached.
    """
    source, api = Path(folder), HfApi(endpoint=endpoint)
    kind = _kind(source)
    with _writing_nothing(source, kind), _told(repository):
        _verify(source, kind)
        files = [path.relative_to(source).as_posix() for path in sorted(source.rglob("*")) if path.is_file()]
        files = [name for name in files if name != LOCK_NAME and not _hidden(name)]
        for name in files:
            _check_name(name, kind, repository)
        repo_type = REPOSITORIES[kind]
        api.create_repo(repository, repo_type=repo_type, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository, folder_path=source, repo_type=repo_type, allow_patterns=files, delete_patterns="*",
            commit_message=message or f"{kind} of lexmax",
        )  # fmt: skip
    return str(done.oid)


def pull(repository: str, out: Path | str, *, kind: Kind, revision: str | None = None, endpoint: str | None = None) -> str:
    """Pull an index or a model into a new folder; returns the id of the commit that it is.

    Parameters
    ----------
    repository : str
        ``USER/NAME``.
    out : Path or str
        The folder, made anew once everything is there and verified.
    revision : str or None
        Branch, tag or commit; None: the newest.

    Raises
    ------
    FileExistsError
        ``out`` is there already.
    IndexFormatError, RepresentationError
        A file differs from its checksum or is damaged, the repository holds files of other kinds, or it is no such thing.
    StorageError
        The hub refuses, or cannot be reached.
    """
    target, api, repo_type = Path(out), HfApi(endpoint=endpoint), REPOSITORIES[kind]
    if target.exists():
        raise FileExistsError(f"{target} is there already: choose another folder")
    target.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".lexmax-", dir=target.absolute().parent) as place, _told(repository):
        commit = str(api.repo_info(repository, repo_type=repo_type, revision=revision).sha)
        tree = api.list_repo_tree(repository, recursive=True, revision=commit, repo_type=repo_type)
        entries = [each for each in tree if hasattr(each, "blob_id") and each.path not in IGNORED]
        for each in entries:
            _check_name(each.path, kind, repository)
        unfinished = Path(place) / "folder"
        for each in entries:
            path = Path(
                api.hf_hub_download(repository, each.path, repo_type=repo_type, revision=commit, cache_dir=Path(place) / "c")
            )
            _check_sum(path, each, f"{repository}, {each.path}")
            final = unfinished / each.path
            final.parent.mkdir(parents=True, exist_ok=True)
            path.resolve().rename(final)
        if not entries or _kind(unfinished, repository) != kind:
            raise RepresentationError(f"{repository}: no {kind}")
        _verify(unfinished, kind)
        unfinished.rename(target)
    return commit


def _kind(folder: Path, name: str = "") -> Kind:
    if (folder / manifest.FILE_NAME).exists():
        return "index"
    if (folder / "config.json").exists() and any(folder.rglob("*.safetensors")):
        return "model"
    raise RepresentationError(f"{name or folder}: neither an index nor a model's folder with config.json and safetensors")


def _verify(folder: Path, kind: Kind) -> None:
    if kind == "index":
        Snapshot.open(folder, verify=True)
        return
    from safetensors import SafetensorError, safe_open

    for path in folder.rglob("*.safetensors"):
        try:
            with safe_open(path, "numpy"):
                pass
        except SafetensorError as failure:
            raise IndexFormatError(path, expected="safetensors", found=failure) from failure


def _check_name(name: str, kind: Kind, where: str) -> None:
    """Raise RepresentationError for a file that an index or a model does not have, or outside of its folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or path.suffix not in SUFFIXES[kind]:
        raise RepresentationError(f"{where}: {name} is no file of {kind} folders; there are {', '.join(SUFFIXES[kind])}")


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts)


def _check_sum(path: Path, entry: Any, where: str) -> None:
    """Compare a file with the hub's checksum: SHA-256 of large files, git's blob id of the others."""
    stored = entry.lfs is not None
    digest = hashlib.sha256() if stored else hashlib.sha1(usedforsecurity=False)
    if not stored:
        digest.update(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    expected = entry.lfs.sha256 if stored else entry.blob_id
    if digest.hexdigest() != expected:
        raise IndexFormatError(where, expected=f"checksum {expected}", found=digest.hexdigest(), advice="pull again")


@contextmanager
def _writing_nothing(folder: Path, kind: Kind) -> Iterator[None]:
    """Keep writers away from an index meanwhile, and remove what an interrupted one left."""
    if kind == "model":
        yield
        return
    with Collection.open(folder):
        yield


@contextmanager
def _told(repository: str) -> Iterator[None]:
    try:
        yield
    except (HfHubHTTPError, httpx.HTTPError) as failure:
        raise StorageError(f"{repository}: the hub refuses: {' '.join(str(failure).split())[:300]}") from failure
