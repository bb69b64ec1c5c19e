"""Verify an index wholly: every checksum, and what must hold between its files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from . import manifest as manifests
from .errors import IndexFormatError, LexmaxError
from .manifest import Manifest
from .registry import AnyField, Opening, open_field
from .segments import Segment
from .sparse.field import SparseField


def check_index(path: Path | str) -> list[str]:
    """Return what is wrong with an index, one sentence per problem; empty when it is sound.

    Raises
    ------
    IndexNotFoundError
        There is no index.
    """
    folder = Path(path)
    try:
        manifest = manifests.read(folder)
    except IndexFormatError as problem:
        return [str(problem)]
    return list(dict.fromkeys(_problems(folder, manifest)))  # each segment reports a file that all share


def _problems(folder: Path, manifest: Manifest) -> Iterator[str]:
    segments: list[Segment] = []
    base = 0
    for record in manifest.segments:
        try:
            segment = Segment.open(folder, record, base)
            yield from _duplicates(segment, segments)
            segments.append(segment)
        except LexmaxError as problem:
            yield str(problem)
        base += record.n_docs
    for name, field in manifest.fields.items():
        filled = [segment for segment in segments if name in segment.record.parts]
        if field.complete and len(filled) < len(segments):
            yield f"{folder}: the field {name} is complete, but has no vectors in {len(segments) - len(filled)} segments"
        yield from _field_problems(Opening(folder, name, field, filled))


def _field_problems(opening: Opening) -> Iterator[str]:
    """Problems of a field; one segment after the other, so that a damaged part hides no other."""
    for group in [[segment] for segment in opening.segments] or [[]]:
        try:
            field = open_field(Opening(opening.index, opening.name, opening.record, group))
            yield from _part_problems(field)
        except LexmaxError as problem:
            yield str(problem)


def _part_problems(field: AnyField) -> Iterator[str]:
    for segment in field.segments:
        segment.part.check()
        found, expected = segment.part.n_entries, segment.record.n_postings + segment.record.n_tokens
        if found != expected:
            yield f"{field.path / segment.record.folder}: expected {expected} postings or tokens, found {found}"
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
