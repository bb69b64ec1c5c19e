"""The manifest: the one file that names what an index is made of; replacing it is the commit.

``manifest.json`` names every other file of the index. All of those are written and synced before the manifest that names
them is renamed into place, and none is changed afterwards, so a reader that has read a manifest has a whole index.
"""

from __future__ import annotations

import dataclasses
import json
import re
import uuid
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import IndexFormatError, IndexNotFoundError, StorageError
from .storage import DAMAGED, replace_file

FILE_NAME = "manifest.json"
FORMAT = "lexmax-index"
FORMAT_VERSION = 2
FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
REPRESENTATIONS = ("sparse", "tokens", "sparse-tokens")


@dataclass(frozen=True, kw_only=True)
class EncoderRecord:
    """Which encoder made the vectors: enough to make it again and to recognise another one."""

    kind: str
    fingerprint: str
    settings: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class PartRecord:
    """One field's vectors of one segment.

    Attributes
    ----------
    folder : str
        Name of the folder that holds the files.
    n_postings, n_tokens : int
        Postings, and token vectors; 0 where the representation has none.
    total_length, average_length : int, float
        BM25: sum of the documents' lengths in tokens, and the average length that impacts were computed with; 0 otherwise.
    error : dict
        Measured quantisation error of impacts (`sparse.quantize`), or mean errors of token codes (`multivector.codes`).
    """

    folder: str
    n_postings: int = 0
    n_tokens: int = 0
    total_length: int = 0
    average_length: float = 0.0
    error: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FieldRecord:
    """A vector field: a named representation of all documents of the index.

    Attributes
    ----------
    representation : {"sparse", "tokens", "sparse-tokens"}
    encoder : EncoderRecord
    options : dict
        Fixed at creation. sparse: ``{"bm25": {"k1", "b"}}`` where the index weighs term counts; tokens: the fields of
        `multivector.config.MultiVectorConfig`.
    state : dict
        Shared by all segments. sparse and sparse-tokens: ``scale`` and ``vocabulary`` (file names); tokens: ``codec`` (file
        name) and ``calibration``.
    pieces : list of PartRecord
        Of a field that is being filled: vectors of the next segment's first documents, in order.
    complete : bool
        False while the field is being filled; it is then neither searched nor added to.
    """

    representation: str
    encoder: EncoderRecord
    options: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    pieces: list[PartRecord] = field(default_factory=list)
    complete: bool = True


@dataclass(frozen=True, kw_only=True)
class SegmentRecord:
    """A segment: a run of documents, their vectors in each field, and the file of its deleted documents, if any."""

    name: str
    n_docs: int
    n_deleted: int = 0
    deletes: str | None = None
    reordered: bool = False
    """Documents were reordered by recursive graph bisection."""
    parts: dict[str, PartRecord] = field(default_factory=dict)
    """Field name -> its vectors."""

    @property
    def n_live(self) -> int:
        """Documents that are not deleted."""
        return self.n_docs - self.n_deleted


@dataclass(frozen=True, kw_only=True)
class BuildState:
    """How far an unfinished build has come, so that it can continue."""

    sources: list[str]
    n_records: int
    """Records of the corpus that are dealt with, skipped ones included."""
    last_doc_id: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One committed state of an index."""

    generation: int = 0
    build_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Random identity of the index: a rebuild in the same folder has another one."""
    fields: dict[str, FieldRecord]
    """Vector fields by name."""
    search: str | None = None
    """Default search expression."""
    metadata: dict[str, str] = field(default_factory=dict)
    """Metadata field -> type."""
    corpus: dict[str, Any] | None = None
    """Which keys of a record hold id, title, text and metadata, as the index was built."""
    segments: list[SegmentRecord] = field(default_factory=list)
    build: BuildState | None = None

    @property
    def n_docs(self) -> int:
        """Live documents."""
        return sum(segment.n_live for segment in self.segments)

    def files(self) -> set[str]:
        """Names, relative to the index folder, of all files and folders in use."""
        names = {segment.name for segment in self.segments}
        names |= {segment.deletes for segment in self.segments if segment.deletes}
        names |= {part.folder for segment in self.segments for part in segment.parts.values()}
        for each in self.fields.values():
            names |= {piece.folder for piece in each.pieces} | set(each.state.get("vocabulary", ()))
            names |= {each.state["codec"]} if each.state.get("codec") else set()
        return names


def publish(folder: Path, manifest: Manifest) -> None:
    """Commit: replace the manifest atomically and durably. Raises StorageError when the disk refuses; it says what holds."""
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
        The manifest is damaged, foreign, or of another format version.
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
    version = record.get("version", 0)
    if version != FORMAT_VERSION:
        newer = isinstance(version, int) and version > FORMAT_VERSION
        advice = "upgrade lexmax" if newer else "an older lexmax wrote it: build the index again from its corpus"
        raise IndexFormatError(path, expected=f"index format version {FORMAT_VERSION}", found=version, advice=advice)
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
            fields={name: _field(each) for name, each in body.pop("fields").items()},
            segments=[_segment(each) for each in body.pop("segments")],
            build=BuildState(**build) if build else None,
            **body,
        )
    except (AttributeError, TypeError, KeyError) as failure:
        raise IndexFormatError(path, expected="the fields of a manifest", found=failure) from failure


def _field(body: dict[str, Any]) -> FieldRecord:
    if body["representation"] not in REPRESENTATIONS:
        raise KeyError(f"representation {body['representation']!r}, which this lexmax does not know")
    encoder, pieces = EncoderRecord(**body.pop("encoder")), [PartRecord(**piece) for piece in body.pop("pieces")]
    return FieldRecord(encoder=encoder, pieces=pieces, **body)


def _segment(body: dict[str, Any]) -> SegmentRecord:
    return SegmentRecord(parts={name: PartRecord(**part) for name, part in body.pop("parts").items()}, **body)
