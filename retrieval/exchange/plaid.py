"""PLAID indexes of Stanford's ColBERT and of fast-plaid, to a lexmax index: tokens are decoded as their searchers would.

Both keep the arrays of ColBERTv2's codec (`index.colbertv2`) chunk by chunk, with passages numbered in order (PLAID: arXiv
2205.09707)::

    metadata.json                   num_chunks, ...
    centroids | buckets             .pt of torch, or .npy; fast-plaid has bucket_cutoffs.npy and bucket_weights.npy
    doclens.0.json                  tokens of each passage of chunk 0
    0.codes | 0.residuals           centroids and packed residuals of its tokens
    merged_codes | merged_residuals .npy of fast-plaid 1.7 and later: those of all chunks, and some rows of padding
    collection.json                 of RAGatouille, if it is there: the texts in order
    pid_docid_map.json              of RAGatouille: the id of each passage's document
    plaid_ids_to_documents_ids      .pkl or .sqlite of PyLate, in this folder or the one above: the same

Lists of passages by centroid are not read: lexmax clusters the tokens anew.
"""

from __future__ import annotations

import json
import pickle
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...index.arrays import Int64s
from ...index.collection import BufferLimits
from ...index.documents import Document
from ...index.errors import DatasetError, IndexFormatError, MissingDependencyError, RepresentationError
from ...index.multivector.colbertv2 import ColbertV2Codec
from ...index.representations.multivectors import MultiVectors
from ..build import BuildReport
from ..corpora.passages import PARENT
from ..corpora.reading import Fields
from ..encoders.base import Encoder
from ..encoders.precomputed import TokenVectorsEncoder
from ..fields import FieldEncoder
from ..progress import Progress
from .importing import DocumentsById, read_ids, write_index

BATCH_TOKENS = 1 << 16
"""Tokens that are decoded at a time; a longer passage is decoded whole."""
METADATA_NAME, TEXTS_NAME = "metadata.json", "collection.json"
Array = npt.NDArray[Any]


