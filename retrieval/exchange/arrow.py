"""Documents, their vectors and search results as Arrow tables, and so as pandas frames: ``documents_table(...).to_pandas()``.

The other way, `build.build_index` and `Retriever.add` take tables and frames as ``documents``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ...index.dense.field import DenseField
from ...index.errors import RepresentationError
from ...index.fde.field import FdeField
from ...index.multivector.field import TokenField
from ...index.segments import Segment
from ...index.snapshot import Snapshot
from ...index.sparse.field import SparseField
from ..results import Result
from ..retriever import Filter

OWN = ("doc_id", "title", "text")
RESULTS = {"query_id": pa.string(), "rank": pa.int32(), "doc_id": pa.string(), "score": pa.float32(), "title": pa.string(),
           "text": pa.large_string()}  # fmt: skip


def documents_table(index: Snapshot | Path | str, filter: Filter | None = None, *, vectors: Sequence[str] = ()) -> pa.Table:
    """Return live documents: doc_id, title, text, a column per metadata field, and one per vector field that is named.

    Parameters
    ----------
    index : Snapshot, Path or str
    filter : str, mapping or None
        Which documents; None: all.
    vectors : sequence of str
        Names of fields: sparse ones become maps of term -> weight, dense ones lists of numbers, token fields lists of lists.

    Returns
    -------
    pyarrow.Table
        In the order of the index. Nested metadata are texts of JSON.

    Raises
    ------
    RepresentationError
        A field that is not there or has no vectors per document, or a column's name that comes twice.
    FilterError
        The filter does not fit the metadata.
    """
    snapshot = index if isinstance(index, Snapshot) else Snapshot.open(index)
    kinds = snapshot.manifest.metadata
    names = [*OWN, *kinds, *vectors]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RepresentationError(f"{snapshot.path}: two columns would be called {twice!r}: a table has one of each name")
    readers = {name: _reader(snapshot, name) for name in vectors}
    tables = []
    for segment, mask in zip(snapshot.segments, snapshot.masks(filter), strict=True):
        rows = np.arange(segment.n_docs) if mask is None else np.flatnonzero(mask)
        columns = {name: each.take(pa.array(rows)) for name, each in _columns(segment, kinds).items()}
        for name, (kind, read) in readers.items():
            columns[name] = pa.array([read(int(segment.base + row)) for row in rows], kind)
        tables.append(pa.table(columns))
    return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({name: [] for name in names})


def _columns(segment: Segment, kinds: Mapping[str, str]) -> dict[str, Any]:
    documents = segment.documents
    return {
        **{name: documents.column(name).cast(pa.large_string()) for name in OWN},
        **{name: documents.metadata_column(name, kind) for name, kind in kinds.items()},
    }


def _reader(snapshot: Snapshot, name: str) -> tuple[pa.DataType, Any]:
    """Return the type of a field's column, and what reads a document's value."""
    field = snapshot.field(name)
    if isinstance(field, DenseField):
        return pa.list_(pa.float32()), field.document_vector
    if isinstance(field, TokenField):
        return pa.list_(pa.list_(pa.float32())), lambda doc_num: list(field.document_tokens(doc_num))
    if not isinstance(field, SparseField) or isinstance(field, FdeField):
        raise RepresentationError(f"{snapshot.path}: the field {name!r} is {field.representation}, which no column can hold")

    def terms(doc_num: int) -> list[tuple[str, float]]:
        row = field.document_row(doc_num)
        strings = field.vocabulary.strings(row.terms) if len(field.vocabulary) else list(map(str, row.terms.tolist()))
        return list(zip(strings, row.weights.tolist(), strict=True))

    return pa.map_(pa.string(), pa.float32()), terms


def results_table(results: Iterable[Iterable[Result]], query_ids: Sequence[str] | None = None) -> pa.Table:
    """Return results of `Retriever.search_batch`, a row per answer: query_id, rank (from 1), doc_id, score, title, text.

    Parameters
    ----------
    results : iterable of iterable of Result
        The answers to each query, best first.
    query_ids : sequence of str or None
        Names of the queries; None: "0", "1", ...

    Raises
    ------
    ValueError
        Not as many names as queries.
    """
    every = [list(each) for each in results]
    names = [str(number) for number in range(len(every))] if query_ids is None else list(query_ids)
    if len(names) != len(every):
        raise ValueError(f"results of {len(every)} queries with {len(names)} query_ids")
    rows = [(name, rank, each) for name, found in zip(names, every, strict=True) for rank, each in enumerate(found, 1)]
    values = {
        "query_id": [name for name, _, _ in rows],
        "rank": [rank for _, rank, _ in rows],
        **{column: [getattr(each, column) for _, _, each in rows] for column in ("doc_id", "score", "title", "text")},
    }
    return pa.table({name: pa.array(values[name], kind) for name, kind in RESULTS.items()})
