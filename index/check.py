"""Verify an index wholly: every checksum, and what must hold between its files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from . import manifest as manifests
from .errors import IndexFormatError, LexmaxError
from .manifest import Manifest, SegmentRecord
from .multivector.residual import Codec
from .segments import Segment
from .snapshot import open_codec, open_segment
from .sparse.vocabulary import Vocabulary


def check_index(path: Path | str) -> list[str]:
    """Return what is wrong with an index, a sentence a problem; empty when it is sound.

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
    return list(_problems(folder, manifest))


def _problems(folder: Path, manifest: Manifest) -> Iterator[str]:
    n_terms = codec = None
    try:
        codec = open_codec(folder, manifest, verify=True)
        n_terms = len(Vocabulary.open(folder, manifest.vocabulary, verify=True))
    except LexmaxError as problem:
        yield str(problem)
    if manifest.codec is not None and codec is None:
        return  # segments of token vectors cannot be read without it
    base = 0
    seen: list[Segment] = []
    for record in manifest.segments:
        try:
            segment = _checked_segment(folder, manifest, record, base, codec)
        except LexmaxError as problem:
            yield str(problem)
            continue
        finally:
            base += record.n_docs
        if manifest.multivector is None and n_terms and len(segment.inverted.terms):
            last = segment.inverted.terms[-1]
            if last >= n_terms:
                yield f"{segment.inverted.file.path}: names term {last} of {n_terms}"
        yield from _duplicates(segment, seen)
        seen.append(segment)


def _checked_segment(folder: Path, manifest: Manifest, record: SegmentRecord, base: int, codec: Codec | None) -> Segment:
    segment = open_segment(folder, manifest, record, base, codec, verify=True)
    segment.vectors.check()
    found, expected = segment.vectors.n_entries, record.n_postings + record.n_tokens
    if found != expected:
        raise IndexFormatError(folder / record.name, expected=f"{expected} postings or tokens", found=found)
    return segment


def _duplicates(segment: Segment, earlier: list[Segment]) -> Iterator[str]:
    """Live documents that another segment, or the same one, holds live too."""
    ids = segment.documents.doc_ids
    doc_ids = ids.to_arrow().to_pylist()
    positions = ids.find(doc_ids).tolist()
    live = segment.live
    for position, found in enumerate(positions):
        if found != position:
            yield f"{segment.record.name}: doc_id {doc_ids[position]!r} is there twice"
    for other in earlier:
        for position, found in enumerate(other.find(doc_ids).tolist()):
            if found >= 0 and (live is None or live[position]):
                yield f"{segment.record.name}: doc_id {doc_ids[position]!r} is live in {other.record.name} too"