def import_plaid(
    folder: Path | str, out: Path | str, *, encoder: Encoder | None = None, documents: Sequence[str] = (),
    fields: Fields | None = None, ids: Path | str | None = None, name: str = "vectors", field: str = "tokens",
    storage: Mapping[str, Any] | None = None, progress: Progress | None = None, limits: BufferLimits | None = None,
) -> BuildReport:  # fmt: skip
    """Build an index of token vectors from an index of Stanford's ColBERT or fast-plaid.

    Parameters
    ----------
    folder : Path or str
        The other program's index folder; it is only read.
    out : Path or str
        The index folder, made anew.
    encoder : Encoder or None
        What encodes queries from now on. That this model made the vectors cannot be verified beyond their dim: with another
        one, answers are meaningless. None: the index is searched by vectors alone.
    documents : sequence of str
        Corpora with the texts, found by id, as `corpus.read_corpus` takes them. Without any, texts are those that the folder
        itself holds, or empty.
    fields : Fields or None
        Which keys hold what in ``documents``.
    ids : Path, str or None
        A file with the id of each passage on a line of its own; None: the ids that RAGatouille or PyLate keeps beside the
        index, ``ID#1``, ``ID#2`` where a document has several passages; numbers from 0 where there are none.
    name : str
        What the vectors are called when there is no encoder, for the index's fingerprint.
    field : str
        Name of the field.
    storage : mapping or None
        ``nbits``, ``exact`` and ``n_centroids`` of the field; by default 2 bits to be searched, and nearly exact at 8 bits.
    progress : callable or None
        Called with the number of passages done.
    limits : BufferLimits or None
        Memory of the writer.

    Raises
    ------
    FileExistsError
        ``out`` holds an index.
    IndexFormatError
        A file of the folder is missing, or does not hold what it should.
    RepresentationError
        The encoder's vectors have another dim.
    DatasetError, DuplicateDocumentError
        Malformed documents, a passage without one, or ids that are too few, too many or come twice.
    MissingDependencyError
        Stanford's files need torch.
    """
    plaid = PlaidFolder(Path(folder))
    dim = getattr(encoder, "dim", None)
    if encoder is not None and dim != plaid.codec.dim:
        raise RepresentationError(
            f"{folder} holds token vectors of dim {plaid.codec.dim}, and {encoder.kind} makes some of dim {dim}: "
            "give the model that made them"
        )
    named = (
        plaid.names() if ids is None else [Document(doc_id=line, text="") for line in _read_ids(Path(ids), plaid.n_passages)]
    )
    texts = iter(plaid.texts()) if not documents else iter([""] * plaid.n_passages)
    passages = iter(named)
    batches: Iterator[Any] = (
        ([replace(next(passages), text=next(texts)) for _ in range(len(vectors))], vectors) for vectors in plaid.vectors()
    )
    if documents:
        batches = DocumentsById(documents, fields).of(batches)
    recorded = encoder or TokenVectorsEncoder(dim=plaid.codec.dim, name=name)
    new = FieldEncoder(recorded, storage or {}).new_field()
    return write_index(out, field, new, batches, progress=progress, limits=limits)


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Where the tokens of some passages are; ``first_row`` is theirs in the merged arrays."""

    number: int
    widths: Int64s
    first_row: int

    @property
    def n_tokens(self) -> int:
        return int(self.widths.sum())


class PlaidFolder:
    """An index folder of Stanford's ColBERT or of fast-plaid, opened for reading.

    Attributes
    ----------
    codec : ColbertV2Codec

    Raises
    ------
    IndexFormatError, MissingDependencyError
        As `import_plaid`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._torch = (path / "centroids.pt").exists()
        self._metadata = self._read_metadata()
        self.codec = self._read_codec()
        self._chunks = self._read_chunks()

    @property
    def n_passages(self) -> int:
        """Number of passages."""
        return sum(len(chunk.widths) for chunk in self._chunks)

    def vectors(self) -> Iterator[MultiVectors]:
        """Decode all passages in order, some at a time."""
        for chunk in self._chunks:
            codes, residuals = self._rows(chunk, "codes"), self._rows(chunk, "residuals")
            if not codes.size and not residuals.size:  # an empty array may have kept no width
                residuals = np.empty((0, self.codec.width), np.uint8)
            self._check(chunk, codes, residuals)
            offsets = np.concatenate([[0], np.cumsum(chunk.widths)]).astype(np.int64)
            first = 0
            while first < len(chunk.widths):
                last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + BATCH_TOKENS, side="right")) - 1)
                span = slice(int(offsets[first]), int(offsets[last]))
                tokens = self.codec.decode(codes[span], np.ascontiguousarray(residuals[span]))
                yield MultiVectors(offsets[first : last + 1] - offsets[first], tokens)
                first = last

    def texts(self) -> list[str]:
        """Return the passages' texts, empty ones when the folder does not hold them."""
        path = self.path / TEXTS_NAME
        if not path.exists():
            return [""] * self.n_passages
        texts = _read_json(path)
        if not isinstance(texts, list) or len(texts) != self.n_passages or not all(isinstance(text, str) for text in texts):
            raise IndexFormatError(path, expected=f"a list of {self.n_passages} strings", found="something else")
        return texts

    def names(self) -> list[Document]:
        """Return a document without text for each passage: with the id that is kept beside the index, else its number."""
        own = own_ids(self.path)
        if own is None:
            return [Document(doc_id=str(number), text="") for number in range(self.n_passages)]
        path, found = own
        if found.keys() != set(range(self.n_passages)):
            advice = "give the ids yourself (--ids)"
            expected = f"an id for each of {self.n_passages} passages"
            raise IndexFormatError(path, expected=expected, found=f"ids of {len(found)} passages", advice=advice)
        ids = [found[number] for number in range(self.n_passages)]
        n_passages, seen, documents = Counter(ids), Counter[str](), list[Document]()
        for doc_id in ids:
            seen[doc_id] += 1
            if n_passages[doc_id] == 1:
                documents.append(Document(doc_id=doc_id, text=""))
            else:
                documents.append(Document(doc_id=f"{doc_id}#{seen[doc_id]}", text="", metadata={PARENT: doc_id}))
        return documents

    def _read_metadata(self) -> dict[str, Any]:
        path = self.path / METADATA_NAME
        metadata = _read_json(path)
        n_chunks = metadata.get("num_chunks") if isinstance(metadata, dict) else None
        if type(n_chunks) is not int or n_chunks < 0:
            raise IndexFormatError(path, expected="a whole number num_chunks", found=n_chunks)
        return dict(metadata)

    def _read_codec(self) -> ColbertV2Codec:
        if self._torch:
            path = self._file("buckets")
            buckets = _read_torch(path)
            if not isinstance(buckets, tuple | list) or len(buckets) != 2:
                raise IndexFormatError(path, expected="two tensors, cutoffs and weights", found=type(buckets).__name__)
            cutoffs, weights = (_as_numpy(path, tensor) for tensor in buckets)
        else:
            path = self._file("bucket_cutoffs")
            cutoffs, weights = self._array("bucket_cutoffs"), self._array("bucket_weights")
        centroids = self._array("centroids")
        try:
            codec = ColbertV2Codec(*(array.astype(np.float32) for array in (centroids, cutoffs, weights)))
        except ValueError as failure:
            raise IndexFormatError(path, expected="buckets that fit the centroids beside them", found=failure) from failure
        stated = self._metadata if "nbits" in self._metadata else self._metadata.get("config")
        nbits = stated.get("nbits") if isinstance(stated, dict) else None
        if nbits not in (None, codec.nbits):
            raise IndexFormatError(path, expected=f"buckets of {nbits} bits", found=f"{codec.nbits} bits")
        return codec

    def _read_chunks(self) -> list[_Chunk]:
        chunks, first_row = [], 0
        for number in range(self._metadata["num_chunks"]):
            path = self.path / f"doclens.{number}.json"
            widths = _read_json(path)
            if not isinstance(widths, list) or not all(map(_is_count, widths)):
                raise IndexFormatError(path, expected="a list of whole numbers", found="something else")
            chunks.append(_Chunk(number, np.array(widths, np.int64), first_row))
            first_row += chunks[-1].n_tokens
        # num_embeddings is not asked: programs that add or delete leave it as it was. Each chunk's arrays have its tokens.
        stray = self.path / f"doclens.{len(chunks)}.json"
        if stray.exists():
            raise IndexFormatError(
                self.path / METADATA_NAME, expected=f"a num_chunks that counts {stray.name}", found=len(chunks)
            )
        return chunks

    def _rows(self, chunk: _Chunk, kind: str) -> Array:
        """Codes or residuals of a chunk, from a file of its own or from that of all chunks."""
        stem, merged = f"{chunk.number}.{kind}", f"merged_{kind}"
        if self._file(stem).exists() or not self._file(merged).exists():
            return self._array(stem)
        manifest = self.path / f"{merged}.manifest.json"
        if manifest.exists():
            entries = _read_json(manifest)
            for part in self._chunks[: chunk.number + 1]:
                entry = entries.get(f"{part.number}.{kind}.npy") if isinstance(entries, dict) else None
                rows = entry.get("rows") if isinstance(entry, dict) else None
                if rows != part.n_tokens:
                    advice = "an update was not finished: open the index with fast-plaid once"
                    expected = f"{part.n_tokens} rows of chunk {part.number}"
                    raise IndexFormatError(manifest, expected=expected, found=rows, advice=advice)
        return self._array(merged)[chunk.first_row : chunk.first_row + chunk.n_tokens]

    def _check(self, chunk: _Chunk, codes: Array, residuals: Array) -> None:
        n, codec = chunk.n_tokens, self.codec
        path = self._file(f"{chunk.number}.codes")
        if codes.shape != (n,) or codes.dtype.kind not in "iu":
            raise IndexFormatError(path, expected=f"{n} whole numbers", found=f"{codes.dtype} of shape {codes.shape}")
        if n and not 0 <= codes.min() <= codes.max() < len(codec.centroids):
            found = f"{codes.min()} to {codes.max()}"
            raise IndexFormatError(path, expected=f"centroids 0 to {len(codec.centroids) - 1}", found=found)
        if residuals.shape != (n, codec.width) or residuals.dtype != np.uint8:
            path = self._file(f"{chunk.number}.residuals")
            found = f"{residuals.dtype} of shape {residuals.shape}"
            raise IndexFormatError(path, expected=f"bytes of shape {(n, codec.width)}", found=found)

    def _array(self, stem: str) -> Array:
        path = self._file(stem)
        return _as_numpy(path, _read_torch(path)) if self._torch else _read_npy(path)

    def _file(self, stem: str) -> Path:
        return self.path / f"{stem}.{'pt' if self._torch else 'npy'}"


