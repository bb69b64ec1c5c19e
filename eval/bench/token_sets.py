"""What every engine of `lexmax bench multivector` is given: token vectors of documents and queries, from files or an index.

A folder of a set, which processes that build indexes read::

    tokens.npy (T, dim) f16 | token_ids.npy (T,) i64, if known | widths.npy (n,) i32: tokens of each document
    query_tokens.npy (Tq, dim) f32 | query_widths.npy (nq,) i32
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...index.arrays import Int64s
from ...index.errors import DatasetError, RepresentationError
from ...index.multivector.field import TokenField
from ...index.representations.multivectors import MultiVectors
from .fields import only_field, undeleted

DECODED_DOCS = 4096


@dataclass(frozen=True, eq=False)
class TokenSet:
    """Documents and queries as token vectors of unit length.

    Attributes
    ----------
    offsets : (n + 1,) int64
        Tokens of document ``i`` are ``offsets[i]:offsets[i + 1]``.
    tokens : (T, dim) float16
        16 bits are what every engine under comparison starts from.
    queries : MultiVectors
    token_ids : (T,) int64 or None
        Vocabulary number of each token, which tachiom clusters by.
    """

    offsets: Int64s
    tokens: npt.NDArray[np.float16]
    queries: MultiVectors
    token_ids: Int64s | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def rows(self, first: int, last: int) -> MultiVectors:
        """Documents ``first`` to ``last`` - 1."""
        span = slice(int(self.offsets[first]), int(self.offsets[last]))
        return MultiVectors(self.offsets[first : last + 1] - self.offsets[first], self.tokens[span].astype(np.float32))

    def save(self, folder: Path) -> None:
        """Write the arrays into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "tokens.npy", self.tokens)
        np.save(folder / "widths.npy", np.diff(self.offsets).astype(np.int32))
        np.save(folder / "query_tokens.npy", self.queries.tokens)
        np.save(folder / "query_widths.npy", np.diff(self.queries.offsets).astype(np.int32))
        if self.token_ids is not None:
            np.save(folder / "token_ids.npy", self.token_ids)

    @classmethod
    def load(cls, folder: Path) -> TokenSet:
        """Map what `save` wrote."""
        arrays = {path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in folder.glob("*.npy")}
        queries = MultiVectors(_offsets(arrays["query_widths"]), np.array(arrays["query_tokens"]))
        return cls(_offsets(arrays["widths"]), arrays["tokens"], queries, arrays.get("token_ids"))


def read_npz(path: Path | str, n_queries: int) -> TokenSet:
    """Read a set: ``offsets (n + 1,)``, ``tokens (T, dim)``, queries as `read_queries` takes them, ``token_ids (T,)`` if known.

    Raises
    ------
    DatasetError
        Arrays are missing or do not fit each other.
    """
    arrays = _arrays(path)
    try:
        offsets, tokens = arrays["offsets"].astype(np.int64), arrays["tokens"].astype(np.float16)
        found = TokenSet(offsets, tokens, _queries(arrays, n_queries), _token_ids(arrays, len(tokens)))
        for first in range(0, len(found), DECODED_DOCS):
            found.rows(first, min(first + DECODED_DOCS, len(found)))  # raises unless offsets fit and lengths are 1
    except (KeyError, IndexError, RepresentationError) as failure:
        raise DatasetError(f"not an NPZ with offsets, tokens and queries: {failure}", path=path) from failure
    if not len(found) or offsets[0] != 0 or offsets[-1] != len(tokens) or found.queries.dim != tokens.shape[1]:
        raise DatasetError("offsets, tokens and queries do not fit each other, or there are no documents", path=path)
    return found


def read_queries(path: Path | str, n_queries: int) -> MultiVectors:
    """Read up to ``n_queries`` from an NPZ: ``queries (n, tokens, dim)``, or ``(Tq, dim)`` with ``query_offsets (n + 1,)``.

    Raises
    ------
    DatasetError
        Arrays are missing or do not fit each other.
    """
    try:
        return _queries(_arrays(path), n_queries)
    except (KeyError, IndexError, RepresentationError) as failure:
        raise DatasetError(f"not an NPZ with queries: {failure}", path=path) from failure


def read_index(path: Path | str, queries: MultiVectors) -> TokenSet:
    """Decode the documents of an index, from 8 bits where it keeps them, in the order of its doc_nums.

    Raises
    ------
    RepresentationError
        The index holds sparse vectors, is empty, has deleted documents, or has another dim than the queries.
    """
    field = undeleted(only_field(path, TokenField, "token vectors"))
    codec = field.codec
    if codec is None:
        raise RepresentationError(f"{path} holds no token vectors: build one with a multi-vector encoder")
    if codec.dim != queries.dim:
        raise RepresentationError(f"queries of dim {queries.dim} for {path} of dim {codec.dim}")
    tokens, widths = [], []
    for segment in field.segments:
        part = segment.part
        widths.append(np.diff(part.offsets))
        for first in range(0, part.n_docs, DECODED_DOCS):
            decoded = part.tokens(codec, first, min(first + DECODED_DOCS, part.n_docs))
            lengths = np.maximum(np.linalg.norm(decoded, axis=1, keepdims=True), 1e-6)  # few bits miss unit length
            tokens.append((decoded / lengths).astype(np.float16))
    return TokenSet(_offsets(np.concatenate(widths)), np.concatenate(tokens), queries)


def _arrays(path: Path | str) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (ValueError, OSError, TypeError) as failure:
        raise DatasetError(f"not an NPZ file: {failure}", path=path) from failure


def _queries(arrays: dict[str, npt.NDArray[Any]], n: int) -> MultiVectors:
    queries = arrays["queries"].astype(np.float32)
    if queries.ndim == 3:
        widths = np.full(len(queries), queries.shape[1])
        queries = queries.reshape(-1, queries.shape[2])
    else:
        widths = np.diff(arrays["query_offsets"])
    offsets = _offsets(widths[:n])
    return MultiVectors(offsets, np.ascontiguousarray(queries[: offsets[-1]]))


def _token_ids(arrays: dict[str, npt.NDArray[Any]], n_tokens: int) -> Int64s | None:
    if "token_ids" not in arrays:
        return None
    if arrays["token_ids"].shape != (n_tokens,):
        raise IndexError(f"token_ids of shape {arrays['token_ids'].shape} for {n_tokens} tokens")
    return arrays["token_ids"].astype(np.int64)


def _offsets(widths: npt.NDArray[Any]) -> Int64s:
    return np.concatenate([[0], np.cumsum(widths, dtype=np.int64)]).astype(np.int64)
