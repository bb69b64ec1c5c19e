"""The manifest: the one file that names what an index is made of; replacing it is the commit.

``manifest.json`` names every other file of the index. All of those are written and synced before the manifest that names
them is renamed into place, and none is changed afterwards, so a reader that has read a manifest has a whole index.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import uuid
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .errors import IndexFormatError, IndexNotFoundError, RepresentationError, StorageError
from .preludes import ADVICE, FileRecord, read_record
from .refusals import storage_errors
from .storage import replace_file
from .typed import typed

FILE_NAME = "manifest.json"
SET_FILE_NAME = "shards.json"
"""In place of a manifest: the folder holds a set of shards, see `retrieval.shards`."""
FORMAT = "lexmax-index"
FORMAT_VERSION = 3
_UNSEALED_VERSIONS = (1, 2)
"""Of these the checksum covers the body alone."""
_FILE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
REPRESENTATIONS = ("sparse", "tokens", "sparse-tokens", "dense", "nets", "fde")


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
    n_postings, n_tokens, n_vectors : int
        Postings, token vectors, and dense vectors; 0 where the representation has none.
    total_length, average_length : int, float
        BM25: sum of the documents' lengths in tokens, and the average length that impacts were computed with; 0 otherwise.
    error : dict
        Measured quantisation error of impacts (`sparse.quantize`), or mean errors of token codes (`multivector.codes`).
    """

    folder: str
    n_postings: int = 0
    n_tokens: int = 0
    n_vectors: int = 0
    total_length: int = 0
    average_length: float = 0.0
    error: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FieldRecord:
    """A vector field: a named representation of all documents of the index.

    Attributes
    ----------
    representation : {"sparse", "tokens", "sparse-tokens", "dense", "nets", "fde"}
    encoder : EncoderRecord
    options : dict
        Fixed at creation. sparse: ``{"bm25": {"k1", "b"}}`` where the index weighs term counts; tokens and dense: the
        fields of `multivector.config.MultiVectorConfig` and of `dense.config.DenseFieldConfig`.
    state : dict
        Shared by all segments. sparse and sparse-tokens: ``scale`` and ``vocabulary`` (file names); tokens and dense: ``codec``
        (file name) and what was measured, ``calibration`` and ``audit``; dense and fde: ``bank`` (file name). ``shared``: whose
        codec and cells these are, of an index that others share them with and that never trains them again.
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
    identities: dict[str, FileRecord] = field(default_factory=dict)
    """Array file, by its path inside the index folder -> what tells it from others."""

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
            names |= {each.state[file] for file in ("codec", "cells", "bank") if each.state.get(file)}
        return names


def identified(folder: Path, manifest: Manifest, known: Manifest) -> Manifest:
    """Return the manifest with the identities of all its array files; those that ``known`` has are not read again."""
    names = sorted(name for name in _array_files(folder, manifest.files()))
    return replace(manifest, identities={name: known.identities.get(name) or read_record(folder / name) for name in names})


def _array_files(folder: Path, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        path = folder / name
        if name.endswith(".lex"):
            yield name
        else:  # not by a glob, which passes over what cannot be listed
            yield from (f"{name}/{each.name}" for each in path.iterdir() if each.suffix == ".lex")


def check_identities(folder: Path, manifest: Manifest, known: Manifest | None = None) -> None:
    """See that each array file is the one that was committed; those that ``known`` has were seen.

    Raises
    ------
    IndexFormatError
        A file is missing, damaged, or another one: of another segment, part, commit or index.
    StorageError
        A file cannot be read.
    """
    for name, record in manifest.identities.items():
        if known is None or known.identities.get(name) != record:
            found = read_record(folder / name)
            if found.id != record.id:
                advice = "the file was exchanged: restore it from a copy or build the index again"
                raise IndexFormatError(folder / name, expected=f"the file {record.id}", found=found.id, advice=advice)
            if found != record:
                raise IndexFormatError(folder / name, expected=f"{record.n_bytes} bytes", found=found.n_bytes, advice=ADVICE)


def publish(folder: Path, manifest: Manifest) -> None:
    """Commit: replace the manifest atomically and durably. Raises StorageError when the disk refuses; it says what holds."""
    record = {"format": FORMAT, "version": FORMAT_VERSION, "body": dataclasses.asdict(manifest)}
    record = {**record, "crc32": _checksum(record)}
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
    StorageError
        The system refuses to read it.
    """
    path = folder / FILE_NAME
    with storage_errors(path):
        try:
            record = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            if (folder / SET_FILE_NAME).exists():
                raise RepresentationError(
                    f"{folder} is a set of shards: this takes an index, such as one of its folders"
                ) from None
            raise IndexNotFoundError(folder) from None
        except (ValueError, RecursionError) as failure:
            raise IndexFormatError(path, expected="JSON", found=failure, advice=ADVICE) from failure
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise IndexFormatError(path, expected=f"format {FORMAT!r}", found="something else", advice="not a lexmax index")
    crc, version, body = record.pop("crc32", None), record.get("version"), record.get("body")
    if _checksum(record) != crc and not (version in _UNSEALED_VERSIONS and _checksum(body) == crc):
        raise IndexFormatError(path, expected=f"checksum {crc}", found=_checksum(record), advice=ADVICE)
    if version != FORMAT_VERSION:
        newer = isinstance(version, int) and version > FORMAT_VERSION
        advice = "upgrade lexmax" if newer else "an older lexmax wrote it: build the index again from its corpus"
        raise IndexFormatError(path, expected=f"index format version {FORMAT_VERSION}", found=version, advice=advice)
    return _parse(path, body)


