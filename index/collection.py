"""A collection: what a user creates, writes to and compacts; its readers are snapshots.

Writing is transactional. Nothing that `add`, `delete` or `compact` do can be seen, and nothing survives a crash, before
`commit` replaces the manifest; after it, everything survives. One writer at a time holds the lock.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType

import numpy as np

from . import manifest as manifests
from .contents import BufferLimits, Content, SparseContent, Vectors, content_of
from .documents import Document
from .errors import DatasetError, DuplicateDocumentError, IndexNotFoundError, RepresentationError
from .manifest import EncoderRecord, Manifest, SegmentRecord
from .metadata import extend_fields
from .multivector.tokens import MultiVectorConfig
from .segments import Mask, Segment, write_deletes
from .snapshot import Snapshot, open_codec, open_segments
from .sparse.bm25 import SCALE, Bm25
from .storage import write_lock

__all__ = ["BufferLimits", "Collection"]

MAX_DOCUMENT_ID_BYTES = 1024
LOCK_NAME = "write.lock"
OWN_NAME = re.compile(r"(segment-\d{6,}-\d{3,}|(deletes|vocabulary|codec)-\d{6,}-\d{3,}\.lex|manifest\.json\.tmp)")


class Collection:
    """A writer; make one with `create` or `open` and use it as a context manager. Not for use by several threads."""

    def __init__(self, path: Path, manifest: Manifest, lock: ExitStack, limits: BufferLimits) -> None:
        self.path = path
        self._committed, self._lock, self._limits = manifest, lock, limits
        self.build = manifest.build
        """Progress of an unfinished build; set it before `commit`."""
        self.calibration = manifest.calibration
        """What was measured of an index of token vectors; set it before `commit`."""
        self._segments: list[Segment]
        self._content: Content
        self._fields: dict[str, str]
        self._changed: set[int]
        self._pending_ids: set[str]
        self._reset()

    @classmethod
    def create(
        cls, path: Path | str, *, encoder: EncoderRecord, bm25: Bm25 | None = None,
        multivector: MultiVectorConfig | None = None, vocabulary: Sequence[str] | None = None,
        scale: float | None = None, limits: BufferLimits | None = None, sparse_tokens: bool = False,
    ) -> Collection:  # fmt: skip
        """Create an empty index; it exists once `commit` is called. What an earlier try left there is removed.

        Parameters
        ----------
        path : Path or str
            A folder that does not exist or holds no index.
        encoder : EncoderRecord
        bm25 : Bm25 or None
            Given: vectors hold term counts, which this index weighs. None: vectors hold final weights.
        multivector : MultiVectorConfig or None
            Given: the index holds token vectors, kept like this. None: sparse vectors.
        vocabulary : sequence of str or None
            Strings of the encoder's fixed term numbers.
        scale : float or None
            Impact = weight x scale, without ``bm25``; None: fitted to the first segment.
        limits : BufferLimits or None
        sparse_tokens : bool
            The index holds sparse token vectors, and their maxima as its sparse vectors (SLIM).

        Raises
        ------
        FileExistsError
            There is an index already.
        ValueError
            ``sparse_tokens`` with ``bm25`` or ``multivector``.
        IndexLockedError
            Another writer is at it.
        """
        if sparse_tokens and (bm25 or multivector):
            raise ValueError("an index of sparse token vectors takes neither bm25 nor multivector")
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        lock = ExitStack()
        lock.enter_context(write_lock(folder / LOCK_NAME))
        if (folder / manifests.FILE_NAME).exists():
            lock.close()
            raise FileExistsError(f"{folder} holds an index already: remove it, add to it, or choose another folder")
        manifest = Manifest(
            encoder=encoder,
            bm25=asdict(bm25) if bm25 else None,
            multivector=asdict(multivector) if multivector else None,
            sparse_tokens=sparse_tokens,
            scale=SCALE if bm25 else scale,
        )
        collection = cls(folder, manifest, lock, limits or BufferLimits())
        collection._remove_unused()
        if isinstance(collection._content, SparseContent):
            collection._content.vocabulary.new = list(vocabulary or [])
        return collection

    @classmethod
    def open(cls, path: Path | str, *, limits: BufferLimits | None = None) -> Collection:
        """Open an index for writing, and remove what an interrupted writer left behind.

        Raises
        ------
        IndexNotFoundError, IndexFormatError, IndexLockedError
        """
        folder = Path(path)
        if not folder.is_dir():
            raise IndexNotFoundError(folder)
        manifests.read(folder)  # fails before a lock file is made in a folder that is no index
        lock = ExitStack()
        lock.enter_context(write_lock(folder / LOCK_NAME))
        try:
            collection = cls(folder, manifests.read(folder), lock, limits or BufferLimits())
            collection._remove_unused()
        except BaseException:
            lock.close()
            raise
        return collection

    @property
    def manifest(self) -> Manifest:
        """The last commit."""
        return self._committed

    def snapshot(self) -> Snapshot:
        """Open the last commit for reading."""
        return Snapshot.open(self.path)

    def add(self, documents: Sequence[Document], vectors: Vectors, *, replace: bool = False) -> int:
        """Add documents with their vectors, row for row; all of them or, when an error is raised, none.

        Parameters
        ----------
        documents : sequence of Document
        vectors : SparseVectors, MultiVectors or SparseMultiVectors, as many rows
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
            The number of rows differs, or the vectors are of another kind than the index's.
        """
        if len(documents) != len(vectors):
            raise RepresentationError(f"{len(documents)} documents with {len(vectors)} vectors")
        self._content.check(vectors)
        doc_ids = [document.doc_id for document in documents]
        _check_ids(doc_ids)
        fields = dict(self._fields)
        for document in documents:
            if document.metadata:
                extend_fields(fields, document.doc_id, document.metadata)
        n_replaced = self._make_room(doc_ids, replace=replace)
        self._fields = fields
        self._content.extend(documents, vectors, fields)
        self._pending_ids.update(doc_ids)
        if self._content.is_full or self._content.pending.documents.n_bytes >= self._limits.n_text_bytes:
            self._flush()
        return n_replaced

    def delete(self, doc_ids: Sequence[str]) -> list[str]:
        """Delete documents; returns the doc_ids that are not in the index. Raises nothing for those."""
        if not self._pending_ids.isdisjoint(doc_ids):
            self._flush()
        wanted = list(dict.fromkeys(doc_ids))
        missing = np.ones(len(wanted), np.bool_)
        for i, segment in enumerate(self._segments):
            found = segment.find(wanted)
            hits = found[found >= 0]
            missing &= found < 0
            if len(hits):
                live = np.ones(segment.record.n_docs, np.bool_) if segment.live is None else segment.live.copy()
                live[hits] = False
                segment.live = live
                self._changed.add(i)
        return [doc_id for doc_id, absent in zip(wanted, missing.tolist(), strict=True) if absent]

    def compact(self, *, reorder: bool | None = None) -> None:
        """Merge segments and drop deleted documents; visible after `commit`.

        Parameters
        ----------
        reorder : bool or None
            True: put documents in the order of recursive graph bisection, so that block-max prunes better. False: keep the
            order. None: True for model weights from REORDER_DOCS documents on (BM25 is answered by the scan, which gains
            nothing). Reordered segments stay as they are when nothing else needs doing.

        Raises
        ------
        IndexFormatError
            A segment is damaged; the index stays as it is.
        """
        self._flush()
        self._segments = self._content.compact(self._segments, self._fields, self._next_name, reorder=reorder)
        self._changed = set()

    def commit(self) -> Manifest:
        """Make everything since the last commit, and ``build``, durable and visible at once."""
        self._flush()
        records = [self._record(i, segment) for i, segment in enumerate(self._segments)]
        manifest = replace(
            self._committed,
            generation=self._committed.generation + 1,
            fields=self._fields,
            segments=records,
            build=self.build,
            calibration=self.calibration,
            **self._content.save(self._next_name),
        )
        manifests.publish(self.path, manifest)
        self._committed = manifest
        self._remove_unused()
        self._reset()
        return manifest

    def close(self) -> None:
        """Forget what was not committed and release the lock."""
        self._lock.close()

    def __enter__(self) -> Collection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _reset(self) -> None:
        """Start from the last commit."""
        manifest = self._committed
        codec = open_codec(self.path, manifest)
        self._segments = open_segments(self.path, manifest, codec)
        self._fields = dict(manifest.fields)
        self._changed, self._n_names = set(), 0
        self._content, self._pending_ids = content_of(self.path, manifest, self._limits, codec), set()

    def _make_room(self, doc_ids: Sequence[str], *, replace: bool) -> int:
        if len(set(doc_ids)) < len(doc_ids):
            twice = [doc_id for doc_id in dict.fromkeys(doc_ids) if doc_ids.count(doc_id) > 1]
            raise DuplicateDocumentError(twice, len(twice))
        live = self._live_ids(doc_ids)
        if live and not replace:
            raise DuplicateDocumentError(live, len(live))
        if live:
            self.delete(live)
        return len(live)

    def _live_ids(self, doc_ids: Sequence[str]) -> list[str]:
        live = {doc_id for doc_id in doc_ids if doc_id in self._pending_ids}
        for segment in self._segments:
            found = segment.find(doc_ids)
            live.update(doc_ids[i] for i in np.flatnonzero(found >= 0).tolist())
        return [doc_id for doc_id in doc_ids if doc_id in live]

    def _flush(self) -> None:
        """Write the pending documents as a segment that no manifest names yet."""
        if not len(self._content.pending.documents):
            return
        record = self._content.flush(self._segments, self._fields, self._next_name)
        base = sum(segment.record.n_docs for segment in self._segments)
        self._segments.append(self._content.open_segment(record, base, self._fields))
        self._pending_ids = set()

    def _record(self, i: int, segment: Segment) -> SegmentRecord:
        """Return the segment's record, its deletes written anew when they changed."""
        if i not in self._changed:
            return segment.record
        live: Mask = segment.live if segment.live is not None else np.ones(0, np.bool_)
        name = self._next_name("deletes") + ".lex"
        write_deletes(self.path / name, live)
        return replace(segment.record, deletes=name, n_deleted=segment.record.n_docs - int(live.sum()))

    def _next_name(self, kind: str) -> str:
        """Name a file that was never named before: by the coming generation and a count."""
        self._n_names += 1
        return f"{kind}-{self._committed.generation + 1:06d}-{self._n_names:03d}"

    def _remove_unused(self) -> None:
        """Remove our files that the last commit does not name; readers that hold them open are not disturbed."""
        used = self._committed.files()
        for path in self.path.iterdir():
            if path.name in used or not OWN_NAME.fullmatch(path.name):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _check_ids(doc_ids: Sequence[str]) -> None:
    for doc_id in doc_ids:
        if not doc_id or len(doc_id.encode(errors="surrogatepass")) > MAX_DOCUMENT_ID_BYTES:
            raise DatasetError(f"doc_id {doc_id[:40]!r} must have 1 to {MAX_DOCUMENT_ID_BYTES} bytes")
