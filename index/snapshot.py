"""A snapshot: one committed state of an index, open for reading and never disturbed by later commits."""

from __future__ import annotations

import logging
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from . import manifest as manifests
from .arguments import path_of, texts_of
from .arrays import Int64s, Mask
from .documents import Document
from .errors import IndexFormatError, RepresentationError
from .manifest import Manifest
from .multivector.placement import TokenStorage, place_tokens
from .nearest import did_you_mean
from .query_bank import read_bank
from .refusals import storage_errors
from .registry import AnyField, Opening, open_field
from .segments import Segment

logger = logging.getLogger(__name__)
MAX_CACHED_FILTERS = 32
FieldT = TypeVar("FieldT", bound=AnyField)


class Snapshot:
    """Documents and vector fields of one generation; make one with `open`. Safe to use from many threads.

    Attributes
    ----------
    path : Path
    manifest : Manifest
    segments : list of Segment
        Documents, in the order of doc_nums.
    fields : mapping of str to Field
        The complete fields.
    """

    def __init__(self, path: Path, manifest: Manifest, segments: Sequence[Segment], fields: Mapping[str, AnyField]) -> None:
        self.path, self.manifest, self.segments, self.fields = path, manifest, list(segments), fields
        self._bases = [segment.base for segment in segments]
        self._n_total = sum(segment.n_docs for segment in segments)
        self._masks: OrderedDict[tuple[str, str], list[Mask | None]] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls, path: Path | str, *, previous: Snapshot | None = None, verify: bool = False, storage: TokenStorage | None = None
    ) -> Snapshot:
        """Open the newest commit.

        Parameters
        ----------
        path : Path or str
            The index folder.
        previous : Snapshot or None
            An earlier snapshot of this index: segments that did not change are taken from it.
        verify : bool
            Verify every checksum now, not when something is first read.
        storage : TokenStorage or None
            Where records of token vectors are to be; None: where they are, which is mapped at first.

        Raises
        ------
        IndexNotFoundError, IndexFormatError
            No index there, or a damaged one.
        StorageError
            The system refuses memory, descriptors or a file: no damage.
        """
        folder = path_of(path)
        with storage_errors(folder):
            return cls._open(folder, previous, verify, storage)

    @classmethod
    def _open(cls, folder: Path, previous: Snapshot | None, verify: bool, storage: TokenStorage | None) -> Snapshot:
        manifest = manifests.read(folder)
        while True:
            known = previous if previous is not None and previous.manifest.build_id == manifest.build_id else None
            try:
                manifests.check_identities(folder, manifest, known.manifest if known else None)
                segments = open_segments(folder, manifest, known.segments if known else ())
                fields = open_fields(folder, manifest, segments, known.fields if known else {})
                snapshot = cls(folder, manifest, segments, fields)
                if storage is not None:
                    place_tokens(fields.values(), storage)
                if verify:
                    snapshot.verify()
                return snapshot
            except IndexFormatError:
                newest = manifests.read(folder)  # a commit may have removed what the older manifest named
                if (newest.build_id, newest.generation) == (manifest.build_id, manifest.generation):
                    raise
                manifest = newest

    def verify(self) -> None:
        """Verify every checksum; raises IndexFormatError."""
        for segment in self.segments:
            segment.documents.file.verify()
        for field in self.fields.values():
            read_bank(self.path, field.record)
            for each in field.segments:
                each.part.verify()

    @property
    def n_docs(self) -> int:
        """Live documents."""
        return self.manifest.n_docs

    @property
    def generation(self) -> int:
        """Number of the commit, from 1."""
        return self.manifest.generation

    def field(self, name: str) -> AnyField:
        """Return a vector field by name.

        Raises
        ------
        RepresentationError
            There is no such field, or it is not filled yet.
        """
        if name in self.fields:
            return self.fields[name]
        if name in self.manifest.fields:
            raise RepresentationError(
                f"{self.path}: the field {name!r} is not filled yet: `lexmax field add {self.path} {name}=...` continues"
            )
        raise RepresentationError(
            f"{self.path}: there is no field {name!r}; there are {', '.join(self.fields) or 'none'} "
            f"(`lexmax field add {self.path} {name}=MODEL` adds one){did_you_mean(str(name), self.fields)}"
        )

    def only_field(self, kind: type[FieldT], what: str) -> FieldT:
        """Return the one vector field of a kind; raises RepresentationError where there is none, or several."""
        found = [field for field in self.fields.values() if isinstance(field, kind)]
        if len(found) != 1:
            advice = f"name one of {', '.join(field.name for field in found)}" if found else "one is needed"
            raise RepresentationError(f"{self.path}: {len(found) or 'no'} fields hold {what}: {advice}")
        return found[0]

    def masks(self, filter: str | Mapping[str, Any] | None = None) -> list[Mask | None]:
        """For each segment, which documents may be returned: (n_docs,) bool, or None for all of them.

        Parameters
        ----------
        filter : str, mapping or None
            An expression or a tree over metadata; see `filters`. A field that no document has is told to the log.

        Raises
        ------
        FilterError
            The filter is malformed, does not fit the types of the fields, or would take long.
        """
        if filter is None:
            return [segment.live for segment in self.segments]
        from .filters.filter import Filter, filter_key  # with pyarrow.compute, which few searches need

        key = filter_key(filter)
        with self._lock:
            if key in self._masks:
                self._masks.move_to_end(key)
                return self._masks[key]
        parsed = Filter(filter, self.manifest.metadata)
        if parsed.unseen:
            logger.warning("filter: no document has the field %s", ", ".join(map(repr, parsed.unseen)))
        matching = parsed.masks([segment.documents for segment in self.segments])
        masks: list[Mask | None] = [
            mask if segment.live is None else mask & segment.live for segment, mask in zip(self.segments, matching, strict=True)
        ]
        for mask in masks:
            if mask is not None:
                mask.flags.writeable = False  # all searches with this filter get it
        with self._lock:
            self._masks[key] = masks
            if len(self._masks) > MAX_CACHED_FILTERS:
                self._masks.popitem(last=False)
        return masks

    def locate(self, doc_num: int) -> tuple[Segment, int]:
        """Segment of a doc_num and the position in it; raises IndexError for one that is not there."""
        if not 0 <= doc_num < self._n_total:
            raise IndexError(f"{self.path}: there is no doc_num {doc_num}")
        at = bisect_right(self._bases, doc_num) - 1
        return self.segments[at], doc_num - self.segments[at].base

    def find(self, doc_ids: Sequence[str]) -> Int64s:
        """doc_num of each live doc_id, -1 where it is absent."""
        doc_ids = texts_of(doc_ids, "doc_ids")
        numbers = np.full(len(doc_ids), -1, np.int64)
        for segment in self.segments:
            found = segment.find(doc_ids)
            numbers = np.where(found >= 0, found + segment.base, numbers)
        return numbers

    def doc_ids(self, doc_nums: Sequence[int]) -> list[str]:
        """doc_id of each doc_num."""
        located = (self.locate(int(doc_num)) for doc_num in doc_nums)
        return [segment.documents.doc_ids[position] for segment, position in located]

    def get_many(self, doc_nums: Sequence[int]) -> list[Document]:
        """Documents by doc_num, in that order."""
        located = (self.locate(int(doc_num)) for doc_num in doc_nums)
        return [segment.documents.get(position) for segment, position in located]

    def info(self) -> dict[str, Any]:
        """Facts about the index, ready for JSON: sizes, fields with their encoders and errors, segments."""
        manifest, segments = self.manifest, self.segments
        n_bytes = sum(segment.documents.n_bytes for segment in segments) + sum(each.n_bytes for each in self.fields.values())
        return {
            "path": str(self.path),
            "generation": manifest.generation,
            "build_id": manifest.build_id,
            "n_docs": manifest.n_docs,
            "n_deleted": sum(segment.record.n_deleted for segment in segments),
            "n_bytes": n_bytes,
            "search": manifest.search,
            "metadata_fields": manifest.metadata,
            "complete": manifest.build is None and len(self.fields) == len(manifest.fields),
            "fields": {
                **{name: each.info() for name, each in self.fields.items()},
                **{name: {"complete": False} for name in manifest.fields if name not in self.fields},
            },
            "segments": [self._segment_info(number, segment) for number, segment in enumerate(segments)],
        }

    def _segment_info(self, number: int, segment: Segment) -> dict[str, Any]:
        documents, record, parts = segment.documents, segment.record, {}
        for name, each in self.fields.items():
            if number < len(each.segments):
                part = each.segments[number]
                parts[name] = {**each.segment_info(part), "bytes": part.part.sizes()}
        return {
            "name": record.name,
            "n_docs": record.n_docs,
            "n_deleted": record.n_deleted,
            "reordered": record.reordered,
            "bytes": {"documents": documents.file.n_bytes, "doc_ids": documents.doc_ids.n_bytes},
            "fields": parts,
        }


def open_segments(folder: Path, manifest: Manifest, known: Sequence[Segment] = ()) -> list[Segment]:
    """Open the segments that a manifest names; documents of ``known`` ones are used again."""
    documents = {segment.record.name: segment.documents for segment in known}
    segments, base = [], 0
    for record in manifest.segments:
        segments.append(Segment.open(folder, record, base, documents=documents.get(record.name)))
        base += record.n_docs
    return segments


def open_fields(
    folder: Path, manifest: Manifest, segments: Sequence[Segment], known: Mapping[str, AnyField]
) -> dict[str, AnyField]:
    """Open the complete fields that a manifest names; files of ``known`` ones are used again."""
    return {
        name: open_field(Opening(folder, name, record, segments, known.get(name)))
        for name, record in manifest.fields.items()
        if record.complete
    }
