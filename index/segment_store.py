"""Segments and field writers of a collection: flushing, merging, rewriting. Nothing here is visible before the commit."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from .arrays import Int32s
from .document_buffer import DocumentBuffer
from .documents import DocumentStore
from .errors import IndexNotFoundError, LexmaxError, StorageError
from .fde.field import FdeSegment, source_of
from .fields import FieldSegment, Part
from .manifest import FieldRecord, Manifest, SegmentRecord, check_identities, identified, publish
from .manifest import read as read_manifest
from .merging import merge_groups, small_run
from .refusals import storage_errors
from .registry import TABLE
from .segments import Segment, merge_documents, write_deletes
from .snapshot import open_fields, open_segments
from .sparse.writer import SparseWriter
from .storage import sync_folder
from .writing import BufferLimits, FieldWriter

REORDER_DOCS = 50_000
"""From this size on, documents are reordered by learned sparse weights at build and compaction unless told otherwise."""
_NUMBERS = r"\d{6,}-\d{3,}-[0-9a-f]{6}"
OWN_NAME = re.compile(
    rf"((segment|field-[A-Za-z0-9_-]+)-{_NUMBERS}|(deletes|vocabulary|codec|cells|bank)-{_NUMBERS}\.lex|manifest\.json\.tmp)"
)


class OpenSegment:
    """A segment under the writer: its documents, and its open part in each field."""

    def __init__(self, documents: Segment, parts: dict[str, Part]) -> None:
        self.documents, self.parts, self.changed = documents, parts, False

    @property
    def record(self) -> SegmentRecord:
        """What the manifest keeps of the segment."""
        return self.documents.record


class SegmentStore:
    """The segments of an index under its writer, and a writer for each field.

    Attributes
    ----------
    path : Path
    committed : Manifest
        The last commit.
    records : dict of str to FieldRecord
        The fields, as the next commit will have them.
    writers : dict of str to FieldWriter
    audits : dict of str to dict or None
        By field; see `retrieval.searchers.audit`.
    banks : dict of str to str or None
        By field, the file of its query bank.
    segments : list of OpenSegment
    metadata : dict of str to str
        Metadata field -> type.
    """

    def __init__(self, path: Path, manifest: Manifest, limits: BufferLimits) -> None:
        self.path, self.committed, self._limits = path, manifest, limits
        self.records, self.metadata = dict(manifest.fields), dict(manifest.metadata)
        self.audits = {name: record.state.get("audit") for name, record in self.records.items()}
        self.banks = {name: record.state.get("bank") for name, record in self.records.items()}
        self.writers = {name: self.new_writer(name, record) for name, record in self.records.items()}
        check_identities(path, manifest)
        opened = open_segments(path, manifest)
        fields = open_fields(path, manifest, opened, {})
        self.segments = [
            OpenSegment(segment, {name: each.segments[i].part for name, each in fields.items() if i < len(each.segments)})
            for i, segment in enumerate(opened)
        ]
        for each in self.segments:  # of a field that is being filled the first segments have parts
            for name, part in each.record.parts.items():
                if name not in each.parts:
                    each.parts[name] = self.writers[name].open(part)
        self._n_names = 0

    @property
    def complete(self) -> tuple[str, ...]:
        """Names of the complete fields."""
        return tuple(name for name, record in self.records.items() if record.complete)

    def new_writer(self, name: str, record: FieldRecord) -> FieldWriter:
        """Make the writer of a field."""
        return TABLE[record.representation].writer(self.path, name, record, self._limits)

    def field_segments(self, name: str, segments: Sequence[OpenSegment] | None = None) -> list[FieldSegment[Any]]:
        """Return what the field's writer merges."""
        kind, source = TABLE[self.records[name].representation].segment, source_of(self.records, name)
        made: list[FieldSegment[Any]] = []
        for each in self.segments if segments is None else segments:
            documents = each.documents
            made.append(kind(each.parts[name], each.record.parts[name], documents.base, documents.n_docs, documents.live))
            if source is not None and isinstance(made[-1], FdeSegment):
                made[-1].source = each.parts[source]  # type: ignore[assignment]
        return made

    def _size(self, record: SegmentRecord) -> float:
        return max(self.writers[name].size(part) for name, part in record.parts.items() if name in self.writers)

    def leader(self, reorder: bool | None) -> str | None:
        """Field whose vectors decide the order of documents; None: the order stays."""
        sparse = [name for name, writer in self.writers.items() if isinstance(writer, SparseWriter)]
        learned = [name for name in sparse if self.writers[name].leads_order]
        if reorder is None:
            reorder = bool(learned) and sum(each.documents.n_live for each in self.segments) >= REORDER_DOCS
        if not reorder:
            return None
        if not sparse:
            raise ValueError(f"{self.path}: documents are reordered by a sparse field, and there is none")
        return (learned or sparse)[0]

    def _use(self, segments: Sequence[OpenSegment]) -> None:
        """Go on with these segments."""
        self.segments, base = list(segments), 0
        for each in segments:
            each.documents.base = base
            base += each.documents.n_docs

    def flush(self, pending: DocumentBuffer, *, more_to_come: bool) -> None:
        """Write documents, whose vectors the writers hold, as a segment that no manifest names yet."""
        name, parts = self.next_name("segment"), {}
        for each in self.complete:
            earlier = [(segment.record.n_docs, segment.record.parts[each]) for segment in self.segments]
            parts[each] = self.writers[each].flush(self.next_name(f"field-{each}"), earlier, more_to_come=more_to_come)
        (self.path / name).mkdir()
        pending.write(self.path / name)
        sync_folder(self.path / name)
        record = SegmentRecord(name=name, n_docs=len(pending), parts=parts)
        self.segments.append(self._opened(record, sum(each.documents.n_docs for each in self.segments)))

    def _opened(self, record: SegmentRecord, base: int) -> OpenSegment:
        """Open a segment that no manifest names yet."""
        segment = Segment(record, base, DocumentStore(self.path / record.name), None)
        return OpenSegment(segment, {name: self.writers[name].open(part) for name, part in record.parts.items()})

    def _merge(self, segments: Sequence[OpenSegment], leader: str | None) -> list[OpenSegment]:
        """Merge neighbouring segments into one, or none when nothing lives; writers are prepared."""
        order: Int32s | None = None
        if leader is not None:
            order = self.writers[leader].order(self.field_segments(leader, segments))
        name, parts = self.next_name("segment"), {}
        n_docs = merge_documents(self.path / name, [each.documents for each in segments], self.metadata, order)
        if not n_docs:
            return []
        for each in self.complete:
            sources = self.field_segments(each, segments)
            parts[each] = self.writers[each].merge(self.next_name(f"field-{each}"), sources, order)
        record = SegmentRecord(name=name, n_docs=n_docs, reordered=leader is not None, parts=parts)
        return [self._opened(record, segments[0].documents.base)]

    def rewrite(self, segment: OpenSegment, names: Sequence[str]) -> OpenSegment:
        """Write some fields' parts of a segment again; its documents stay."""
        parts = dict(segment.record.parts)
        for name in names:
            sources = self.field_segments(name, [segment])
            for source in sources:
                source.live = None  # positions must stay those of the documents
            parts[name] = self.writers[name].merge(self.next_name(f"field-{name}"), sources, None)
            segment.parts[name] = self.writers[name].open(parts[name])
        segment.documents.record = replace(segment.record, parts=parts)
        return segment

    def compact(self, leader: str | None) -> None:
        """Merge all segments, in all fields, in the order that ``leader`` decides; see `Collection.compact`."""
        rewritten = [name for name, writer in self.writers.items() if writer.prepare(self.field_segments(name))]
        merged: list[OpenSegment] = []
        for group in merge_groups([each.record for each in self.segments], self._size):
            segments = self.segments[group]
            record, live = segments[0].record, segments[0].documents.live
            if len(segments) == 1 and live is None and (leader is None or record.reordered):
                merged.append(self.rewrite(segments[0], rewritten))
            else:
                merged += self._merge(segments, leader)
        for writer in self.writers.values():
            writer.finish(len(merged))
        self._use(merged)

    def merge_small(self) -> None:
        """Keep the number of segments low: merge small ones, cluster a small field again that has outgrown its centroids.

        A small sparse field whose impacts have become wrong is weighed again.
        """
        if len(self.complete) < len(self.records):
            return  # a field is being filled, segment by segment
        if any(w.outgrown([each.record.parts[n] for each in self.segments]) for n, w in self.writers.items()):
            self.compact(None)
            return
        while n := small_run([each.record for each in self.segments], self._size):
            for name, writer in self.writers.items():
                writer.prepare(self.field_segments(name), compaction=False)
            kept, run = self.segments[:-n], self.segments[-n:]
            self._use([*kept, *self._merge(run, None)])
        for name, writer in self.writers.items():
            parts: list[Any] = self.field_segments(name)
            if isinstance(writer, SparseWriter) and writer.stale(parts):
                writer.prepare(parts, in_place=True)
                for segment in self.segments:
                    self.rewrite(segment, [name])
                writer.finish(len(parts))

    def save(self, manifest: Manifest) -> Manifest:
        """Commit the segments and fields, with what ``manifest`` has besides; returns the new manifest."""
        segments = [self._record(each) for each in self.segments]
        fields = {name: replace(record, state=self._state(name)) for name, record in self.records.items()}
        manifest = replace(
            manifest, generation=manifest.generation + 1, fields=fields, segments=segments, metadata=dict(self.metadata)
        )
        manifest = identified(self.path, manifest, self.committed)
        sync_folder(self.path)
        try:
            publish(self.path, manifest)
        except StorageError as failure:
            self.committed = manifest if failure.committed else self.committed
            raise
        self.committed, self.records, self._n_names = manifest, fields, 0
        for each, record in zip(self.segments, segments, strict=True):
            each.documents.record, each.changed = record, False
        self.remove_unused()
        return manifest

    def _state(self, name: str) -> dict[str, Any]:
        kept = {"audit": self.audits.get(name), "bank": self.banks.get(name)}
        return {**self.writers[name].state(self.next_name), **{key: value for key, value in kept.items() if value}}

    def _record(self, segment: OpenSegment) -> SegmentRecord:
        """Return the segment's record, its deletes written again when they changed."""
        live, record = segment.documents.live, segment.record
        if not segment.changed or live is None:
            return record
        name = self.next_name("deletes") + ".lex"
        write_deletes(self.path / name, live)
        return replace(record, deletes=name, n_deleted=record.n_docs - int(live.sum()))

    def next_name(self, kind: str) -> str:
        """Name a file that was never named before: by the coming generation, a count, and the index's identity."""
        self._n_names += 1
        manifest = self.committed
        return f"{kind}-{manifest.generation + 1:06d}-{self._n_names:03d}-{manifest.build_id[:6]}"

    def remove_unused(self) -> None:
        """Remove our files that the commit on the disk does not name; readers that hold them open are not disturbed.

        Raises nothing, and removes nothing when that commit cannot be read or made durable: the next writer does it.
        """
        with suppress(LexmaxError), storage_errors(self.path):
            sync_folder(self.path)  # after a power cut the commit before it would need its files
            used = named_files(self.path)
            for path in self.path.iterdir():
                if path.name in used or not OWN_NAME.fullmatch(path.name):
                    continue
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    with suppress(OSError):
                        path.unlink(missing_ok=True)


def named_files(folder: Path) -> set[str]:
    """Names of the files and folders that the commit on the disk is made of; none before the first commit."""
    try:
        return read_manifest(folder).files()
    except IndexNotFoundError:
        return set()
