"""A collection: what a user creates, writes to and compacts; its readers are snapshots.

Writing is transactional over all vector fields. Nothing that `add`, `delete`, `compact` or the filling of a field do can be
seen, and nothing survives a crash, before `commit` replaces the manifest; after it, everything survives. One writer at a time
holds the lock.

Whatever fails at whatever point, the index is as its last commit left it, or, when `StorageError.committed` says so, as the new
one does. The object itself then refuses: what it holds in memory may be half of a change.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from . import manifest as manifests
from .arguments import mapping_of, path_of, texts_of
from .document_buffer import DocumentBuffer, DocumentColumns
from .documents import Document
from .errors import DuplicateDocumentError, IndexNotFoundError, RepresentationError, StorageError
from .fde.field import source_of
from .filling import fill_field
from .manifest import FIELD_NAME, REPRESENTATIONS, EncoderRecord, FieldRecord, Manifest
from .metadata import extend_fields
from .multivector.writer import TokenWriter
from .query_bank import Bank, check_bank, write_bank
from .refusals import storage_errors
from .representations import Vectors
from .segment_store import SegmentStore
from .snapshot import Snapshot
from .sparse.writer import SparseWriter
from .storage import write_lock
from .writing import BufferLimits

__all__ = ["BufferLimits", "Collection", "NewField"]

LOCK_NAME = "write.lock"


@dataclass(frozen=True, kw_only=True)
class NewField:
    """A vector field to create.

    Attributes
    ----------
    encoder : EncoderRecord
    representation : {"sparse", "tokens", "sparse-tokens", "dense", "nets", "fde"}
    options : mapping
        ``{"bm25": {"k1", "b"}}`` where vectors hold term counts that the index weighs; the fields of
        `multivector.config.MultiVectorConfig` for token vectors, of `dense.config.DenseFieldConfig` for dense ones.
    vocabulary : sequence of str or None
        Strings of the encoder's fixed term numbers.
    scale, average_length : float or None
        Statistics of a larger collection that the index is a part of: impact = weight x scale, and BM25's average length. None:
        those of the index, which follow it.

    Raises
    ------
    ValueError
        An unknown representation, or a vocabulary or scale where there is none.
    """

    encoder: EncoderRecord
    representation: str = "sparse"
    options: Mapping[str, Any] = field(default_factory=dict)
    vocabulary: Sequence[str] | None = None
    scale: float | None = None
    average_length: float | None = None

    def __post_init__(self) -> None:
        if self.representation not in REPRESENTATIONS:
            raise ValueError(f"unknown representation {self.representation!r}; there are {', '.join(REPRESENTATIONS)}")
        if self.representation in ("tokens", "dense", "nets", "fde") and not (self.vocabulary is None and self.scale is None):
            raise ValueError("a field of token vectors or dense vectors has neither a vocabulary nor a scale")
        if self.average_length is not None and not self.options.get("bm25"):
            raise ValueError("an average length is BM25's")

    def record(self, *, complete: bool = True) -> FieldRecord:
        """Return what the manifest keeps of it."""
        statistics = {"scale": self.scale, "average_length": self.average_length}
        given = {name: value for name, value in statistics.items() if value is not None}
        state = {"given": given} if given else {}
        return FieldRecord(
            representation=self.representation, encoder=self.encoder, options=dict(self.options), state=state, complete=complete
        )


class Collection:
    """A writer; make one with `create` or `open` and use it as a context manager. Not for use by several threads.

    Every method that changes something raises StorageError when the system refuses something. After that, and after an error
    in the middle of a change, the collection takes no more: close it and open the index again.
    """

    def __init__(self, path: Path, manifest: Manifest, limits: BufferLimits) -> None:
        self.path, self._limits, self._lock, self._process = path, limits, ExitStack(), os.getpid()
        self._ended = ""
        self.build, self.search, self.corpus = manifest.build, manifest.search, manifest.corpus
        """Progress of an unfinished build, default search expression, what is known of the corpus; set before `commit`."""
        self._store = SegmentStore(path, manifest, limits)
        self._pending, self._pending_ids = DocumentBuffer(manifest.metadata), set[str]()

    @classmethod
    def create(
        cls, path: Path | str, fields: Mapping[str, NewField], *, search: str | None = None,
        corpus: dict[str, Any] | None = None, limits: BufferLimits | None = None, like: Path | str | None = None,
    ) -> Collection:  # fmt: skip
        """Create an empty index; it exists once `commit` is called. What an earlier try left there is removed.

        Parameters
        ----------
        path : Path or str
            A folder that does not exist or holds no index.
        fields : mapping of str to NewField
            The vector fields, at least one, by names of letters, digits, ``_`` and ``-``.
        search : str or None
            Default search expression.
        corpus : dict or None
            Which keys of a record hold what; kept for later additions.
        limits : BufferLimits or None
        like : Path, str or None
            An index with the same fields, whose trained state (scales, codecs, quantisers, cells) these share and never train
            again, as the shards of one collection must.

        Raises
        ------
        FileExistsError
            There is an index already.
        RepresentationError
            ``like`` lacks a field, or has another one of its name.
        ValueError
            No field, or a name that is not allowed.
        IndexLockedError
            Another writer is at it.
        StorageError
        """
        fields = mapping_of(fields, "fields", "{NAME: NewField(...)}")
        if not fields:
            raise ValueError("an index needs at least one vector field")
        for name in fields:
            check_field_name(name)
            _check_new_field(fields[name])
        folder = path_of(path)
        if os.path.lexists(folder) and not folder.is_dir():
            raise FileExistsError(f"{folder} is no folder: an index is a folder of its own, choose another name")
        with ExitStack() as lock:
            with storage_errors(folder):
                lock.callback(_remove_folders, [each for each in (folder, *folder.parents) if not each.exists()])
                folder.mkdir(parents=True, exist_ok=True)
                lock.enter_context(write_lock(folder / LOCK_NAME))
                lock.callback(_remove_lock, folder)
            if (folder / manifests.FILE_NAME).exists():
                raise FileExistsError(f"{folder} holds an index already: remove it, add to it, or choose another folder")
            manifest = Manifest(fields={name: each.record() for name, each in fields.items()}, search=search, corpus=corpus)
            collection = cls(folder, manifest, limits or BufferLimits())
            for name, each in fields.items():
                collection._set_vocabulary(name, each)
            if like is not None:
                collection._share(path_of(like, "like"))
            collection._hold(lock)
        return collection

    @classmethod
    def open(cls, path: Path | str, *, limits: BufferLimits | None = None) -> Collection:
        """Open an index for writing, and remove what an interrupted writer left behind.

        Raises
        ------
        IndexNotFoundError, IndexFormatError, IndexLockedError, StorageError
        """
        folder = path_of(path)
        if not folder.is_dir():
            raise IndexNotFoundError(folder)
        with storage_errors(folder), ExitStack() as lock:
            manifests.read(folder)  # fails before a lock file is made in a folder that is no index
            lock.enter_context(write_lock(folder / LOCK_NAME))
            collection = cls(folder, manifests.read(folder), limits or BufferLimits())
            collection._hold(lock)
        return collection

    @property
    def manifest(self) -> Manifest:
        """The last commit."""
        return self._store.committed

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the complete fields, which `add` takes vectors for."""
        return self._store.complete

    def snapshot(self) -> Snapshot:
        """Open the last commit for reading."""
        return Snapshot.open(self.path)

    def add(self, documents: Sequence[Document], vectors: Mapping[str, Vectors], *, replace: bool = False) -> int:
        """Add documents with their vectors, row for row; all of them or, when an error is raised, none.

        Parameters
        ----------
        documents : sequence of Document
        vectors : mapping of str to SparseVectors, MultiVectors or SparseMultiVectors
            For each complete field as many rows as there are documents; a field of encodings takes its token field's.
        replace : bool
            Delete live documents of the same doc_id first.

        Returns
        -------
        int
            Documents that were replaced.

        Raises
        ------
        DuplicateDocumentError
            A doc_id is live already (without ``replace``), or occurs twice in ``documents``.
        DatasetError
            An empty or overlong doc_id, or metadata of another type than before.
        RepresentationError
            Vectors of a field are missing or of another kind than the field's, or their number differs.
        """
        vectors = self._with_sources(vectors)
        if set(vectors) != set(self.fields):
            raise RepresentationError(f"{self.path}: vectors for {', '.join(vectors)}; the fields are {', '.join(self.fields)}")
        for name, rows in vectors.items():
            if len(documents) != len(rows):
                raise RepresentationError(f"{len(documents)} documents with {len(rows)} vectors for the field {name}")
            self._store.writers[name].check(rows)
        columns = DocumentColumns.of(documents)
        columns.check()
        doc_ids, metadata = columns.doc_ids, dict(self._store.metadata)
        for doc_id, values in zip(doc_ids, columns.metadata or (), strict=False):
            if values:
                extend_fields(metadata, doc_id, values)
        live = self._taken(doc_ids, replace=replace)
        with self._changing():
            if live:
                self.delete(live)
            self._store.metadata = metadata
            self._pending.extend(columns, metadata)
            for name, rows in vectors.items():
                self._store.writers[name].extend(rows)
            self._pending_ids.update(doc_ids)
            if self._is_full():
                self._flush()
        return len(live)

    def delete(self, doc_ids: Sequence[str]) -> list[str]:
        """Delete documents; returns the doc_ids that are not in the index. Raises nothing for those."""
        doc_ids = texts_of(doc_ids, "doc_ids")
        with self._changing():
            if not self._pending_ids.isdisjoint(doc_ids):
                self._flush()
            wanted = list(dict.fromkeys(doc_ids))
            missing = np.ones(len(wanted), np.bool_)
            for each in self._store.segments:
                segment = each.documents
                found = segment.find(wanted)
                hits = found[found >= 0]
                missing &= found < 0
                if len(hits):
                    live = np.ones(segment.n_docs, np.bool_) if segment.live is None else segment.live.copy()
                    live[hits] = False
                    segment.live, each.changed = live, True
        return [doc_id for doc_id, absent in zip(wanted, missing.tolist(), strict=True) if absent]

    def compact(self, *, reorder: bool | None = None) -> None:
        """Merge segments and drop deleted documents, in all fields; visible after `commit`.

        Parameters
        ----------
        reorder : bool or None
            True: put documents in the order of recursive graph bisection over a sparse field, so that block-max prunes better.
            False: keep the order. None: True for learned weights from REORDER_DOCS documents on. Reordered segments stay as
            they are when nothing else needs doing.

        Raises
        ------
        IndexFormatError
            A segment is damaged; the index stays as it is.
        ValueError
            A field is being filled, or there is no sparse field to reorder by.
        """
        store = self._store
        unfinished = [name for name in store.records if name not in store.complete]
        if unfinished:
            raise ValueError(f"{self.path}: the field {unfinished[0]} is being filled: finish or drop it before compacting")
        with self._changing():
            self._flush()
        leader = store.leader(reorder)
        with self._changing():
            store.compact(leader)

    def commit(self) -> Manifest:
        """Make everything since the last commit durable and visible at once, small segments merged.

        Raises
        ------
        StorageError
            The system refused something; ``committed`` says whether the commit is published all the same.
        IndexFormatError
            A segment that is merged is damaged; the index stays as it is.
        """
        with self._changing():
            self._flush()
            if self.build is None:
                self._store.merge_small()
            return self._store.save(replace(self._store.committed, build=self.build, search=self.search, corpus=self.corpus))

    def add_field(self, name: str, new: NewField) -> None:
        """Add a vector field, which is searchable once `fill` has ended; an empty index has it at once.

        Raises
        ------
        ValueError
            There is a field of this name, or the name is not allowed.
        """
        check_field_name(name)
        _check_new_field(new)
        if name in self._store.records:
            raise ValueError(f"{self.path}: there is a field {name!r} already: drop it first, or choose another name")
        with self._changing():
            self._flush()
        record = new.record(complete=not self._store.segments)
        writer = self._store.new_writer(name, record)
        with self._changing():
            self._store.writers[name], self._store.records[name] = writer, record
            self._set_vocabulary(name, new)

    def fill(
        self, name: str, encode: Callable[[list[str]], Vectors] | None = None, *, progress: Callable[[int], None] | None = None,
        commit_every_s: float = 120.0,
    ) -> int:  # fmt: skip
        """Fill a field that `add_field` added from the stored texts, committing as it goes; run again, it continues.

        Parameters
        ----------
        name : str
        encode : callable or None
            Texts (`Document.content`) -> vectors, row for row. None for a field of encodings: its token field gives them.
        progress : callable or None
            Called with the number of documents that the field has.
        commit_every_s : float
            Seconds between commits.

        Returns
        -------
        int
            Documents that were encoded.

        Raises
        ------
        ValueError
            There is no such field.
        RepresentationError
            Vectors of another kind than the field's, or of another number than the texts; what was committed stays.
        """
        if name not in self._store.records:
            raise ValueError(f"{self.path}: there is no field {name!r}; there are {', '.join(self._store.records)}")
        return 0 if self._store.records[name].complete else fill_field(self, name, encode, progress, commit_every_s)

    def drop_field(self, name: str) -> None:
        """Drop a vector field; its files go with the commit.

        Raises
        ------
        ValueError
            There is no such field, or it is the only one.
        """
        if name not in self._store.records:
            raise ValueError(f"{self.path}: there is no field {name!r}; there are {', '.join(self._store.records)}")
        if len(self._store.records) == 1:
            raise ValueError(f"{self.path}: {name!r} is the only field: an index needs one")
        with self._changing():
            self._flush()
            del self._store.records[name], self._store.writers[name]
            self._store.audits.pop(name, None)
            self._store.banks.pop(name, None)
            for each in self._store.segments:
                each.parts.pop(name, None)
                parts = {other: part for other, part in each.record.parts.items() if other != name}
                each.documents.record = replace(each.record, parts=parts)

    def set_calibration(self, name: str, record: dict[str, Any] | None) -> None:
        """Store what was measured of search options on a token field; visible after `commit`.

        Raises
        ------
        RepresentationError
            The field holds no token vectors.
        """
        writer = self._store.writers.get(name)
        if not isinstance(writer, TokenWriter):
            raise RepresentationError(f"{self.path}: there is no field {name!r} of token vectors")
        writer.calibration = record

    def set_audit(self, name: str, record: dict[str, Any] | None) -> None:
        """Store how much of the exact answer a field's search was found to give; visible after `commit`.

        Raises
        ------
        ValueError
            There is no such field.
        """
        if name not in self._store.records:
            raise ValueError(f"{self.path}: there is no field {name!r}; there are {', '.join(self._store.records)}")
        self._store.audits[name] = record

    def set_query_bank(self, name: str, bank: Bank | None) -> None:
        """Keep encoded queries with a dense field, or one of encodings, or drop those it has; visible after `commit`.

        Parameters
        ----------
        name : str
        bank : DenseVectors, MultiVectors or None
            What the field's encoder makes of 1 to 20,000 queries.

        Raises
        ------
        ValueError
            There is no such field, no queries, or too many.
        RepresentationError
            The field keeps no bank, or the vectors are of another kind or dim.
        """
        if name not in self._store.records:
            raise ValueError(f"{self.path}: there is no field {name!r}; there are {', '.join(self._store.records)}")
        checked = None if bank is None else check_bank(f"{self.path}, field {name}", self._store.records[name], bank)
        with self._changing():
            file = None
            if checked is not None:
                file = self._store.next_name("bank") + ".lex"
                write_bank(self.path / file, checked)
            self._store.banks[name] = file

    def give_statistics(self, name: str, *, scale: float | None = None, average_length: float | None = None) -> None:
        """Weigh a sparse field's documents with statistics of a larger collection, and compact; see `NewField`.

        Raises
        ------
        RepresentationError
            There is no such sparse field, or it is not weighed by BM25 and an average length is given.
        """
        writer = self._store.writers.get(name)
        if not isinstance(writer, SparseWriter) or (average_length is not None and not writer.is_bm25):
            raise RepresentationError(f"{self.path}: there is no field {name!r} that has such statistics")
        statistics = {"scale": scale, "average_length": average_length}
        writer.give({each: value for each, value in statistics.items() if value is not None})
        self.compact(reorder=False)

    def close(self) -> None:
        """Forget what was not committed, remove its files, and release the lock. Raises nothing."""
        self._ended = "is closed"
        if os.getpid() == self._process:  # a forked child holds nothing
            self._lock.close()

    def __enter__(self) -> Collection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Change what is in memory and on the disk; an error inside leaves halves, after which this object refuses.

        Raises
        ------
        StorageError
            The system refused something, or the collection is closed, failed earlier, or belongs to another process.
        """
        ended = self._ended or ("belongs to the process that opened it" if os.getpid() != self._process else "")
        if ended:
            raise StorageError(f"{self.path}: this Collection {ended}: open the index again; what was committed is safe")
        try:
            with storage_errors(self.path):
                yield
        except BaseException:
            self._ended = "failed in the middle of a change"
            raise

    def _hold(self, lock: ExitStack) -> None:
        """Take over what is released at the end; what no commit names goes now and then."""
        self._store.remove_unused()
        lock.callback(self._store.remove_unused)
        self._lock = lock.pop_all()

    def _with_sources(self, vectors: Mapping[str, Vectors]) -> dict[str, Vectors]:
        """Give fields that are made of another one its vectors, where they have none of their own."""
        sources = {name: source_of(self._store.records, name) for name in self.fields}
        return {**{name: vectors[of] for name, of in sources.items() if of is not None and of in vectors}, **vectors}

    def _set_vocabulary(self, name: str, new: NewField) -> None:
        writer = self._store.writers[name]
        if new.vocabulary is not None and isinstance(writer, SparseWriter):
            writer.set_vocabulary(new.vocabulary)

    def _share(self, source: Path) -> None:
        """Take the trained state of another index."""
        known = manifests.read(source).fields
        for name, record in self._store.records.items():
            other = known.get(name)
            same = other is not None and (other.representation, other.options) == (record.representation, record.options)
            if other is None or not same or other.encoder.fingerprint != record.encoder.fingerprint:
                raise RepresentationError(f"{source}: has no field {name!r} of the same encoder and options")
            self._store.writers[name].share(source, other)

    def _is_full(self) -> bool:
        full = any(self._store.writers[name].fullness >= 1 for name in self.fields)
        return full or self._pending.n_bytes >= self._limits.n_text_bytes

    def _flush(self) -> None:
        """Write the pending documents as a segment that no manifest names yet."""
        if len(self._pending):
            self._store.flush(self._pending, more_to_come=self._is_full())
            self._pending, self._pending_ids = DocumentBuffer(self._store.metadata), set()

    def _taken(self, doc_ids: Sequence[str], *, replace: bool) -> list[str]:
        """Which doc_ids are live, to be replaced; raises DuplicateDocumentError where they may not, or occur twice."""
        if len(set(doc_ids)) < len(doc_ids):
            counts: dict[str, int] = {}
            for doc_id in doc_ids:
                counts[doc_id] = counts.get(doc_id, 0) + 1
            twice = [doc_id for doc_id, n in counts.items() if n > 1]
            raise DuplicateDocumentError(twice, len(twice))
        live = self._live_ids(doc_ids)
        if live and not replace:
            raise DuplicateDocumentError(live, len(live))
        return live

    def _live_ids(self, doc_ids: Sequence[str]) -> list[str]:
        live = self._pending_ids.intersection(doc_ids)
        for each in self._store.segments:
            found = each.documents.find(doc_ids)
            live.update(doc_ids[i] for i in np.flatnonzero(found >= 0).tolist())
        return [doc_id for doc_id in doc_ids if doc_id in live]


def check_field_name(name: str) -> None:
    """Raise ValueError for a name that search expressions could not name."""
    if not FIELD_NAME.fullmatch(str(name)):
        raise ValueError(f"a field is called by 1 to 64 letters, digits, _ and -, a letter first, not {name!r}")


def _check_new_field(new: NewField) -> None:
    """Raise TypeError for what is no `NewField`."""
    if not isinstance(new, NewField):
        raise TypeError(f"a field is created from a NewField, not {type(new).__name__}")


def _remove_lock(folder: Path) -> None:
    """Remove the lock of an index that was never committed."""
    with suppress(OSError, MemoryError):
        if not (folder / manifests.FILE_NAME).exists():
            (folder / LOCK_NAME).unlink(missing_ok=True)


def _remove_folders(made: list[Path]) -> None:
    """Remove folders, innermost first, that were made for an index and hold nothing."""
    with suppress(OSError, MemoryError):
        for folder in made:
            folder.rmdir()
