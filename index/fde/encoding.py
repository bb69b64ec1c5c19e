"""Encodings of token vectors: what all kinds share, and their files."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ..array_files import ArrayFile, ArrayFileWriter
from ..arrays import Floats
from ..representations import MultiVectors
from .config import FdeConfig
from .learnt import LearntEncoding
from .simhash import SimHashEncoding

KIND = "fde"


class Encoding(Protocol):
    """Encodes token vectors of texts; immutable, and safe to use from many threads.

    The inner product of a query's and a document's encoding estimates their MaxSim, up to a factor and a term that depend on
    the query alone: encodings order documents, and are no MaxSim.
    """

    @property
    def n_docs(self) -> int:
        """Documents that the field had when this was trained; 0: it depends on no document."""
        ...

    @property
    def n_bytes(self) -> int:
        """Size of the arrays in bytes."""
        ...

    def encode_documents(self, vectors: MultiVectors) -> Floats:
        """Encode documents, (n, dim) float32; a document without tokens comes after those that have some."""
        ...

    def encode_queries(self, vectors: MultiVectors) -> Floats:
        """Encode queries, (n, dim) float32; zeros for a query without tokens."""
        ...

    def add_to(self, out: ArrayFileWriter) -> None:
        """Write the arrays."""
        ...


def train_encoding(config: FdeConfig, sample: MultiVectors, n_docs: int) -> Encoding:
    """Make an encoding from a sample of ``n_docs`` documents; the same sample and config give the same encoding."""
    if config.cells == "simhash":
        return SimHashEncoding.random(config)
    return LearntEncoding.train(config, sample, n_docs)


def write_encoding(path: Path, encoding: Encoding) -> None:
    """Write an encoding's file."""
    with ArrayFileWriter(path, KIND) as out:
        encoding.add_to(out)


def read_encoding(path: Path, config: FdeConfig) -> Encoding:
    """Open an encoding's file; raises IndexFormatError when it is damaged or of another config."""
    kind = SimHashEncoding if config.cells == "simhash" else LearntEncoding
    return kind.read(ArrayFile(path, KIND), config)