def own_ids(folder: Path) -> tuple[Path, dict[int, str]] | None:
    """File in which RAGatouille or PyLate keeps ids, and the id of each passage; None where there is no such file.

    Raises
    ------
    IndexFormatError
        The file does not hold ids by passage numbers.
    """
    readers: dict[str, Callable[[Path], Any]] = {
        "pid_docid_map.json": _read_json,
        "plaid_ids_to_documents_ids.pkl": lambda path: _unpickled(path, path.read_bytes()),
        "plaid_ids_to_documents_ids.sqlite": _read_sqlite,
    }
    places = (folder / name for name in readers), (folder.resolve().parent / name for name in readers)
    path = next((path for path in chain(*places) if path.is_file()), None)
    if path is None:
        return None
    content = readers[path.name](path)
    try:
        return path, {int(number): str(doc_id) for number, doc_id in content.items()}
    except (AttributeError, TypeError, ValueError) as failure:
        raise IndexFormatError(path, expected="ids by passage numbers", found=failure) from failure


class _Plain(pickle.Unpickler):
    """Unpickles numbers, strings, lists and dicts; nothing is imported, so nothing is ever run."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"an object of {module}.{name}")


def _unpickled(path: Path, content: bytes) -> Any:
    try:
        return _Plain(BytesIO(content)).load()
    except (pickle.UnpicklingError, ValueError, EOFError, KeyError, IndexError, AttributeError, TypeError) as failure:
        raise IndexFormatError(path, expected="a pickle of plain ids", found=failure) from failure


def _read_sqlite(path: Path) -> dict[str, Any]:
    """A SqliteDict: keys are text, values pickles."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            rows = database.execute("SELECT key, value FROM unnamed").fetchall()
    except sqlite3.Error as failure:
        raise IndexFormatError(path, expected="a table of ids", found=failure) from failure
    return {key: _unpickled(path, value) for key, value in rows}


