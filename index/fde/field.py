"""Fields of fixed dimensional encodings: dense vectors that are made of a token field's vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..dense.field import DenseField, DenseSegment
from ..errors import RepresentationError
from ..fields import Field
from ..manifest import FieldRecord
from ..multivector.codes import MultiVectorIndex
from .config import FdeConfig
from .encoding import Encoding


@dataclass(eq=False)
class FdeSegment(DenseSegment):
    """One segment of a field of encodings.

    Attributes
    ----------
    source : MultiVectorIndex or None
        The token vectors of the same documents, for a writer that encodes them again; None: it cannot.
    """

    source: MultiVectorIndex | None = None

    @property
    def tokens(self) -> MultiVectorIndex:
        """The token vectors, where there are any; RepresentationError where there are none."""
        if self.source is None:
            raise RepresentationError(f"{self.record.folder}: the token vectors that the encodings were made of are gone")
        return self.source


class FdeField(Field[DenseSegment]):
    """A field of fixed dimensional encodings.

    Attributes
    ----------
    config : FdeConfig
    encoding : Encoding or None
        None before the first document.
    dense : DenseField
        The encodings, as they are kept and searched.
    """

    def __init__(self, path: Path, name: str, record: FieldRecord, dense: DenseField, encoding: Encoding | None) -> None:
        super().__init__(path, name, record, dense.segments)
        self.config, self.encoding, self.dense = FdeConfig(**record.options["encoding"]), encoding, dense

    @property
    def n_bytes(self) -> int:
        """Size of the field's files in bytes."""
        return self.dense.n_bytes + (0 if self.encoding is None else self.encoding.n_bytes)

    def info(self) -> dict[str, Any]:
        """Facts about the field, ready for JSON."""
        trained = None if self.encoding is None else self.encoding.n_docs or None
        facts = {**super().info(), "of": self.config.of, "encoding": self.config.options(), "trained_on_documents": trained}
        return {**self.dense.info(), **facts}

    def segment_info(self, segment: DenseSegment) -> dict[str, Any]:
        """Facts about one segment's part, ready for JSON."""
        return self.dense.segment_info(segment)


def source_of(records: Mapping[str, FieldRecord], name: str) -> str | None:
    """Return the token field that a field is made of, while it is there and complete, of the same encoder; else None."""
    record = records[name]
    of = record.options["encoding"]["of"] if record.representation == "fde" else None
    source = None if of is None else records.get(of)
    if source is None or source.representation != "tokens" or not source.complete:
        return None
    return of if source.encoder.fingerprint == record.encoder.fingerprint else None


def dense_record(record: FieldRecord) -> FieldRecord:
    """Return the record of the dense field that keeps the encodings."""
    return replace(record, representation="dense", options=record.options["vectors"])
