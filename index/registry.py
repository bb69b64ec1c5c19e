"""The table of representations: which reader and which writer a vector field has. A new representation is one line here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .dense.config import DenseFieldConfig
from .dense.field import DenseField, DenseSegment
from .dense.part import DensePart
from .dense.quantiser import Quantiser
from .dense.writer import DenseWriter
from .errors import IndexFormatError
from .fde.config import FdeConfig
from .fde.encoding import read_encoding
from .fde.field import FdeField, FdeSegment
from .fde.field import dense_record as dense_record_of_encodings
from .fde.writer import FdeWriter
from .fields import Field, FieldSegment, Part
from .manifest import FieldRecord
from .multivector.field import TokenField, TokenSegment
from .multivector.residual import Codec
from .multivector.writer import TokenWriter, open_part
from .nets.config import NetFieldConfig
from .nets.field import NetField, NetSegment, dense_record
from .nets.writer import NetWriter
from .segments import Segment
from .sparse.field import SparseField, SparseSegment, SparseTokenField
from .sparse.inverted import InvertedIndex
from .sparse.sparse_tokens import SparseTokenIndex
from .sparse.vocabulary import Vocabulary
from .sparse.writer import INVERTED_NAME, SparseWriter
from .writing import BufferLimits, FieldWriter

AnyField = Field[Any]
OpenPart = Callable[[Path], Part]


@dataclass(frozen=True)
class Opening:
    """How a field is opened.

    Attributes
    ----------
    index : Path
    name : str
    record : FieldRecord
    segments : sequence of Segment
        Documents of the segments, with their records and deletes.
    previous : Field or None
        The same field of an earlier snapshot of the same index, whose files are used again.
    """

    index: Path
    name: str
    record: FieldRecord
    segments: Sequence[Segment]
    previous: AnyField | None = None

    def parts(self, kind: type[FieldSegment[Any]], open_part: OpenPart) -> list[Any]:
        """Open the field's part of each segment, or take it from the previous snapshot."""
        known = {} if self.previous is None else {each.record.folder: each.part for each in self.previous.segments}
        opened = []
        for segment in self.segments:
            record = segment.record.parts[self.name]
            part = known.get(record.folder) or open_part(self.index / record.folder)
            check_documents(self.index / record.folder, part, segment.n_docs)
            opened.append(kind(part, record, segment.base, segment.n_docs, segment.live))
        return opened


def check_documents(folder: Path, part: Part, n_docs: int) -> None:
    """Raise IndexFormatError unless a part has as many documents as its segment."""
    if part.n_docs != n_docs:
        raise IndexFormatError(folder, expected=f"{n_docs} documents", found=part.n_docs)


def _open_sparse(opening: Opening) -> SparseField:
    segments = opening.parts(SparseSegment, lambda folder: InvertedIndex(folder / INVERTED_NAME))
    return SparseField(opening.index, opening.name, opening.record, segments, _vocabulary(opening))


def _open_sparse_tokens(opening: Opening) -> SparseTokenField:
    segments = opening.parts(SparseSegment, SparseTokenIndex)
    return SparseTokenField(opening.index, opening.name, opening.record, segments, _vocabulary(opening))


def _open_tokens(opening: Opening) -> TokenField:
    record, previous = opening.record, opening.previous
    name, codec = record.state.get("codec"), None
    if isinstance(previous, TokenField) and previous.record.state.get("codec") == name:
        codec = previous.codec
    elif name:
        codec = Codec.read(opening.index / name)
    segments: list[TokenSegment] = []
    if codec is not None:
        field_codec, config = codec, TokenField(opening.index, opening.name, record, (), codec).config
        segments = opening.parts(TokenSegment, lambda folder: open_part(folder, field_codec, config))
    return TokenField(opening.index, opening.name, record, segments, codec)


def _open_dense(opening: Opening) -> DenseField:
    config, previous = DenseFieldConfig(**opening.record.options), opening.previous
    name, quantiser = opening.record.state.get("codec"), None
    if isinstance(previous, DenseField) and previous.record.state.get("codec") == name:
        quantiser = previous.quantiser
    elif name:
        quantiser = Quantiser.read(opening.index / name, config)
    segments = opening.parts(DenseSegment, lambda folder: DensePart(folder, config, quantiser))
    return DenseField(opening.index, opening.name, opening.record, segments, quantiser)


def _open_nets(opening: Opening) -> NetField:
    record, previous = opening.record, opening.previous
    known = previous.dense if isinstance(previous, NetField) else None
    dense = _open_dense(replace(opening, record=dense_record(record, NetFieldConfig(**record.options)), previous=known))
    return NetField(opening.index, opening.name, record, dense, previous if isinstance(previous, NetField) else None)


def _open_fde(opening: Opening) -> FdeField:
    record, previous = opening.record, opening.previous if isinstance(opening.previous, FdeField) else None
    known = None if previous is None else previous.dense
    dense = _open_dense(replace(opening, record=dense_record_of_encodings(record), previous=known))
    name, encoding = record.state.get("cells"), None
    if previous is not None and previous.record.state.get("cells") == name:
        encoding = previous.encoding
    elif name:
        encoding = read_encoding(opening.index / name, FdeConfig(**record.options["encoding"]))
    return FdeField(opening.index, opening.name, record, dense, encoding)


def _vocabulary(opening: Opening) -> Vocabulary:
    names = opening.record.state.get("vocabulary", [])
    previous = opening.previous
    if isinstance(previous, SparseField) and previous.record.state.get("vocabulary", []) == names:
        return previous.vocabulary
    return Vocabulary.open(opening.index, names)


@dataclass(frozen=True)
class Representation:
    """Reader and writer of one representation."""

    segment: type[FieldSegment[Any]]
    open_field: Callable[[Opening], AnyField]
    writer: Callable[[Path, str, FieldRecord, BufferLimits], FieldWriter]


TABLE: dict[str, Representation] = {
    "sparse": Representation(SparseSegment, _open_sparse, SparseWriter),
    "tokens": Representation(TokenSegment, _open_tokens, TokenWriter),
    "sparse-tokens": Representation(SparseSegment, _open_sparse_tokens, SparseWriter),
    "dense": Representation(DenseSegment, _open_dense, DenseWriter),
    "nets": Representation(NetSegment, _open_nets, NetWriter),
    "fde": Representation(FdeSegment, _open_fde, FdeWriter),
}


def open_field(opening: Opening) -> AnyField:
    """Open a field of a snapshot; raises IndexFormatError for damaged files."""
    return TABLE[opening.record.representation].open_field(opening)
