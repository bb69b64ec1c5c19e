"""Changing a set of shards: deletes in the shards that have the documents, additions at the end; then one commit of the set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from ...index.arguments import path_of, texts_of
from ...index.collection import LOCK_NAME, Collection
from ...index.documents import Document
from ...index.errors import DuplicateDocumentError
from ...index.refusals import storage_errors
from ...index.snapshot import Snapshot
from ...index.storage import write_lock
from ..build import BuildReport, Notice, add_to_index, source_names
from ..corpora.objects import as_documents
from ..corpora.reading import BadRecords, Fields, read_corpus
from . import manifest as sets
from .building import bm25_statistics, commit, give_statistics

BATCH = 1024
"""Documents whose doc_ids are looked up together."""


@contextmanager
def _changing(path: Path) -> Iterator[list[Path]]:
    """Hold the set's lock; its shards are committed as a set at the end, also after an error: each is whole by itself."""
    with storage_errors(path), write_lock(path / LOCK_NAME):
        known = sets.read(path)
        folders = [path / shard.folder for shard in known.shards]
        try:
            yield folders
        finally:
            _weigh_again(folders, only_stale=True)
            commit(path, known, folders)


def _weigh_again(folders: Sequence[Path], *, only_stale: bool) -> None:
    """Weigh BM25 fields of all shards by the collection as it is now."""
    for arguments in bm25_statistics(folders, only_stale=only_stale):
        give_statistics(*arguments)


def compact_shards(path: Path | str, *, reorder: bool | None = None) -> sets.ShardManifest:
    """Compact every shard, and weigh BM25 fields by the live documents of all; see `Collection.compact`.

    Raises
    ------
    IndexNotFoundError, IndexFormatError, IndexLockedError, StorageError
    """
    folder = path_of(path)
    with _changing(folder) as folders:
        for each in folders:
            with Collection.open(each) as collection:
                collection.compact(reorder=reorder)
                collection.commit()
        _weigh_again(folders, only_stale=False)
    return sets.read(folder)


def take_shards(path: Path | str) -> sets.ShardManifest:
    """Commit a set with its shards as they are, after one was changed by itself; returns the new manifest.

    Raises
    ------
    IndexNotFoundError, IndexFormatError, IndexLockedError, StorageError
    """
    folder = path_of(path)
    with _changing(folder):
        pass
    return sets.read(folder)


def delete_from_shards(path: Path | str, doc_ids: Sequence[str]) -> list[str]:
    """Delete documents; returns the doc_ids that no shard has.

    Raises
    ------
    IndexNotFoundError, IndexFormatError, IndexLockedError, StorageError
    """
    missing = texts_of(doc_ids, "doc_ids")
    with _changing(path_of(path)) as folders:
        for folder in folders:
            if not missing:
                break
            with Collection.open(folder) as collection:
                n_wanted, missing = len(missing), collection.delete(missing)
                if len(missing) < n_wanted:
                    collection.commit()
    return missing


def add_to_shards(
    sources: Any = None, path: Path | str = "", *, documents: Iterable[Any] | None = None, replace: bool = False,
    fields: Fields | None = None, bad: BadRecords | None = None, notice: Notice | None = None, **options: Any,
) -> BuildReport:  # fmt: skip
    """Add documents to the last shard, all or none, so that they come last as in one index; parameters are `add_to_index`'s.

    Raises
    ------
    ValueError
        ``replace``: delete the documents first, which other shards may have.
    DuplicateDocumentError
        A shard has a document of a doc_id already.
    """
    folder = path_of(path)
    if replace:
        raise ValueError(f"{folder}: documents of a set of shards are not replaced: delete them, then add the new ones")
    if (sources is None) == (documents is None):
        raise TypeError("add_to_shards takes sources (files) or documents (Python objects), one of them")
    if documents is None:
        corpus = read_corpus(source_names(sources), fields=fields, bad=bad, notice=notice)
    else:
        corpus = as_documents(documents, fields, bad=bad, notice=notice)
    with _changing(folder) as folders:
        others = [Snapshot.open(each) for each in folders[:-1]]
        return add_to_index(None, folders[-1], documents=_unknown(corpus, others), **options)


def _unknown(documents: Iterator[Document], others: Sequence[Snapshot]) -> Iterator[Document]:
    """Pass documents on; raises DuplicateDocumentError for one that another shard has."""
    while batch := list(islice(documents, BATCH)):
        ids = [document.doc_id for document in batch]
        known = [
            doc_id for other in others for doc_id, number in zip(ids, other.find(ids).tolist(), strict=True) if number >= 0
        ]
        if known:
            raise DuplicateDocumentError(known, len(known))
        yield from batch
