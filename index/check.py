"""Verify an index wholly: every checksum, and what must hold inside files and between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import manifest as manifests
from .errors import IndexFormatError, LexmaxError, StorageError
from .fields import Part
from .manifest import FieldRecord, Manifest, PartRecord
from .multivector.field import TokenField
from .query_bank import read_bank
from .registry import TABLE, AnyField, Opening, open_field
from .segments import Segment
from .sparse.field import SparseField
from .writing import BufferLimits


def check_index(path: Path | str) -> list[str]:
    """Return what is wrong with an index, one sentence per problem; empty when it is sound.

    Raises
    ------
    IndexNotFoundError
        There is no index.
    StorageError
        The system refuses a file, descriptors or memory: not everything was looked at. Says what was found besides.
    """
    folder = Path(path)
    try:
        manifest = manifests.read(folder)
    except IndexFormatError as failure:
        return [str(failure)]
    found: list[str] = []
    files: set[str] = set()
    try:
        for problem in _problems(folder, manifest):
            file, _, expected = problem.partition(": expected ")
            if not expected or file not in files:  # the first of a file leads to the others
                found.append(problem)
                files.add(file)
    except StorageError as failure:
        besides = f"; problems so far: {'; '.join(found)}" if found else ""
        raise StorageError(f"could not look at everything: {failure}{besides}") from failure
    return found


def _problems(folder: Path, manifest: Manifest) -> Iterator[str]:
    for name, record in manifest.identities.items():
        yield from _told(manifests.check_identities, folder, replace(manifest, identities={name: record}))
    segments: list[Segment] = []
    base = 0
    for each in manifest.segments:
        try:
            segment = Segment.open(folder, each, base)
        except IndexFormatError as problem:
            yield str(problem)
        else:
            damage = list(_told(_check_documents, segment, manifest.metadata))
            yield from damage or _duplicates(segment, segments)
            segments.append(segment)
        base += each.n_docs
    for name in manifest.fields:
        yield from _field_problems(folder, name, manifest, segments)


def _told(check: Callable[..., object], *arguments: Any) -> Iterator[str]:
    """What a check raises."""
    try:
        check(*arguments)
    except StorageError:
        raise
    except LexmaxError as problem:
        yield str(problem)


def _check_documents(segment: Segment, types: dict[str, str]) -> None:
    documents = segment.documents
    documents.check(types)
    documents.doc_ids.check(documents.file.path.with_name("doc_ids.lex"))


def _field_problems(folder: Path, name: str, manifest: Manifest, segments: Sequence[Segment]) -> Iterator[str]:
    """Problems of a field; one segment after the other, so that a damaged part hides no other."""
    record = manifest.fields[name]
    filled = [segment for segment in segments if name in segment.record.parts]
    for group in [[segment] for segment in filled] or [[]]:
        try:
            field = open_field(Opening(folder, name, record, group))
        except IndexFormatError as problem:
            yield str(problem)
        else:
            yield from _told(_check_shared, field)
            for each in field.segments:
                yield from _part_problems(folder, each.part, each.record)
                yield from _unknown_terms(field, each)
    yield from _told(_check_pieces, folder, name, record, [each for each in segments if each not in filled])


def _check_shared(field: AnyField) -> None:
    """Check what all segments of a field share."""
    read_bank(field.path, field.record)
    if isinstance(field, SparseField):
        for table, name in zip(field.vocabulary.tables, field.record.state.get("vocabulary", ()), strict=True):
            table.check(field.path / name)
    elif isinstance(field, TokenField) and field.codec is not None:
        field.codec.check(field.path / field.record.state["codec"])


def _check_pieces(folder: Path, name: str, record: FieldRecord, unfilled: Sequence[Segment]) -> None:
    """Check the parts of a field that is being filled, which belong to the first segment without a part."""
    if not record.pieces:
        return
    writer = TABLE[record.representation].writer(folder, name, record, BufferLimits())
    n_docs = 0
    for piece in record.pieces:
        part = writer.open(piece)
        n_docs += part.n_docs
        for problem in _part_problems(folder, part, piece):
            raise IndexFormatError(folder / piece.folder, expected="a sound piece", found=problem)
    room = unfilled[0].n_docs if unfilled else 0
    if n_docs > room:
        raise IndexFormatError(folder / record.pieces[-1].folder, expected=f"pieces of {room} documents", found=n_docs)


def _part_problems(folder: Path, part: Part, record: PartRecord) -> Iterator[str]:
    yield from _told(part.check)
    for name, found in part.totals().items():
        if found != getattr(record, name):
            yield f"{folder / record.folder}: expected {name} {getattr(record, name)}, found {found}"


def _unknown_terms(field: AnyField, segment: Any) -> Iterator[str]:
    if isinstance(field, SparseField) and len(field.vocabulary) and len(segment.inverted.terms):
        last = int(segment.inverted.terms[-1])
        if last >= len(field.vocabulary):
            yield f"{segment.inverted.file.path}: names term {last} of {len(field.vocabulary)}"


def _duplicates(segment: Segment, earlier: Sequence[Segment]) -> Iterator[str]:
    """Live documents that another segment, or the same one, holds live too."""
    ids = segment.documents.doc_ids
    doc_ids = ids.to_arrow().to_pylist()
    live, name = segment.live, segment.record.name
    for position, found in enumerate(ids.find(doc_ids).tolist()):
        if found != position:
            yield f"{name}: doc_id {doc_ids[position]!r} is there twice"
    for other in earlier:
        for position, found in enumerate(other.find(doc_ids).tolist()):
            if found >= 0 and (live is None or live[position]):
                yield f"{name}: doc_id {doc_ids[position]!r} is live in {other.record.name} too"
