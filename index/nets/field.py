"""Fields whose queries are networks: the vectors of a dense field, and nearest documents beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Floats
from ..dense.field import DenseField, DenseSegment
from ..fields import Field, FieldSegment
from ..manifest import FieldRecord
from .config import NetFieldConfig
from .neighbours import FILE_NAME, Neighbours


class NetPart:
    """One segment's vectors, and nearest documents where the field keeps them and the segment is large enough.

    Attributes
    ----------
    dense : part of a dense field
    neighbours : Neighbours or None
    """

    def __init__(self, dense: Any, folder: Path, config: NetFieldConfig) -> None:
        self.dense, self.neighbours = dense, None
        if (folder / FILE_NAME).exists():
            self.neighbours = Neighbours(folder, dense.n_docs, config.n_neighbours)

    @property
    def n_docs(self) -> int:
        """Number of documents."""
        return int(self.dense.n_docs)

    def totals(self) -> dict[str, int]:
        """Return what the vectors have."""
        return dict(self.dense.totals())

    @property
    def n_bytes(self) -> int:
        """Size of the files in bytes."""
        return int(self.dense.n_bytes) + (0 if self.neighbours is None else self.neighbours.file.n_bytes)

    def sizes(self) -> dict[str, int]:
        """Bytes of each array."""
        return {**self.dense.sizes(), **({} if self.neighbours is None else self.neighbours.file.sizes())}

    def verify(self) -> None:
        """Verify every checksum; raises IndexFormatError."""
        self.dense.verify()
        if self.neighbours is not None:
            self.neighbours.file.verify()

    def check(self) -> None:
        """Verify every checksum and what must hold between arrays; raises IndexFormatError."""
        self.dense.check()
        if self.neighbours is not None:
            self.neighbours.check()

    def vectors(self, positions: npt.NDArray[np.integer[Any]]) -> Floats:
        """Vectors of documents at some positions, (n, dim) float32, verified."""
        found: Floats = self.dense.vectors(positions)
        return found


class NetSegment(FieldSegment[NetPart]):
    """One segment of such a field."""

    @property
    def dense(self) -> DenseSegment:
        """The segment of the dense field that keeps the vectors."""
        return DenseSegment(self.part.dense, self.record, self.base, self.n_docs, self.live)


class NetField(Field[NetSegment]):
    """A field of documents' vectors that networks score.

    Attributes
    ----------
    config : NetFieldConfig
    dense : DenseField
        Keeps the vectors.
    """

    def __init__(
        self, path: Path, name: str, record: FieldRecord, dense: DenseField, previous: NetField | None = None
    ) -> None:  # fmt: skip
        config = self.config = NetFieldConfig(**record.options)
        known = {} if previous is None else {each.record.folder: each.part for each in previous.segments}
        parts = [
            known.get(each.record.folder) or NetPart(each.part, path / each.record.folder, config) for each in dense.segments
        ]
        segments = [
            NetSegment(part, each.record, each.base, each.n_docs, each.live)
            for part, each in zip(parts, dense.segments, strict=True)
        ]
        super().__init__(path, name, record, segments)
        self.dense = dense

    def document_vector(self, doc_num: int) -> Floats:
        """One document's vector as it is kept, (dim,) float32."""
        return self.dense.document_vector(doc_num)

    def info(self) -> dict[str, Any]:
        """Facts about the field, ready for JSON."""
        config = self.config
        return {**super().info(), "dim": config.dim, "keep": config.keep, "n_neighbours": config.n_neighbours}

    def segment_info(self, segment: NetSegment) -> dict[str, Any]:
        """Facts about one segment's part, ready for JSON."""
        neighbours = segment.part.neighbours
        return {"n_vectors": segment.n_docs, "n_entries": 0 if neighbours is None else len(neighbours.entries)}


def dense_record(record: FieldRecord, config: NetFieldConfig) -> FieldRecord:
    """Return the record of the dense field that keeps the vectors."""
    return FieldRecord(
        representation="dense", encoder=record.encoder, options=config.dense(), pieces=record.pieces, complete=record.complete
    )


def segments_of(segments: Sequence[NetSegment]) -> list[DenseSegment]:
    """Return the segments of the dense field."""
    return [segment.dense for segment in segments]
