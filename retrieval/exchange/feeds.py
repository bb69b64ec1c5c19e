"""Feeds of other engines: the live documents of an index with the vectors of its fields, one JSON record per line.

::

    elasticsearch  {"index": {"_index", "_id"}} and a document: fields for ``sparse_vector`` and ``dense_vector``
    opensearch     the same, for ``rank_features`` and ``knn_vector``
    vespa          {"put": "id:NAME:NAME::DOC_ID", "fields"}: tensors ``t(term{})``, ``t(x[dim])`` and ``t(token{},x[dim])``
    qdrant         points: {"id" (UUID of the doc_id), "vector": {FIELD: {"indices", "values"} | [...]}, "payload"}
    jsonl          {"id", "title", "text", "vector", "metadata"} of one sparse field: Anserini's, and what `vector_files` reads

Weights are those of the index, dequantised, so inner products with an encoder's queries are lexmax's scores up to the rounding
of query weights. A BM25 field is not a vector: other engines weigh texts themselves, or read `ciff`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ...index.dense.field import DenseField
from ...index.documents import Document
from ...index.errors import DatasetError, RepresentationError
from ...index.multivector.field import TokenField
from ...index.snapshot import Snapshot
from ...index.sparse.field import SparseField
from .exported import exported

BATCH = 1024
Vectors = dict[str, Any]
Writer = Callable[[str, Document, dict[str, Any], Vectors], Iterator[dict[str, Any]]]


def export_feed(
    index: Path | str, path: Path | str, form: str, *, fields: Sequence[str] | None = None, name: str = "lexmax"
) -> int:  # fmt: skip
    """Write a feed; its number of documents is returned.

    Parameters
    ----------
    index : Path or str
    path : Path or str
        Replaced once the file is whole.
    form : {"elasticsearch", "opensearch", "vespa", "qdrant", "jsonl"}
    fields : sequence of str or None
        Fields to write; None: all sparse, dense and token fields but BM25.
    name : str
        Of the other engine's index, or schema.

    Raises
    ------
    IndexNotFoundError, IndexFormatError
        No index there, or a damaged one.
    RepresentationError
        A field that is not there, or that has no vectors that the other engine takes.
    DatasetError
        Two terms of a document have one name there.
    StorageError
        The disk refuses.
    """
    if form not in FORMS:
        raise ValueError(f"there is no feed {form!r}; there are {', '.join(FORMS)}")
    snapshot, target = Snapshot.open(index, verify=True), Path(path)
    chosen = {each: _reader(snapshot, each, form) for each in (_all_fields(snapshot) if fields is None else fields)}
    if form == "jsonl" and len(chosen) != 1:
        raise RepresentationError(f"{index}: a file of vectors has one field, not {len(chosen)}: name it (--field NAME)")
    with exported(target, "w", encoding="utf-8") as out:
        for doc_num, document in _documents(snapshot):
            vectors = {each: read(doc_num) for each, read in chosen.items()}
            for record in FORMS[form](name, document, dict(document.metadata), vectors):
                out.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")
    return snapshot.n_docs


def _all_fields(snapshot: Snapshot) -> list[str]:
    fields = snapshot.fields.items()
    found = [name for name, each in fields if isinstance(each, DenseField | TokenField) or _is_learned(each)]
    if not found:
        raise RepresentationError(
            f"{snapshot.path}: no field holds vectors of an encoder: other engines weigh BM25's texts themselves, or read CIFF"
        )
    return found


def _is_learned(field: object) -> bool:
    return type(field) is SparseField and not field.bm25


def _documents(snapshot: Snapshot) -> Iterator[tuple[int, Document]]:
    for segment, mask in zip(snapshot.segments, snapshot.masks(), strict=True):
        doc_nums = [segment.base + i for i in range(segment.n_docs) if mask is None or mask[i]]
        for first in range(0, len(doc_nums), BATCH):
            some = doc_nums[first : first + BATCH]
            yield from zip(some, snapshot.get_many(some), strict=True)


def _reader(snapshot: Snapshot, name: str, form: str) -> Callable[[int], Any]:
    """Return what reads a document's vector of a field in the form that the engine takes."""
    field = snapshot.field(name)
    if form in ("elasticsearch", "opensearch", "jsonl") and isinstance(field, TokenField):
        raise RepresentationError(f"{snapshot.path}: {form} takes no token vectors: leave the field {name!r} out")
    if form == "jsonl" and not _is_learned(field):
        raise RepresentationError(f"{snapshot.path}: files of vectors are of a learned sparse field, and {name!r} is none")
    if isinstance(field, DenseField):
        return lambda doc_num: field.document_vector(doc_num).tolist()
    if isinstance(field, TokenField):
        return lambda doc_num: field.document_tokens(doc_num).tolist()
    if not isinstance(field, SparseField) or not _is_learned(field):
        kind = "bm25" if isinstance(field, SparseField) and field.bm25 else field.representation
        raise RepresentationError(f"{snapshot.path}: the field {name!r} is {kind}, which has no vectors for {form}")
    if form == "qdrant":
        return lambda doc_num: _numbers(field, doc_num)
    dots = "__" if form in ("elasticsearch", "opensearch") else "."
    return lambda doc_num: _strings(field, doc_num, dots)


