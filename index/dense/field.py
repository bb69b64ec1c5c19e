"""Dense fields: one vector a document."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Floats
from ..fields import Field, FieldSegment
from ..manifest import FieldRecord
from .config import DenseFieldConfig
from .flat import FlatPart


class DenseSegment(FieldSegment[FlatPart]):
    """One segment of a dense field."""


class DenseField(Field[DenseSegment]):
    """A field of dense vectors.

    Attributes
    ----------
    config : DenseFieldConfig
    """

    def __init__(self, path: Path, name: str, record: FieldRecord, segments: Sequence[DenseSegment]) -> None:
        super().__init__(path, name, record, segments)
        self.config = DenseFieldConfig(**record.options)

    def document_vector(self, doc_num: int) -> Floats:
        """One document's vector as it is kept, (dim,) float32."""
        segment, position = self.locate(doc_num)
        vector: Floats = segment.part.rows(np.array([position]))[0]
        return vector

    def info(self) -> dict[str, Any]:
        """Facts about the field, ready for JSON."""
        return {**super().info(), "dim": self.config.dim, "keep": self.config.keep, "structure": "flat"}

    def segment_info(self, segment: DenseSegment) -> dict[str, Any]:
        """Facts about one segment's part, ready for JSON."""
        return {"n_vectors": segment.n_docs}
