"""Filling a vector field of an index that exists, from its stored texts: segment by segment, in pieces that are committed.

A field of encodings is filled from the vectors of its token field instead.

A piece is a part of the segment's next documents. When all documents of a segment have vectors, its pieces are merged into the
part; when all segments have parts, the field is complete, and searchable with the commit. Deleted documents are encoded too:
positions must stay.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import RepresentationError
from .fde.field import source_of
from .fde.writer import documents_at
from .fields import FieldSegment, Part
from .manifest import PartRecord
from .multivector.codes import MultiVectorIndex
from .refusals import storage_errors
from .registry import TABLE
from .representations import Vectors

if TYPE_CHECKING:
    from .collection import Collection
    from .segment_store import OpenSegment

BATCH_DOCS = 256


def fill_field(
    collection: Collection, name: str, encode: Callable[[list[str]], Vectors] | None, progress: Callable[[int], None] | None,
    commit_every_s: float,
) -> int:  # fmt: skip
    """Fill a field that is not complete; see `Collection.fill`."""
    filling = _Filling(collection, name, encode, progress, commit_every_s)
    try:
        for segment in collection._store.segments:
            if name in segment.record.parts:
                filling.n_filled += segment.record.n_docs
            else:
                filling.fill(segment)
        filling.complete()
    except BaseException:
        collection._store.writers[name].clear()  # the next run encodes what no piece holds
        raise
    return filling.n_encoded


class _Filling:
    """One run of filling one field."""

    def __init__(
        self, collection: Collection, name: str, encode: Callable[[list[str]], Vectors] | None,
        progress: Callable[[int], None] | None, commit_every_s: float,
    ) -> None:  # fmt: skip
        self._collection, self._name, self._encode = collection, name, encode
        self._progress, self._commit_every_s = progress, commit_every_s
        self._writer = collection._store.writers[name]
        self._last_commit = time.monotonic()
        self.n_filled = self.n_encoded = 0

    def fill(self, segment: OpenSegment) -> None:
        """Give one segment its part."""
        collection, name, writer = self._collection, self._name, self._writer
        with storage_errors(collection.path):
            parts = [writer.open(piece) for piece in self._pieces]
        position, n_docs = sum(part.n_docs for part in parts), segment.record.n_docs
        self.n_filled += position
        while position < n_docs:
            last = min(position + BATCH_DOCS, n_docs)
            vectors, n_wanted = self._vectors(segment, position, last), last - position
            writer.check(vectors)
            if len(vectors) != n_wanted:
                raise RepresentationError(f"the encoder of {name} returned {len(vectors)} vectors for {n_wanted} texts")
            with collection._changing():
                writer.extend(vectors)
            self.n_encoded, self.n_filled, position = self.n_encoded + n_wanted, self.n_filled + n_wanted, last
            if self._progress:
                self._progress(self.n_filled)
            due = time.monotonic() - self._last_commit >= self._commit_every_s
            if writer.fullness >= 1 or due or position == n_docs:
                more = position < n_docs or segment is not collection._store.segments[-1]
                with collection._changing():
                    piece = writer.flush(collection._store.next_name(f"field-{name}"), self._earlier(parts), more_to_come=more)
                    self._set(pieces=[*self._pieces, piece])
                    parts.append(writer.open(piece))
                if position < n_docs:
                    self._commit()
        with collection._changing():
            record = self._joined(parts) if len(parts) > 1 else self._pieces[0]
            segment.parts[name] = writer.open(record)
            segment.documents.record = replace(segment.record, parts={**segment.record.parts, name: record})
            self._set(pieces=[])
        self._commit()

    def _vectors(self, segment: OpenSegment, first: int, last: int) -> Vectors:
        """Vectors of some documents: of their texts, or of the field that this one is made of."""
        source = source_of(self._collection._store.records, self._name)
        part = None if source is None else segment.parts[source]
        if isinstance(part, MultiVectorIndex):
            return documents_at(part, np.arange(first, last))
        if self._encode is None:
            raise RepresentationError(f"{self._collection.path}: the token field that {self._name} is made of is gone: drop it")
        return self._encode([document.content for document in segment.documents.documents.get_many(range(first, last))])

    def complete(self) -> None:
        """Make the field searchable; what all segments share is fitted to all of them, as at a compaction."""
        collection, name, writer = self._collection, self._name, self._writer
        with collection._changing():
            if writer.prepare(collection._store.field_segments(name)):
                for segment in collection._store.segments:
                    collection._store.rewrite(segment, [name])
            writer.finish(len(collection._store.segments))
            self._set(complete=True)
        self._commit()

    @property
    def _pieces(self) -> list[PartRecord]:
        return self._collection._store.records[self._name].pieces

    def _earlier(self, pieces: list[Part]) -> list[tuple[int, PartRecord]]:
        """Parts and pieces so far, with their numbers of documents."""
        done = [each for each in self._collection._store.segments if self._name in each.record.parts]
        whole = [(each.record.n_docs, each.record.parts[self._name]) for each in done]
        return whole + [(part.n_docs, piece) for part, piece in zip(pieces, self._pieces, strict=True)]

    def _joined(self, parts: list[Part]) -> PartRecord:
        """Merge the pieces of one segment into its part."""
        kind: Any = TABLE[self._collection._store.records[self._name].representation].segment
        pieces: list[FieldSegment[Any]] = []
        base = 0
        for part, piece in zip(parts, self._pieces, strict=True):
            pieces.append(kind(part, piece, base, part.n_docs))
            base += part.n_docs
        self._writer.prepare(pieces, compaction=False)
        return self._writer.merge(self._collection._store.next_name(f"field-{self._name}"), pieces, None)

    def _set(self, **changes: Any) -> None:
        records = self._collection._store.records
        records[self._name] = replace(records[self._name], **changes)

    def _commit(self) -> None:
        self._collection.commit()
        self._last_commit = time.monotonic()
