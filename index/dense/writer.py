"""How a dense field is written: vectors are buffered at the field's precision, and merged block by block.

Lists and codes need a quantiser, which is trained on a sample once the field has enough documents: by the flush or the commit
that sees them, and again by a compaction, or by the commit of a small field, that finds four times as many. Parts that were
written before are flat.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Int32s, Int64s
from ..errors import RepresentationError
from ..fields import Part
from ..manifest import FieldRecord, PartRecord
from ..representations import DenseVectors, Vectors
from ..storage import sync_folder
from ..writing import BufferLimits, NextName, shared_name
from .config import GRAPH_VECTORS, MAX_LENGTH, DenseFieldConfig
from .field import DenseSegment
from .graph import write_graph
from .lists import ListsWriter, code_width
from .ordering import insertion_order
from .part import FILE_NAME, DensePart, Gather, write_rows
from .quantiser import Quantiser
from .rows import Rows, block_rows, decode, encode, lengths
from .training import sample_size, train

OUTGROWN = 4
"""The quantiser is trained again for this many times the vectors it was made for."""
RETRAINED_VECTORS = 1 << 18
"""A commit trains the quantiser of a field of at most so many; compaction that of any."""
MORE_TO_COME = 4
"""Lists are made for this many times the vectors at hand when a build goes on after its first part."""


class DenseWriter:
    """The writer of one field of dense vectors."""

    def __init__(self, index: Path, name: str, record: FieldRecord, limits: BufferLimits) -> None:
        self._index, self.name, self._limits = index, name, limits
        self._config = DenseFieldConfig(**record.options)
        self._codec_name: str | None = record.state.get("codec")
        self._quantiser = Quantiser.read(index / self._codec_name, self._config) if self._codec_name else None
        self._new_quantiser: Quantiser | None = None
        self._shared: str | None = record.state.get("shared")
        self._unsaved = False
        self._blocks: list[Rows] = []
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
        """Raise RepresentationError unless vectors are dense, of the field's dim, and fit its precision.

        A document of several vectors has them one after the other in its row.
        """
        where, m = f"{self._index}, field {self.name}", self._config.vectors_per_doc
        dim = m * self._config.dim
        if not isinstance(vectors, DenseVectors):
            raise RepresentationError(f"{where}: the field holds dense vectors, not {type(vectors).__name__}")
        if vectors.dim != dim:
            held = f"vectors of dim {dim}" if m == 1 else f"{m} vectors of dim {dim // m} per document, {dim} numbers"
            raise RepresentationError(f"{where}: the field holds {held}, not {vectors.dim}")
        largest = np.abs(vectors.vectors).max(initial=0)
        if self._config.keep == "float16" and largest > np.finfo(np.float16).max:
            raise RepresentationError(f"{where}: a number is {largest:.4g}, past float16: make the field with keep=float32")
        if largest * dim**0.5 > MAX_LENGTH:
            raise RepresentationError(
                f"{where}: a number is {largest:.4g}: vectors may be {MAX_LENGTH:.0e} long, so scale them"
            )

    def extend(self, vectors: Vectors) -> None:
        """Buffer vectors that passed `check`."""
        if isinstance(vectors, DenseVectors):
            self._blocks.append(encode(vectors.vectors.reshape(-1, self._config.dim), self._config.keep))
            self._n_vectors += len(self._blocks[-1])

    def clear(self) -> None:
        """Forget what is buffered."""
        self._blocks, self._n_vectors = [], 0

    def flush(self, folder: str, earlier: Sequence[tuple[int, PartRecord]], *, more_to_come: bool) -> PartRecord:
        """Write what is buffered as a part and make it durable; the first part that is large enough makes the quantiser."""
        blocks, n_vectors = self._blocks, self._n_vectors
        self.clear()
        owners = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
        positions = np.concatenate([np.empty(0, np.int64), *(np.arange(len(block)) for block in blocks)])
        gather = _Gathered([block.__getitem__ for block in blocks], owners, positions).gather
        if self._quantiser is None:
            n_expected = int(n_vectors * (MORE_TO_COME if more_to_come else self._limits.growth))
            self._quantiser = self._trained(gather, n_vectors, n_expected)
            self._unsaved = self._quantiser is not None
        return self._write(folder, n_vectors, gather, self._quantiser)

    def open(self, record: PartRecord) -> Part:
        """Open a part that `flush` or `merge` wrote."""
        return DensePart(self._index / record.folder, self._config, self._new_quantiser or self._quantiser)

    def prepare(self, segments: Sequence[DenseSegment], *, compaction: bool = True) -> bool:
        """Train the quantiser when it is time; whether parts must be written again, with it or with a graph.

        Raises
        ------
        IndexFormatError
            A part is damaged, or holds numbers that are not finite.
        """
        self._new_quantiser = None
        if not compaction:
            return False
        live = self._live(segments, None)
        n_vectors, quantiser = len(live.owners), self._quantiser
        if quantiser is None or (not self._shared and n_vectors >= OUTGROWN * quantiser.n_trained):
            for segment in segments:
                segment.part.check()  # training takes numbers for finite
            self._new_quantiser = self._trained(live.gather, n_vectors, n_vectors)
        wanted = "flat" if self._new_quantiser is None and quantiser is None else "listed"
        return self._new_quantiser is not None or any(
            (wanted == "listed" and segment.part.lists is None)
            or (self._has_graph(segment.part.n_vectors) and segment.part.graph is None)
            for segment in segments
        )

    def outgrown(self, records: Sequence[PartRecord]) -> bool:
        """Whether a small field has become large enough for its lists and codes, or for more of them."""
        n_vectors, quantiser = sum(record.n_vectors for record in records), self._quantiser
        if n_vectors > RETRAINED_VECTORS or not self._config.lists_of(n_vectors):
            return False
        return quantiser is None or (not self._shared and n_vectors >= OUTGROWN * quantiser.n_trained)

    def order(self, segments: Sequence[DenseSegment]) -> Int32s:
        """Raise ValueError: documents are not ordered by dense vectors."""
        raise ValueError(f"{self._index}, field {self.name}: documents are reordered by a sparse field")

    def merge(self, folder: str, segments: Sequence[DenseSegment], order: Int32s | None) -> PartRecord:
        """Write the live documents of segments as one part and make it durable.

        Raises
        ------
        IndexFormatError
            A source is damaged, or holds numbers that are not finite: nothing is written over it.
        """
        for segment in segments:
            segment.part.check()
        live = self._live(segments, order)
        return self._write(folder, len(live.owners), live.gather, self._new_quantiser or self._quantiser)

    def finish(self, n_segments: int) -> None:
        """End a compaction: a new quantiser takes over, and an empty field forgets one of its own."""
        if not n_segments and not self._shared:
            self._quantiser, self._codec_name, self._unsaved = None, None, False
        elif self._new_quantiser is not None:
            self._quantiser, self._unsaved = self._new_quantiser, True
        self._new_quantiser = None

    def share(self, folder: Path, record: FieldRecord) -> None:
        """Take the quantiser of the same field of another index, for good; where that has none yet, this trains its own."""
        if record.state.get("codec"):
            self._quantiser = Quantiser.read(folder / record.state["codec"], self._config)
            self._shared, self._unsaved = shared_name(folder, record), True

    def state(self, next_name: NextName) -> dict[str, Any]:
        """Write the quantiser when it is new; return the field's state for the manifest."""
        if self._unsaved and self._quantiser is not None:
            self._codec_name, self._unsaved = next_name("codec") + ".lex", False
            self._quantiser.write(self._index / self._codec_name)
        return {"codec": self._codec_name, **({"shared": self._shared} if self._shared else {})}

    def _has_graph(self, n_vectors: int) -> bool:
        return self._config.structure == "hnsw" and n_vectors >= GRAPH_VECTORS

    def _live(self, segments: Sequence[DenseSegment], order: Int32s | None) -> _Gathered:
        """The vectors of the segments' live documents, these in an order."""
        live = [np.arange(each.n_docs) if each.live is None else np.flatnonzero(each.live) for each in segments]
        owners = np.repeat(np.arange(len(segments)), [len(positions) for positions in live])
        positions = np.concatenate([np.empty(0, np.int64), *live])
        if order is not None:
            owners, positions = owners[order], positions[order]
        m = self._config.vectors_per_doc
        numbers = (positions[:, None] * m + np.arange(m)).reshape(-1)
        return _Gathered([segment.part.kept for segment in segments], np.repeat(owners, m), numbers)

    def _trained(self, gather: Gather, n_sampled: int, n_vectors: int) -> Quantiser | None:
        """Train on some of the first ``n_sampled`` vectors, for ``n_vectors``; None when those are too few."""
        n_lists = self._config.lists_of(n_vectors)
        if not n_lists or not self._config.lists_of(n_sampled):
            return None
        size = min(n_sampled, sample_size(n_lists, self._config))
        picked = np.sort(np.random.default_rng(1).choice(n_sampled, size, replace=False))
        sample = np.empty((size, self._config.dim), np.float32)
        for first in range(0, size, block_rows(self._config.dim)):
            numbers = picked[first : first + block_rows(self._config.dim)]
            sample[first : first + len(numbers)] = decode(gather(numbers))
        return train(sample, n_lists, n_vectors, self._config)

    def _write(self, folder: str, n_vectors: int, gather: Gather, quantiser: Quantiser | None) -> PartRecord:
        place = self._index / folder
        place.mkdir()
        if quantiser is not None:
            self._write_listed(place, n_vectors, gather, quantiser)
        else:
            for _ in write_rows(place / FILE_NAME, np.arange(n_vectors), gather, self._config, listed=False):
                pass
        if self._has_graph(n_vectors):
            self._write_graph(place)
        sync_folder(place)
        return PartRecord(folder=folder, n_vectors=n_vectors)

    def _write_listed(self, place: Path, n_vectors: int, gather: Gather, quantiser: Quantiser) -> None:
        """Write rows in the order of lists, their codes beside them."""
        config, lists = self._config, np.empty(n_vectors, np.int64)
        for first in range(0, n_vectors if quantiser.n_lists > 1 else 0, block_rows(config.dim)):
            numbers = np.arange(first, min(first + block_rows(config.dim), n_vectors))
            lists[numbers] = quantiser.assign(decode(gather(numbers)))
        if quantiser.n_lists == 1:
            lists[:] = 0
        order = np.argsort(lists, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(lists, minlength=quantiser.n_lists))]).astype(np.int64)
        blocks = write_rows(place / FILE_NAME, order, gather, config, listed=quantiser.n_lists > 1)
        with ListsWriter(place) as out:
            out.add("starts", starts)
            if config.quantise == "none":
                for _ in blocks:
                    pass
                return
            with out.stream("codes", shape=(n_vectors, code_width(config))) as sink:
                first = 0
                for block in blocks:
                    owners = lists[order[first : first + len(block)]]
                    sink.write(np.ascontiguousarray(quantiser.encode(decode(block), owners, config)).data)
                    first += len(block)

    def _write_graph(self, place: Path) -> None:
        """Build a graph over the rows that were written."""
        part = DensePart(place, self._config)
        part.verify()
        norms = np.concatenate([lengths(decode(block)) for block in _blocks_of(part, self._config.dim)])
        extras = np.sqrt(np.maximum(0, np.float32(part.longest) ** 2 - norms**2)).astype(np.float32)
        order = insertion_order(part, self._config)
        write_graph(place, part.file.checked, part.rows, extras, order, self._config)


def _blocks_of(part: DensePart, dim: int) -> Iterator[Rows]:
    for first in range(0, part.n_vectors, block_rows(dim)):
        yield part.rows[first : first + block_rows(dim)]


class _Gathered(NamedTuple):
    """Rows by number: the i-th is that of source ``owners[i]`` at ``positions[i]``."""

    sources: Sequence[Gather]
    owners: Int64s
    positions: Int64s

    def gather(self, numbers: Int64s) -> Rows:
        """Rows of some numbers."""
        owner, position = self.owners[numbers], self.positions[numbers]
        chosen = [(each, owner == each) for each in np.unique(owner).tolist()]
        found = [(mask, self.sources[each](position[mask])) for each, mask in chosen]
        rows = np.empty((len(numbers), found[0][1].shape[1]), found[0][1].dtype)
        for mask, some in found:
            rows[mask] = some
        return rows
