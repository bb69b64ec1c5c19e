"""Dense vectors that others made, from NumPy files to an index: ``.npy``, a matrix (n, dim) of floats, a row per document."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...index.collection import BufferLimits
from ...index.dense.config import MAX_VECTORS
from ...index.documents import Document
from ...index.errors import DatasetError, RepresentationError
from ...index.representations.dense import DenseVectors
from ..build import BuildReport
from ..corpora.reading import Fields
from ..encoders.base import DenseVectorEncoder
from ..encoders.precomputed import DenseVectorsEncoder
from ..fields import FieldEncoder
from ..progress import Progress
from .importing import DocumentsById, none_left, read_ids, write_index
from .vector_files import DocumentCheck

BATCH_NUMBERS = 1 << 22
Batch = tuple[list[Document], DenseVectors]


def import_dense(
    sources: Sequence[Path | str], out: Path | str, *, documents: Sequence[str] = (), fields: Fields | None = None,
    ids: Path | str | None = None, name: str = "vectors", field: str = "dense", encoder: DenseVectorEncoder | None = None,
    storage: Mapping[str, Any] | None = None, progress: Progress | None = None, limits: BufferLimits | None = None,
) -> BuildReport:  # fmt: skip
    """Build an index of a dense field from matrices: of all of them or, after an error, of none.

    Parameters
    ----------
    sources : sequence of Path or str
        NumPy files, each (n, dim) of 16-, 32- or 64-bit floats, or (n, m, dim) where a document has m vectors, of which the
        best counts; they are read a block at a time.
    out : Path or str
        The index folder, made anew.
    documents : sequence of str
        Corpora with the texts; see `importing.DocumentsById`.
    fields : Fields or None
        Which keys hold what in ``documents``.
    ids : Path, str or None
        Lines of ids for the rows; None: rows are numbered from 0, on through all files.
    name : str
        What made the vectors, for the fingerprint of a field without an encoder.
    field : str
        Name of the field.
    encoder : DenseVectorEncoder or None
        The model that made the vectors, which cannot be verified; it encodes queries.
    storage : mapping or None
        Settings of the field; see `index.dense.config.DenseFieldConfig`.
    progress : callable or None
        Called with the number of documents done.
    limits : BufferLimits or None
        Memory of the writer.

    Raises
    ------
    FileExistsError
        ``out`` holds an index.
    DatasetError, DuplicateDocumentError
        No such file, another kind of file, rows of another dim, a number that is not finite (path, and row from 1), rows
        without ids or documents, or ids without rows.
    RepresentationError
        The encoder makes vectors of another dim.
    ValueError
        Settings that a dense field does not have.
    """
    matrices = [(Path(source), _matrix(Path(source))) for source in sources]
    if not matrices or not sum(len(matrix) for _, matrix in matrices):
        raise DatasetError("there are no vectors", path=sources[0] if sources else None)
    shape = matrices[0][1].shape[1:]
    m, dim = shape if len(shape) == 2 else (1, *shape)
    for path, matrix in matrices:
        if matrix.shape[1:] != shape:
            found = " ".join([_described(*matrix.shape[1:]), "after", _described(*shape)])
            raise DatasetError(f"{found} in {sources[0]}", path=path)
    if not 1 <= m <= MAX_VECTORS:
        raise DatasetError(f"a document has 1 to {MAX_VECTORS} vectors, not {m}", path=sources[0])
    if encoder is not None and (encoder.dim, made := getattr(encoder, "vectors_per_doc", 1)) != (dim, m):
        raise RepresentationError(f"the encoder makes {_described(made, encoder.dim)}, {sources[0]} holds {_described(m, dim)}")
    lines = map(str, count()) if ids is None else read_ids(Path(ids))
    batches = _batches(matrices, lines, DocumentCheck(ids_only=bool(documents)))
    if documents:
        batches = DocumentsById(documents, fields).of(batches)
    if ids is not None:
        batches = _and_then(batches, none_left(lines, Path(ids)))
    new = FieldEncoder(encoder or DenseVectorsEncoder(dim=dim, name=name, vectors_per_doc=m), storage or {}).new_field()
    return write_index(out, field, new, batches, progress=progress, limits=limits, reorder=False)


def _described(*shape: int) -> str:
    """Say what a document has, of rows of a shape (dim,) or (m, dim)."""
    return (
        f"{shape[0]} vectors of {shape[1]} numbers" if len(shape) == 2 and shape[0] > 1 else f"a vector of {shape[-1]} numbers"
    )


def _matrix(path: Path) -> npt.NDArray[np.floating[Any]]:
    """Map a matrix of floats, or an array of matrices."""
    if not path.is_file():
        raise DatasetError("no such file", path=path)
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DatasetError(f"not a NumPy file: {error}", path=path) from error
    if not isinstance(matrix, np.ndarray) or matrix.ndim not in (2, 3) or matrix.dtype.kind != "f" or not matrix.shape[-1]:
        found = f"{matrix.dtype} {matrix.shape}" if isinstance(matrix, np.ndarray) else type(matrix).__name__
        raise DatasetError(f"dense vectors are a matrix (n, dim) of floats, or (n, m, dim), not {found}", path=path)
    return matrix


def _batches(
    matrices: Sequence[tuple[Path, npt.NDArray[np.floating[Any]]]], ids: Iterator[str], check: DocumentCheck
) -> Iterator[Batch]:
    for path, matrix in matrices:
        n_rows = max(1, BATCH_NUMBERS // math.prod(matrix.shape[1:]))
        for first in range(0, len(matrix), n_rows):
            with np.errstate(over="ignore"):  # what passes 32 bits becomes infinite, and is refused
                rows = np.array(matrix[first : first + n_rows], np.float32)
            block = rows.reshape(len(rows), -1)
            documents = [Document(doc_id=doc_id, text="") for doc_id in islice(ids, len(block))]
            if len(documents) < len(block):
                raise DatasetError("there is no id for this row", path=path, line=first + len(documents) + 1)
            for row, document in enumerate(documents, first + 1):
                check(document, path, row)
            finite = np.isfinite(block).all(axis=1)
            if not finite.all():
                raise DatasetError("a number is not finite", path=path, line=first + int(np.argmin(finite)) + 1)
            yield documents, DenseVectors(block)


def _and_then(batches: Iterator[Batch], end: Iterator[Any]) -> Iterator[Batch]:
    yield from batches
    yield from end