def _is_count(width: Any) -> bool:
    return not isinstance(width, bool) and isinstance(width, int | float) and width >= 0 and width == int(width)


def _read_torch(path: Path) -> Any:
    """Tensors of a torch file; nothing else in it is ever run."""
    try:
        import torch
    except ImportError:
        raise MissingDependencyError("torch", "encode", "reading an index of Stanford's ColBERT") from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise IndexFormatError(path, expected="a torch file", found="nothing") from None
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError, OSError) as failure:
        raise IndexFormatError(path, expected="a torch file of tensors alone", found=type(failure).__name__) from failure


def _as_numpy(path: Path, tensor: Any) -> Array:
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise IndexFormatError(path, expected="a tensor", found=type(tensor).__name__)
    return np.asarray((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())


def _read_npy(path: Path) -> Array:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise IndexFormatError(path, expected="an array", found="nothing") from None
    except (ValueError, EOFError, OSError) as failure:
        raise IndexFormatError(path, expected="an array of numbers", found=failure) from failure
    if not isinstance(array, np.ndarray):
        raise IndexFormatError(path, expected="an array of numbers", found="an archive")
    return array


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        advice = "not an index of ColBERT or fast-plaid, or one whose build was not finished"
        raise IndexFormatError(path, expected="a JSON file", found="nothing", advice=advice) from None
    except (ValueError, OSError) as failure:
        raise IndexFormatError(path, expected="JSON", found=failure) from failure


def _read_ids(path: Path, n_passages: int) -> list[str]:
    ids = list(read_ids(path))
    if len(ids) != n_passages:
        raise DatasetError(f"{len(ids)} ids for {n_passages} passages", path=path)
    return ids
