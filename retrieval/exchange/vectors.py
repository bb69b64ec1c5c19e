"""Sparse vectors that others made, in memory: any encoder's output is indexed and searched without its model.

`to_sparse_vectors` takes what other libraries give. Files are the matter of `vector_files`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...index.arrays import Int64s
from ...index.errors import RepresentationError
from ...index.representations.sparse import SparseVectors

MAX_TERM = (1 << 27) - 1
"""Largest term number that is taken: an index makes tables as long as its largest one."""


class Rows(NamedTuple):
    """Rows that nobody has checked: terms in any order, weights of any size; ``names`` are the strings of the term numbers."""

    indptr: Int64s
    terms: Int64s
    weights: npt.NDArray[Any]
    names: list[str] | None = None


class RowError(Exception):
    """What is wrong with a row; those who know where the row stands make a `LexmaxError` of it."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(reason)
        self.row = row


def to_sparse_vectors(x: object) -> SparseVectors:
    """Make `SparseVectors` of what other libraries give.

    Parameters
    ----------
    x : SparseVectors, SciPy sparse matrix or array, numpy array, torch tensor (sparse or not), or sequence of rows
        Two-dimensional, or one vector. A row of a sequence is a mapping of term -> weight or a sequence of such pairs; terms
        are all numbers or all strings, and strings become the vocabulary of the result. Entries that a sparse matrix names
        twice are summed, as its library does.

    Raises
    ------
    TypeError
        ``x`` is none of these.
    RepresentationError
        More than two dimensions, a weight that is negative or not finite, or a bad term; says in which row.
    """
    if isinstance(x, SparseVectors):
        return x
    try:
        return checked(_rows_of(x))
    except RowError as problem:
        raise RepresentationError(f"row {problem.row}: {problem}") from None


def _rows_of(x: Any) -> Rows:
    if isinstance(x, np.ndarray):
        return _dense_rows(x)
    if hasattr(x, "tocsr"):
        _check_real(x.dtype)
        x = x.tocsr()
        if not x.has_canonical_format:
            x = x.copy()
            x.sum_duplicates()
        return Rows(x.indptr.astype(np.int64), x.indices.astype(np.int64), x.data)
    if type(x).__module__.partition(".")[0] == "torch":
        return _torch_rows(x.detach().cpu())
    if isinstance(x, Sequence) and not isinstance(x, str | bytes):
        return pair_rows(x)
    raise TypeError(
        f"no sparse vectors can be made of {type(x).__name__}: give a SciPy, numpy or torch matrix, or a list of dicts"
    )


def _dense_rows(x: npt.NDArray[Any]) -> Rows:
    if x.ndim not in (1, 2):
        raise RepresentationError(f"vectors are 2-d, or one of 1-d, not {x.ndim}-d")
    _check_real(x.dtype)
    x = np.atleast_2d(x)
    rows, terms = np.nonzero(x)
    return Rows(_indptr(rows, len(x)), terms, x[rows, terms])


