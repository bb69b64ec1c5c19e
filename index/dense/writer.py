"""How a dense field is written: vectors are buffered, rounded to the field's precision, and merged block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Int32s, Int64s
from ..errors import RepresentationError
from ..fields import Part
from ..manifest import FieldRecord, PartRecord
from ..representations import DenseVectors, Vectors
from ..storage import sync_folder
from ..writing import BufferLimits, NextName
from .config import DenseFieldConfig
from .field import DenseSegment
from .flat import BLOCK_ROWS, FILE_NAME, FlatPart, Kept, write_flat


class DenseWriter:
    """The writer of one field of dense vectors."""

    def __init__(self, index: Path, name: str, record: FieldRecord, limits: BufferLimits) -> None:
        self._index, self.name, self._limits = index, name, limits
        self._config = DenseFieldConfig(**record.options)
        self._vectors: list[Kept] = []
        self._n_vectors = 0

    @property
    def fullness(self) -> float:
        """Share of the buffer's limit that is used."""
        return self._n_vectors * self._config.dim / self._limits.n_numbers

    @property
    def leads_order(self) -> bool:
        """Documents are not reordered by dense vectors."""
        return False

    def size(self, record: PartRecord) -> float:
        """Return 0: a merge holds a block of vectors in memory, however large the part becomes."""
        return 0.0

    def check(self, vectors: Vectors) -> None:
        """Raise RepresentationError unless vectors are dense, of the field's dim, and fit its precision."""
        where, dim = f"{self._index}, field {self.name}", self._config.dim
        if not isinstance(vectors, DenseVectors):
            raise RepresentationError(f"{where}: the field holds dense vectors, not {type(vectors).__name__}")
        if vectors.dim != dim:
            raise RepresentationError(f"{where}: the field holds vectors of dim {dim}, not {vectors.dim}")
        limit = np.finfo(self._config.dtype).max
        largest = np.abs(vectors.vectors).max(initial=0)
        if largest > limit:
            raise RepresentationError(f"{where}: a number is {largest:.4g}, past float16: make the field with keep=float32")

    def extend(self, vectors: Vectors) -> None:
        """Buffer vectors that passed `check`."""
        if isinstance(vectors, DenseVectors):
            self._vectors.append(vectors.vectors.astype(self._config.dtype))
            self._n_vectors += len(vectors)

    def clear(self) -> None:
        """Forget what is buffered."""
        self._vectors, self._n_vectors = [], 0

    def flush(self, folder: str, earlier: Sequence[tuple[int, PartRecord]], *, more_to_come: bool) -> PartRecord:
        """Write what is buffered as a part and make it durable."""
        vectors, n_vectors = self._vectors, self._n_vectors
        self.clear()
        return self._write(folder, n_vectors, iter(vectors))

    def open(self, record: PartRecord) -> Part:
        """Open a part that `flush` or `merge` wrote."""
        return FlatPart(self._index / record.folder / FILE_NAME, self._config)

    def prepare(self, segments: Sequence[DenseSegment], *, compaction: bool = True) -> bool:
        """Return False: nothing is shared by parts."""
        return False

    def outgrown(self, records: Sequence[PartRecord]) -> bool:
        """Return False: nothing that segments share has to grow."""
        return False

    def order(self, segments: Sequence[DenseSegment]) -> Int32s:
        """Raise ValueError: documents are not ordered by dense vectors."""
        raise ValueError(f"{self._index}, field {self.name}: documents are reordered by a sparse field")

    def merge(self, folder: str, segments: Sequence[DenseSegment], order: Int32s | None) -> PartRecord:
        """Write the live documents of segments as one part and make it durable.

        Raises
        ------
        IndexFormatError
            A source is damaged: nothing is written over it.
        """
        for segment in segments:
            segment.part.verify()
        live = [_live(segment) for segment in segments]
        owners = np.repeat(np.arange(len(segments)), [len(positions) for positions in live])
        positions = np.concatenate([np.empty(0, np.int64), *live])
        if order is not None:
            owners, positions = owners[order], positions[order]
        return self._write(folder, len(positions), _gathered(segments, owners, positions, self._config))

    def finish(self, n_segments: int) -> None:
        """End a compaction that left ``n_segments`` segments."""

    def state(self, next_name: NextName) -> dict[str, Any]:
        """Return an empty state: nothing is shared by parts."""
        return {}

    def _write(self, folder: str, n_vectors: int, blocks: Iterator[Kept]) -> PartRecord:
        (self._index / folder).mkdir()
        write_flat(self._index / folder / FILE_NAME, n_vectors, blocks, self._config)
        sync_folder(self._index / folder)
        return PartRecord(folder=folder)


def _live(segment: DenseSegment) -> Int64s:
    return np.arange(segment.n_docs) if segment.live is None else np.flatnonzero(segment.live)


def _gathered(segments: Sequence[DenseSegment], owners: Int64s, positions: Int64s, config: DenseFieldConfig) -> Iterator[Kept]:
    """Blocks of vectors: the i-th is that of segment ``owners[i]`` at ``positions[i]``."""
    for first in range(0, len(positions), BLOCK_ROWS):
        owner, position = owners[first : first + BLOCK_ROWS], positions[first : first + BLOCK_ROWS]
        block = np.empty((len(position), config.dim), config.dtype)
        for number in np.unique(owner).tolist():
            chosen = owner == number
            block[chosen] = segments[number].part.kept(position[chosen])
        yield block
