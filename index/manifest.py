"""The manifest: the one file that says what an index is made of; replacing it is the commit.

``manifest.json`` names every other file of the index. All of those are written and synced before the manifest that names
them is renamed into place, and none is ever changed afterwards, so a reader that has read a manifest has a whole index.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import IndexFormatError, IndexNotFoundError, StorageError
from .storage import DAMAGED, replace_file

FILE_NAME = "manifest.json"
FORMAT = "lexmax-index"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class EncoderRecord:
    """Which encoder made the vectors: enough to make it again and to recognise another one."""

    kind: str
    fingerprint: str
    settings: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class SegmentRecord:
    """A segment and the file of its deleted documents, if any."""

    name: str
    n_docs: int
    n_postings: int
    n_tokens: int = 0
    """Token vectors of a multi-vector index, dense or sparse; 0 otherwise."""
    total_length: int = 0
    """Sum of document lengths in tokens (BM25); 0 otherwise."""
    n_deleted: int = 0
    deletes: str | None = None
    reordered: bool = False
    """Documents were reordered by recursive graph bisection."""
    error: dict[str, float] = field(default_factory=dict)
    """Measured quantisation error of the segment's impacts (see `quantize`), or mean length of its tokens' residuals."""


@dataclass(frozen=True, kw_only=True)
class BuildState:
    """How far an unfinished build has come, so that it can go on."""

    sources: list[str]
    n_records: int
    """Records of the corpus that are dealt with, skipped ones included."""
    last_doc_id: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One committed state of an index."""

    generation: int = 0
    encoder: EncoderRecord
    bm25: dict[str, float] | None = None
    """``{"k1", "b"}`` when the stored counts are weighted by BM25, None when encoders gave the weights."""
    multivector: dict[str, Any] | None = None
    """Fields of `tokens.MultiVectorConfig`, None for an index of sparse vectors."""
    sparse_tokens: bool = False
    """Segments hold the documents' sparse tokens beside the inverted part, which is their maxima (SLIM)."""
    codec: str | None = None
    """File of the residual codec; None until the first segment."""
    calibration: list[dict[str, Any]] | None = None
    """Recall and time of search options, measured on this index of token vectors; see `retrieval.calibration`."""
    scale: float | None = None
    """Impact = weight x scale; None until the first segment."""
    vocabulary: list[str] = field(default_factory=list)
    """Files of term strings, in the order of their term numbers."""
    fields: dict[str, str] = field(default_factory=dict)
    """Metadata field -> type."""
    segments: list[SegmentRecord] = field(default_factory=list)
    build: BuildState | None = None

    @property
    def n_docs(self) -> int:
        """Live documents."""
        return sum(segment.n_docs - segment.n_deleted for segment in self.segments)

    def files(self) -> set[str]:
        """Names, relative to the index folder, of all files and segment folders in use."""
        deletes = {segment.deletes for segment in self.segments if segment.deletes}
        codec = {self.codec} if self.codec else set()
        return {segment.name for segment in self.segments} | deletes | codec | set(self.vocabulary)


def publish(folder: Path, manifest: Manifest) -> None:
    """Commit: replace the manifest atomically and durably. Raises StorageError when the disk refuses."""
    body = dataclasses.asdict(manifest)
    record = {"format": FORMAT, "version": FORMAT_VERSION, "crc32": _checksum(body), "body": body}
    try:
        replace_file(folder / FILE_NAME, json.dumps(record, indent=1, ensure_ascii=False).encode())
    except OSError as failure:
        raise StorageError(f"{folder / FILE_NAME}: cannot be written: {failure.strerror}") from failure


def read(folder: Path) -> Manifest:
    """Read the committed state.

    Raises
    ------
    IndexNotFoundError
        No manifest there.
    IndexFormatError
        The manifest is damaged, foreign or from a newer lexmax.
    """
    path = folder / FILE_NAME
    try:
        record = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise IndexNotFoundError(folder) from None
    except ValueError as failure:
        raise IndexFormatError(path, expected="JSON", found=failure, advice=DAMAGED) from failure
    except OSError as failure:
        raise StorageError(f"{path}: cannot be read: {failure.strerror}") from failure
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise IndexFormatError(path, expected=f"format {FORMAT!r}", found="something else", advice="not a lexmax index")
    if record.get("version", 0) > FORMAT_VERSION:
        found = record["version"]
        raise IndexFormatError(path, expected=f"version <= {FORMAT_VERSION}", found=found, advice="upgrade lexmax")
    body: Any = record.get("body")
    if _checksum(body) != record.get("crc32"):
        raise IndexFormatError(path, expected=f"checksum {record.get('crc32')}", found=_checksum(body), advice=DAMAGED)
    return _parse(path, body)


def _checksum(body: Any) -> int:
    return zlib.crc32(json.dumps(body, sort_keys=True).encode())


def _parse(path: Path, body: dict[str, Any]) -> Manifest:
    try:
        build = body.pop("build")
        return Manifest(
            encoder=EncoderRecord(**body.pop("encoder")),
            segments=[SegmentRecord(**segment) for segment in body.pop("segments")],
            build=BuildState(**build) if build else None,
            **body,
        )
    except (TypeError, KeyError) as failure:
        raise IndexFormatError(path, expected="the fields of a manifest", found=failure) from failure