def _checksum(value: Any) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def _state_problems(state: dict[str, Any]) -> Iterator[str]:
    vocabulary, codec, scale = state.get("vocabulary", []), state.get("codec"), state.get("scale")
    if not isinstance(vocabulary, list) or not all(isinstance(name, str) for name in vocabulary):
        yield "a vocabulary that is no list of files"
    if not all(isinstance(each, str | None) for each in (codec, state.get("cells"), state.get("bank"))):
        yield "a codec that is no file"
    if scale == 0:
        yield "the scale 0"
    if not isinstance(state.get("shared"), str | None):
        yield "shared state of no name"
    given = state.get("given", {})
    measured = (state.get("calibration"), state.get("audit"))
    if not isinstance(given, dict) or not all(isinstance(each, dict | None) for each in measured):
        yield "statistics that are no object"
    for number in (scale, *(given.values() if isinstance(given, dict) else ())):
        if not (number is None or (type(number) in (int, float) and 0 <= number < math.inf)):
            yield f"the statistic {str(number)[:30]}"


def _option_problems(record: FieldRecord) -> Iterator[str]:
    from .dense.config import DenseFieldConfig
    from .fde.config import check_options
    from .multivector.config import MultiVectorConfig  # they import what reads fields
    from .nets.config import NetFieldConfig
    from .sparse.bm25 import Bm25

    bm25 = record.options.get("bm25")
    try:
        if record.representation == "tokens":
            MultiVectorConfig(**record.options)
        elif record.representation == "dense":
            DenseFieldConfig(**record.options)
        elif record.representation == "nets":
            NetFieldConfig(**record.options)
        elif record.representation == "fde":
            check_options(**record.options)
        elif bm25 is not None:
            Bm25(**bm25)
    except (TypeError, ValueError) as problem:
        yield f"options of another kind of field ({problem})"


def _parse(path: Path, body: Any) -> Manifest:
    """Check types and names, on which paths and further reading depend."""
    try:
        manifest = typed(Manifest, body, "body")
        if "build_id" not in body:  # a new one at each reading would look like commits that never end
            raise ValueError("body has no build_id")
        for problem in _problems(manifest):
            raise ValueError(problem)
    except (ValueError, RecursionError) as failure:
        raise IndexFormatError(path, expected="a manifest", found=failure, advice=ADVICE) from failure
    return manifest


def _problems(manifest: Manifest) -> Iterator[str]:
    """What no commit writes."""
    from .metadata import ARROW_TYPES  # with pyarrow, which is imported when documents are read

    for name, each in manifest.fields.items():
        problems = [*_state_problems(each.state), *_option_problems(each)]
        yield from (f"the field {name} with {problem}" for problem in problems)
    if not _FILE_NAME.fullmatch(f"x{manifest.build_id}"):  # names of new files contain it
        yield f"the build_id {manifest.build_id!r}"
    for name in manifest.identities:
        if not all(_FILE_NAME.fullmatch(part) for part in name.split("/")):
            yield f"the file name {name!r}"
    for name in manifest.files():
        if not _FILE_NAME.fullmatch(name):
            yield f"the file name {name!r}"
        elif not any(known.split("/")[0] == name for known in manifest.identities):
            yield f"no identity of {name}"
    for name, each in manifest.fields.items():
        if not FIELD_NAME.fullmatch(name) or each.representation not in REPRESENTATIONS:
            yield f"a field {name!r} of {each.representation!r} vectors"
        if each.complete and any(name not in segment.parts for segment in manifest.segments):
            yield f"no vectors of the field {name} in some segments"
    for name, kind in manifest.metadata.items():
        if kind not in ARROW_TYPES:
            yield f"metadata {name!r} of type {kind!r}"
    for segment in manifest.segments:
        if not segment.n_deleted <= segment.n_docs > 0 or (segment.n_deleted and segment.deletes is None):
            yield f"{segment.n_docs} documents in {segment.name}, {segment.n_deleted} deleted"
        if unknown := set(segment.parts) - set(manifest.fields):
            yield f"vectors of an unknown field {min(unknown)!r} in {segment.name}"