def _numbers(field: SparseField, doc_num: int) -> dict[str, list[Any]]:
    row = field.document_row(doc_num)
    return {"indices": row.terms.tolist(), "values": row.weights.tolist()}


def _strings(field: SparseField, doc_num: int, dots: str) -> dict[str, float]:
    row = field.document_row(doc_num)
    names = field.vocabulary.strings(row.terms) if len(field.vocabulary) else list(map(str, row.terms.tolist()))
    named = {name.replace(".", dots): weight for name, weight in zip(names, row.weights.tolist(), strict=True)}
    if len(named) < len(names):
        raise DatasetError(f"{field.path}, field {field.name}: two terms of a document differ in dots and {dots!r} alone")
    return named


def _bulk(name: str, document: Document, metadata: dict[str, Any], vectors: Vectors) -> Iterator[dict[str, Any]]:
    yield {"index": {"_index": name, "_id": document.doc_id}}
    yield {"title": document.title, "text": document.text, "metadata": metadata, **vectors}


def _vespa(name: str, document: Document, metadata: dict[str, Any], vectors: Vectors) -> Iterator[dict[str, Any]]:
    fields = {"doc_id": document.doc_id, "title": document.title, "text": document.text, "metadata": json.dumps(metadata)}
    tensors = {field: _tensor(vector) for field, vector in vectors.items()}
    yield {"put": f"id:{name}:{name}::{document.doc_id}", "fields": {**fields, **tensors}}


def _tensor(vector: Any) -> dict[str, Any]:
    if isinstance(vector, dict):
        return {"cells": vector}
    if vector and not isinstance(vector[0], list):
        return {"values": vector}
    return {"blocks": {str(number): token for number, token in enumerate(vector)}}


def _qdrant(name: str, document: Document, metadata: dict[str, Any], vectors: Vectors) -> Iterator[dict[str, Any]]:
    payload = {"doc_id": document.doc_id, "title": document.title, "text": document.text, "metadata": metadata}
    present = {field: vector for field, vector in vectors.items() if vector}  # a document without tokens has no vector
    yield {"id": str(uuid.uuid5(uuid.NAMESPACE_URL, document.doc_id)), "vector": present, "payload": payload}


def _vector_file(name: str, document: Document, metadata: dict[str, Any], vectors: Vectors) -> Iterator[dict[str, Any]]:
    vector = next(iter(vectors.values()))
    yield {"id": document.doc_id, "title": document.title, "text": document.text, "vector": vector, "metadata": metadata}


FORMS: dict[str, Writer] = {
    "elasticsearch": _bulk, "opensearch": _bulk, "vespa": _vespa, "qdrant": _qdrant, "jsonl": _vector_file,
}  # fmt: skip