def _check_real(dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "biuf":
        raise TypeError(f"weights must be real numbers, not {dtype}")


def _torch_rows(x: Any) -> Rows:
    """Rows of a tensor on the CPU; its methods are called, torch is never imported."""
    if str(x.layout) == "torch.sparse_csr":
        return Rows(x.crow_indices().long().numpy(), x.col_indices().long().numpy(), x.values().float().numpy())
    if not x.is_sparse:
        return _dense_rows(x.float().numpy())
    if x.ndim not in (1, 2):
        raise RepresentationError(f"vectors are 2-d, or one of 1-d, not {x.ndim}-d")
    x = (x if x.ndim == 2 else x.unsqueeze(0)).coalesce()
    rows, terms = x.indices().numpy()
    return Rows(_indptr(rows, x.shape[0]), terms, x.values().float().numpy())


def pair_rows(rows: Sequence[Any]) -> Rows:
    """Rows of mappings or pairs, whose terms are all strings or all numbers."""
    widths: list[int] = [0]
    terms: list[Any] = []
    weights: list[Any] = []
    for number, row in enumerate(rows):
        pairs = row if isinstance(row, Mapping) else _as_mapping(row, number)
        widths.append(len(pairs))
        terms += pairs.keys()
        weights += pairs.values()
    indptr = np.cumsum(widths, dtype=np.int64)
    kinds = {type(weight) for weight in weights}
    if bad := {kind for kind in kinds if issubclass(kind, bool) or not issubclass(kind, Real)}:
        at = next(i for i, weight in enumerate(weights) if type(weight) in bad)
        raise RowError(row_at(indptr, at), f"the weight {weights[at]!r} of term {terms[at]!r} is no number")
    try:
        floats = np.array(weights, np.float64)
    except OverflowError:  # a whole number of more than 308 digits
        floats = np.array([weight if abs(weight) < 1e300 else np.inf for weight in weights], np.float64)
    numbers, names = _numbered(indptr, terms)
    return Rows(indptr, numbers, floats, names)


def _as_mapping(row: Any, number: int) -> Mapping[Any, Any]:
    try:
        pairs = list(row)
        mapping = dict(pairs)
    except (TypeError, ValueError):
        raise RowError(number, f"expected a mapping of term -> weight or pairs of them, found {repr(row)[:40]}") from None
    if len(mapping) < len(pairs):
        raise RowError(number, "a term comes twice")
    return mapping


def _numbered(indptr: Int64s, terms: list[Any]) -> tuple[Int64s, list[str] | None]:
    """Term numbers, and what they stand for when the terms are strings."""
    kinds = {type(term) for term in terms}
    if kinds == {str}:
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(term, len(numbers)) for term in terms], np.int64), list(numbers)
    if all(issubclass(kind, Integral) for kind in kinds):
        try:
            return np.array(terms, np.int64), None
        except OverflowError:
            at = next(i for i, term in enumerate(terms) if not 0 <= term <= MAX_TERM)
            raise RowError(row_at(indptr, at), f"term {terms[at]} is not within 0..{MAX_TERM}") from None
    first = type(terms[0])
    at = next((i for i, term in enumerate(terms) if type(term) is not first), 0)
    raise RowError(row_at(indptr, at), f"term {terms[at]!r}: terms are all strings or all whole numbers")


def checked(rows: Rows) -> SparseVectors:
    """Check every weight and term, drop zeros, and bring the terms of each row in order; raises RowError."""
    indptr, terms, names = rows.indptr, rows.terms, rows.names
    with np.errstate(over="ignore"):
        weights = rows.weights.astype(np.float32)
    bad = np.flatnonzero(~(weights >= 0) | np.isinf(weights) | (terms < 0) | (terms > MAX_TERM))
    if len(bad):
        at = int(bad[0])
        reason = f"term {names[terms[at]]!r}" if names else f"term {terms[at]}"
        if 0 <= terms[at] <= MAX_TERM:
            reason += f" has weight {rows.weights[at]}: weights must be finite and not negative"
        else:
            reason += f" is not within 0..{MAX_TERM}: give term strings for larger vocabularies"
        raise RowError(row_at(indptr, at), reason)
    owners = np.repeat(np.arange(len(indptr) - 1, dtype=np.int64), np.diff(indptr))
    kept = weights > 0
    owners, keys, weights = owners[kept], (owners << 32 | terms)[kept], weights[kept]
    if np.any(keys[1:] < keys[:-1]):
        order = np.argsort(keys, kind="stable")
        keys, weights = keys[order], weights[order]
    twice = np.flatnonzero(keys[1:] == keys[:-1])
    if len(twice):
        raise RowError(int(keys[twice[0]] >> 32), f"term {keys[twice[0]] & 0xFFFFFFFF} comes twice")
    _check_names(names or [], indptr, terms)
    return SparseVectors(_indptr(owners, len(indptr) - 1), (keys & 0xFFFFFFFF).astype(np.int32), weights, names)


def _check_names(names: list[str], indptr: Int64s, terms: Int64s) -> None:
    for number, name in enumerate(names):
        if not name or (not name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in name)):
            at = int(np.flatnonzero(terms == number)[0])
            raise RowError(row_at(indptr, at), f"term {name!r}: a term is Unicode, and not empty")


def _indptr(owners: npt.NDArray[np.integer[Any]], n_rows: int) -> Int64s:
    indptr = np.zeros(n_rows + 1, np.int64)
    np.cumsum(np.bincount(owners, minlength=n_rows), out=indptr[1:])
    return indptr


def row_at(indptr: Int64s, entry: int) -> int:
    """Return the row that an entry belongs to."""
    return int(np.searchsorted(indptr, entry, side="right")) - 1
