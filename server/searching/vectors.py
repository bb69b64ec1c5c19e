"""Query vectors from JSON: checked against their fields, so that what does not fit is refused before anything is searched."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...index.errors import LexmaxError
from ...index.fde.field import source_of
from ...index.representations import DenseVectors, MultiVectors, SparseVectors, Vectors
from ...index.sparse.field import SparseField
from ...retrieval.exchange.vectors import to_sparse_vectors
from ..errors import RefusedError

if TYPE_CHECKING:
    from ...retrieval.shards.snapshot import AnySnapshot

MAX_ENTRIES = 100_000  # numbers of one query's vector


def query_vectors(snapshot: "AnySnapshot", given: Mapping[str, Sequence[Any]], fields: Sequence[str]) -> dict[str, Vectors]:
    """Return vectors of the fields of a search that a request brings; a field of encodings takes its token field's.

    Parameters
    ----------
    snapshot : Snapshot or ShardedSnapshot
    given : mapping of str to sequence
        Field -> a vector per query, as JSON has it.
    fields : sequence of str
        Those of the search.

    Raises
    ------
    RefusedError
        422: vectors of a field that the search does not name, or of another kind or length than the field's.
    """
    records = snapshot.manifest.fields
    sources = {name: source_of(records, name) or name for name in fields}
    for name in given:
        if name not in fields and name not in sources.values():
            raise _refused(f"vectors of {name[:100]!r}: the search names {', '.join(fields)}")
    found: dict[str, Vectors] = {}
    for name in fields:
        of = name if name in given else sources[name]
        if of in given:
            try:
                found[name] = _vectors(snapshot, name, given[of])
            except (LexmaxError, ValueError, TypeError) as error:
                raise _refused(f"vectors.{of}: {error}".replace(f"{snapshot.path}, ", "")) from None
    return found


def _vectors(snapshot: "AnySnapshot", name: str, rows: Sequence[Any]) -> Vectors:
    field: Any = snapshot.field(name)
    options = field.record.options
    match field.record.representation:
        case "sparse":
            return _sparse(field, rows)
        case "dense":
            matrix = _matrix(rows, "a list of numbers")
            if matrix.ndim != 2 or matrix.shape[1] != options["dim"]:
                raise ValueError(f"a vector has {options['dim']} numbers")
            return DenseVectors(matrix)
        case "tokens" | "fde" as representation:
            return _tokens(rows, options["dim"] if representation == "tokens" else options["encoding"]["token_dim"])
        case other:
            raise ValueError(f"{other} vectors do not come as JSON: send the text")


def _sparse(field: Any, rows: Sequence[Any]) -> SparseVectors:
    for row in rows:
        if not isinstance(row, Mapping):
            raise ValueError('a vector of a sparse field is an object, as {"term": 1.5}')
        if len(row) > MAX_ENTRIES:
            raise ValueError(f"{len(row)} terms: at most {MAX_ENTRIES}")
    record = field.record
    numbered = not record.options.get("bm25") and not record.state.get("vocabulary")  # JSON's keys are strings
    vectors = to_sparse_vectors([{_number(term): weight for term, weight in row.items()} if numbered else row for row in rows])
    if isinstance(field, SparseField):  # those of shards are checked by the shards
        field.query_vectors(vectors)  # raises for what the field cannot take
    return vectors


def _number(term: str) -> int:
    if not term.isdecimal():
        raise ValueError(f"the field has no vocabulary: its terms are numbers, not {term[:100]!r}")
    return int(term[:20])


def _tokens(rows: Sequence[Any], dim: int) -> MultiVectors:
    matrices = [_matrix(row, "a list of token vectors") for row in rows]
    for matrix in matrices:
        if matrix.ndim != 2 or matrix.shape[1] != dim:
            raise ValueError(f"a query is a list of token vectors of {dim} numbers")
    return MultiVectors.of(matrices, dim)


def _matrix(rows: Any, wanted: str) -> Any:
    try:
        matrix = np.array(rows, np.float32) if isinstance(rows, list) else None
    except (ValueError, TypeError, OverflowError):
        matrix = None
    if matrix is None or not np.isfinite(matrix).all():
        raise ValueError(f"a query is {wanted}, finite and of equal lengths")
    if matrix.size > MAX_ENTRIES * max(1, len(rows)):
        raise ValueError(f"{matrix.size} numbers: at most {MAX_ENTRIES} per query")
    return matrix


def _refused(message: str) -> RefusedError:
    return RefusedError(422, "invalid_vectors", message)
