"""Token fields: residual codes of token vectors, with one codec for all segments."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Floats
from ..errors import RepresentationError
from ..fields import Field, FieldSegment
from ..manifest import FieldRecord
from .codes import MultiVectorIndex
from .config import MultiVectorConfig
from .residual import Codec


class TokenSegment(FieldSegment[MultiVectorIndex]):
    """One segment of a token field."""


class TokenField(Field[TokenSegment]):
    """A field of token vectors.

    Attributes
    ----------
    config : MultiVectorConfig
    codec : Codec or None
        None before the first document.
    codec_name : str
        Name of the codec's file; empty before the first document.
    calibration : mapping or None
        Recall and time of search options, measured on this field; see `retrieval.searchers.calibration_record`.
    """

    def __init__(
        self, path: Path, name: str, record: FieldRecord, segments: Sequence[TokenSegment], codec: Codec | None
    ) -> None:
        super().__init__(path, name, record, segments)
        self.codec, self.config = codec, MultiVectorConfig(**record.options)
        self.codec_name = str(record.state.get("codec") or "")
        stored = record.state.get("calibration")
        self.calibration: dict[str, Any] | None = stored if isinstance(stored, dict) else None

    @property
    def n_bytes(self) -> int:
        """Size of the field's files in bytes."""
        return super().n_bytes + (0 if self.codec is None else self.codec.n_bytes)

    @cached_property
    def n_tokens(self) -> int:
        """Tokens of the live documents."""
        widths = (np.diff(segment.part.offsets) for segment in self.segments)
        return sum(
            int((each if segment.live is None else each[segment.live]).sum())
            for each, segment in zip(widths, self.segments, strict=True)
        )

    def changes(self) -> str | None:
        """What has changed since the field was calibrated; None when nothing has, or it never was."""
        record = self.calibration
        if record is None:
            return None
        if record.get("codec") != self.codec_name:
            return "its centroids were trained again"
        counts = (("n_docs", "documents", self.n_docs), ("n_tokens", "tokens", self.n_tokens))
        changed = [f"{what} went from {record.get(key)} to {now}" for key, what, now in counts if record.get(key) != now]
        return " and ".join(changed) or None

    def places(self) -> dict[str, int]:
        """Bytes of records by where they are: "memory", "mmap", or the backend that reads them from disk."""
        found: dict[str, int] = {}
        for segment in self.segments:
            store = segment.part.store
            found[store.place] = found.get(store.place, 0) + store.records.nbytes
        return found

    def document_tokens(self, doc_num: int) -> Floats:
        """One document's token vectors, decoded, (n_tokens, dim)."""
        segment, position = self.locate(doc_num)
        if self.codec is None:
            raise RepresentationError(f"{self.path}, field {self.name}: there are no token vectors")
        return segment.part.tokens(self.codec, position, position + 1)

    def info(self) -> dict[str, Any]:
        """Facts about the field, ready for JSON."""
        n_tokens = sum(segment.record.n_tokens for segment in self.segments)
        exact_bytes = sum(segment.part.store.file.n_bytes for segment in self.segments) if self.config.exact else 0
        return {
            **super().info(),
            "n_tokens": n_tokens,
            "tokens_per_doc": round(n_tokens / max(1, self.n_total), 2),
            "bytes_per_token": round((self.n_bytes - exact_bytes) / max(1, n_tokens), 2),
            "exact_bytes_per_token": round(exact_bytes / max(1, n_tokens), 2),
            "records": self.places(),
            "token_vectors": {**self.record.options, "n_centroids": self.codec.n_centroids if self.codec else 0},
            "calibration": None if self.calibration is None else {**self.calibration, "stale": self.changes()},
        }

    def segment_info(self, segment: TokenSegment) -> dict[str, Any]:
        """Facts about one segment's part, ready for JSON; ``drift``: growth of the residuals since the codec was trained."""
        record = segment.record
        residual = record.error.get("residual", 0.0)
        drift = residual / self.codec.residual - 1 if self.codec and self.codec.residual else 0.0
        errors = {name: round(error, 4) for name, error in record.error.items()}
        return {"n_tokens": record.n_tokens, **errors, "drift": round(drift, 4)}
