"""Dense fields: one vector per document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Floats, Int32s
from ..fields import Field, FieldSegment
from ..manifest import FieldRecord
from ..query_bank import bank_size
from .config import AUTO_BYTES, CODE_POINTS, GRAPH_VECTORS, LIST_POINTS, DenseFieldConfig
from .part import DensePart
from .quantiser import Quantiser


class DenseSegment(FieldSegment[DensePart]):
    """One segment of a dense field."""


class DenseField(Field[DenseSegment]):
    """A field of dense vectors.

    Attributes
    ----------
    config : DenseFieldConfig
    quantiser : Quantiser or None
        None: there are no lists and no codes.
    """

    def __init__(
        self, path: Path, name: str, record: FieldRecord, segments: Sequence[DenseSegment], quantiser: Quantiser | None = None
    ) -> None:
        super().__init__(path, name, record, segments)
        self.config, self.quantiser = DenseFieldConfig(**record.options), quantiser

    @property
    def n_bytes(self) -> int:
        """Size of the field's files in bytes."""
        return super().n_bytes + (0 if self.quantiser is None else self.quantiser.n_bytes)

    def document_vector(self, doc_num: int) -> Floats:
        """One document's vector as it is kept, (dim,) float32; of a document of several, the first."""
        first: Floats = self.vectors_of(doc_num)[0]
        return first

    def vectors_of(self, doc_num: int) -> Floats:
        """One document's vectors as they are kept, (vectors_per_doc, dim) float32."""
        segment, position = self.locate(doc_num)
        return segment.part.vectors(position * self.config.vectors_per_doc + np.arange(self.config.vectors_per_doc))

    def document_vectors(self, doc_nums: Int32s) -> Floats:
        """Vectors of documents of one vector as they are kept, (n, dim) float32."""
        located = (self.locate(doc_num) for doc_num in doc_nums.tolist())
        rows = [segment.part.vectors(np.array([position])) for segment, position in located]
        return np.concatenate([np.empty((0, self.config.dim), np.float32), *rows])

    @property
    def is_exact(self) -> bool:
        """Whether every search compares the query with every vector."""
        return all(segment.part.structure == "flat" for segment in self.segments)

    def info(self) -> dict[str, Any]:
        """Facts about the field, ready for JSON."""
        return {
            **super().info(),
            **{name: value for name, value in self.config.options().items() if name != "structure"},
            "structure": self.config.structure,
            "n_lists": 0 if self.quantiser is None else self.quantiser.n_lists,
            "query_bank": bank_size(self.path, self.record),
            "search": f"{'exact' if self.is_exact else 'approximate'}: {self._reason()}",
        }

    def segment_info(self, segment: DenseSegment) -> dict[str, Any]:
        """Facts about one segment's part, ready for JSON."""
        return {"n_vectors": segment.part.n_vectors, "structure": segment.part.structure}

    def _reason(self) -> str:
        """Say what a search looks through, and why."""
        config, parts = self.config, Counter(segment.part.structure for segment in self.segments)
        ways = {"flat": "all vectors", "codes": f"codes ({config.quantise})", "ivf": "the nearest lists", "hnsw": "a graph"}
        looked = ", ".join(f"{ways[each]} in {n} segments" for each, n in parts.items()) or "nothing yet"
        notes, n_vectors = [], self.n_docs * config.vectors_per_doc
        if config.structure == "auto":
            n_bytes = n_vectors * config.scanned_bytes
            relation = "over" if n_bytes > AUTO_BYTES else "up to"
            notes.append(f"auto: a scan reads {n_bytes:,} bytes, {relation} the {AUTO_BYTES:,} from which lists are made")
        wanted = config.structure_of(n_vectors)
        if parts["flat"] and (wanted != "flat" or config.quantise != "none"):
            least = GRAPH_VECTORS if wanted == "hnsw" else max(
                LIST_POINTS * (config.n_lists or 1) if wanted == "ivf" else LIST_POINTS,
                CODE_POINTS if config.quantise in ("pq", "opq") else 0,
            )  # fmt: skip
            what = "documents" if config.vectors_per_doc == 1 else "vectors"
            where = "in a segment" if wanted == "hnsw" else "in the field, and a commit or compaction since"
            notes.append(f"{wanted} with codes {config.quantise} takes {least:,} {what} {where}")
        return "; ".join([looked, *notes])
