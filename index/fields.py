"""Vector fields as readers see them: the parts of all segments, and what they share.

A field reader belongs to one snapshot. Searchers work on it alone: they need no documents and no other field.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from .arrays import Mask
from .manifest import FieldRecord, PartRecord


class Part(Protocol):
    """Vectors of one segment in one field, memory-mapped."""

    @property
    def n_docs(self) -> int:
        """Number of documents."""
        ...

    def totals(self) -> Mapping[str, int]:
        """What the manifest's `PartRecord` says too: ``n_postings``, ``n_tokens``, ``total_length``."""
        ...

    @property
    def n_bytes(self) -> int:
        """Size of the files in bytes."""
        ...

    def sizes(self) -> dict[str, int]:
        """Bytes of each array."""
        ...

    def verify(self) -> None:
        """Verify every checksum; raises IndexFormatError."""
        ...

    def check(self) -> None:
        """Verify every checksum and what must hold between arrays; raises IndexFormatError."""
        ...


PartT = TypeVar("PartT", bound=Part)


@dataclass(eq=False)
class FieldSegment(Generic[PartT]):
    """One segment of one field.

    Attributes
    ----------
    part : the part's reader
    record : PartRecord
    base : int
        doc_num of the segment's first document.
    n_docs : int
        Documents, deleted ones included.
    live : (n_docs,) bool or None
        Which documents are not deleted; None: all.
    """

    part: PartT
    record: PartRecord
    base: int
    n_docs: int
    live: Mask | None = None

    @property
    def n_deleted(self) -> int:
        """Documents that are deleted."""
        return 0 if self.live is None else self.n_docs - int(self.live.sum())


SegmentT = TypeVar("SegmentT", bound=FieldSegment[Any])


class Field(Generic[SegmentT]):
    """A field of one snapshot.

    Attributes
    ----------
    path : Path
        The index folder, for messages.
    name : str
    record : FieldRecord
    segments : list of FieldSegment
        In the order of doc_nums.
    """

    def __init__(self, path: Path, name: str, record: FieldRecord, segments: Sequence[SegmentT]) -> None:
        self.path, self.name, self.record, self.segments = path, name, record, list(segments)
        self._bases = [segment.base for segment in segments]
        self.n_total = sum(segment.n_docs for segment in segments)
        """Documents, deleted ones included."""
        self.n_docs = self.n_total - sum(segment.n_deleted for segment in segments)
        """Live documents."""

    @property
    def representation(self) -> str:
        """What the field holds: "sparse", "tokens", "sparse-tokens", "dense" or "nets"."""
        return self.record.representation

    @property
    def n_bytes(self) -> int:
        """Size of the field's parts in bytes."""
        return sum(segment.part.n_bytes for segment in self.segments)

    def masks(self) -> list[Mask | None]:
        """Which documents of each segment are live: (n_docs,) bool, or None for all."""
        return [segment.live for segment in self.segments]

    def locate(self, doc_num: int) -> tuple[SegmentT, int]:
        """Segment of a doc_num and the position in it."""
        segment = self.segments[bisect_right(self._bases, doc_num) - 1]
        return segment, doc_num - segment.base

    def info(self) -> dict[str, Any]:
        """Facts about the field, ready for JSON."""
        encoder = self.record.encoder
        return {
            "representation": self.representation,
            "encoder": {"kind": encoder.kind, "fingerprint": encoder.fingerprint, "settings": encoder.settings},
            "n_bytes": self.n_bytes,
            "audit": self._audit(),
        }

    @property
    def vectors_digest(self) -> str:
        """CRC-32 of what names the live vectors: another one after each commit that changed them."""
        facts = [(segment.record.folder, segment.n_docs, segment.n_deleted) for segment in self.segments]
        return f"{zlib.crc32(repr(facts).encode()):08x}"

    def _audit(self) -> dict[str, Any] | None:
        """What `retrieval.searchers.audit` measured, and whether the vectors have changed since."""
        record = self.record.state.get("audit")
        return {**record, "outdated": record.get("vectors") != self.vectors_digest} if isinstance(record, dict) else None

    def segment_info(self, segment: SegmentT) -> Mapping[str, Any]:
        """Facts about the field's part of one segment, ready for JSON."""
        raise NotImplementedError
