"""What all searchers share: checks of their arguments, documents by segment, arrays that a thread reuses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ...index.arrays import Int32s
from ...index.errors import RepresentationError
from ...index.fields import Field, FieldSegment
from ...index.representations import DenseVectors, MultiVectors, SparseMultiVectors, SparseVectors, Vectors

FieldT = TypeVar("FieldT", bound=Field[Any])
SegmentT = TypeVar("SegmentT", bound=FieldSegment[Any])
VectorsT = TypeVar("VectorsT", SparseVectors, MultiVectors, SparseMultiVectors, DenseVectors)
Number = TypeVar("Number", bound=np.generic)


def checked_field(field: Field[Any], kind: type[FieldT], wanted: str) -> FieldT:
    """Return the field; raises RepresentationError when it does not hold what is ``wanted``."""
    if not isinstance(field, kind):
        where = f"{field.path}, field {field.name}" if isinstance(field, Field) else f"{type(field).__name__}"
        held = f"holds {field.representation}" if isinstance(field, Field) else "is no field"
        raise RepresentationError(f"{where}: this searcher takes a field of {wanted}, and this one {held}")
    return field


def check_k(k: int) -> None:
    """Raise ValueError when ``k`` is below 1."""
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")


def checked_doc_nums(field: Field[Any], queries: Vectors, doc_nums: Sequence[Int32s]) -> list[Int32s]:
    """Return the documents to score for each query, (n,) int32 each.

    Raises
    ------
    ValueError
        Not one array per query, or a doc_num that the field does not have.
    """
    if len(doc_nums) != len(queries):
        raise ValueError(f"{len(queries)} queries and doc_nums of {len(doc_nums)}: give one array of doc_nums per query")
    arrays = [np.asarray(numbers) for numbers in doc_nums]
    for numbers in arrays:
        if len(numbers) and not (numbers.min() >= 0 and numbers.max() < field.n_total):
            raise ValueError(f"{field.path}, field {field.name}: doc_nums must be in 0..{field.n_total - 1}")
    return [numbers.astype(np.int32, copy=False) for numbers in arrays]


def parts(segments: Sequence[SegmentT], doc_nums: Int32s) -> Iterator[tuple[SegmentT, Int32s, slice]]:
    """Segments that hold some of the ascending doc_nums, positions in each, and where in ``doc_nums`` those are."""
    for segment in segments:
        first, last = np.searchsorted(doc_nums, [segment.base, segment.base + segment.n_docs]).tolist()
        if first < last:
            yield segment, (doc_nums[first:last] - segment.base).astype(np.int32), slice(first, last)


def in_order(doc_nums: Int32s, score: Callable[[Int32s], npt.NDArray[Number]]) -> npt.NDArray[Number]:
    """Scores of doc_nums in any order, by a function that takes them ascending."""
    if len(doc_nums) < 2 or bool(np.all(doc_nums[1:] >= doc_nums[:-1])):
        return score(doc_nums)
    order = np.argsort(doc_nums, kind="stable")
    found = score(doc_nums[order])
    scores = np.empty_like(found)
    scores[order] = found
    return scores


class Scratch(threading.local):
    """Arrays that one thread reuses from query to query, by name and type; zeros at first."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, type[np.generic]], npt.NDArray[Any]] = {}

    def take(self, name: str, n: int, dtype: type[np.generic]) -> npt.NDArray[Any]:
        """Return the array (n,) with what the thread last left in it."""
        array = self._arrays.get((name, dtype))
        if array is None or len(array) < n:
            array = self._arrays[name, dtype] = np.zeros(n, dtype)
        return array if len(array) == n else array[:n]


class WindowScores(threading.local):
    """Accumulators of a scan, (65,536,) uint16 and uint32, for each thread."""

    def __init__(self) -> None:
        self.narrow, self.wide = np.zeros(1 << 16, np.uint16), np.zeros(1 << 16, np.uint32)


def single(queries: VectorsT, number: int) -> VectorsT:
    """Return one query of a batch, as a batch."""
    return queries.select(np.array([number], np.int64))
