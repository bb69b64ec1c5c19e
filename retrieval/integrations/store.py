"""An index as the document stores of frameworks use it: made by the first write, then written, read and searched."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ...index.arguments import count_of, path_of
from ...index.arrays import Floats
from ...index.collection import Collection
from ...index.documents import Document
from ...index.errors import IndexNotFoundError, RepresentationError
from ...index.fde.field import source_of
from ...index.manifest import read as read_manifest
from ...index.representations import Vectors
from ...index.representations.dense import DenseVectors
from ...index.snapshot import Snapshot
from ..encoders.base import Encoder
from ..encoders.precomputed import DenseVectorsEncoder
from ..encoders.registry import check_encoder
from ..encoders.shared_pass import SharedPass
from ..encoders.specs import EncoderSpec
from ..fields import FieldEncoder, FieldEncoders, field_encoders
from ..models import DEFAULT_ENCODERS
from ..pipelines.defaults import default_search
from ..results import Results
from ..retriever import Filter, Retriever

EMBEDDING = "embedding"
"""Field of vectors that the framework's model makes."""
BATCH = 512


class IndexStore:
    """Documents in an index folder; safe to use from many threads.

    Parameters
    ----------
    path : path or None
        The index folder, which the first write makes; None: a temporary one that goes with this object.
    encoders : sequence or mapping, or None
        See `fields.field_encoders`. None: those of the index or, for a new one, the default fields; with ``embedded`` BM25.
    search : str or None
        The default search expression.
    embedded : bool
        Documents come with vectors, for the field ``embedding``.

    Raises
    ------
    EncoderMismatchError, RepresentationError
        The index's fields were made by other encoders, or there are no such fields.
    """

    def __init__(
        self, path: Path | str | None = None, *, encoders: Sequence[str | EncoderSpec] | FieldEncoders | None = None,
        search: str | None = None, embedded: bool = False,
    ) -> None:  # fmt: skip
        self._folder = tempfile.TemporaryDirectory(prefix="lexmax-") if path is None else None
        self.path = Path(self._folder.name) / "index" if self._folder is not None else path_of(path or "")
        self._search, self._embedded, self._lock = search, embedded, threading.RLock()
        self._chosen = field_encoders(encoders) if encoders is not None else {}
        self._retriever: Retriever | None = None
        try:
            records = read_manifest(self.path).fields
        except IndexNotFoundError:
            if encoders is None:
                self._chosen = field_encoders(["bm25"] if embedded else DEFAULT_ENCODERS)
            return
        for name, each in self._chosen.items():
            if name not in records:
                raise RepresentationError(f"{self.path}: there is no field {name!r}; the fields are {', '.join(records)}")
            check_encoder(records[name].encoder, each.encoder)
        self._open()

    @property
    def retriever(self) -> Retriever | None:
        """What searches; None before the first document."""
        return self._retriever

    def __len__(self) -> int:
        return 0 if self._retriever is None else len(self._retriever)

    def write(self, documents: Sequence[Document], vectors: Floats | None = None, *, replace: bool = False) -> None:
        """Add documents in one commit, with ``vectors`` (n, dim) of the field ``embedding`` if there is one.

        Raises
        ------
        DuplicateDocumentError
            A doc_id is there already, without ``replace``; or comes twice.
        DatasetError, RepresentationError
            Documents or vectors that do not fit the index; nothing was added.
        """
        if not documents:
            return
        with self._lock:
            exists = self._retriever is not None
            with Collection.open(self.path) if exists else self._create(vectors) as collection:
                encoders = self._text_encoders(collection, vectors)
                for first in range(0, len(documents), BATCH):
                    rows = slice(first, first + BATCH)
                    encoded: dict[str, Vectors] = SharedPass(encoders).encode_documents(
                        [each.content for each in documents[rows]]
                    )
                    if vectors is not None:
                        encoded[EMBEDDING] = DenseVectors(vectors[rows])
                    collection.add(documents[rows], encoded, replace=replace)
                collection.commit()
            self._open()

    def delete(self, doc_ids: Sequence[str]) -> list[str]:
        """Delete documents; returns the doc_ids that are not there."""
        with self._lock:
            return list(doc_ids) if self._retriever is None else self._retriever.delete(doc_ids)

    def get(self, doc_ids: Sequence[str]) -> list[Document | None]:
        """Documents by doc_id, None for each that is absent."""
        return [None] * len(doc_ids) if self._retriever is None else self._retriever.documents(doc_ids)

    def matching(self, filter: Filter | None = None) -> list[Document]:
        """Live documents that match a filter, in the order of the index."""
        snapshot = None if self._retriever is None else self._retriever.snapshot
        if snapshot is None:
            return []
        if not isinstance(snapshot, Snapshot):
            raise RepresentationError(f"{snapshot.path} is a set of shards: a document store has an index of its own")
        pairs = zip(snapshot.segments, snapshot.masks(filter), strict=True)
        found = chain.from_iterable(
            segment.base + (np.arange(segment.n_docs) if mask is None else np.flatnonzero(mask)) for segment, mask in pairs
        )
        return snapshot.get_many([int(doc_num) for doc_num in found])

    def vectors(self, doc_ids: Sequence[str]) -> Floats:
        """Vectors (n, dim) of documents that are there, as the field ``embedding`` keeps them."""
        snapshot = self._known().snapshot
        field: Any = snapshot.field(EMBEDDING)
        found: Floats = field.document_vectors(snapshot.find(doc_ids).astype(np.int32))
        return found

    def search(
        self, text: str, k: int, *, vector: Floats | None = None, filter: Filter | None = None, search: str | None = None
    ) -> Results:
        """Answer a query; ``vector`` (dim,) is its own in the field ``embedding``, None where the field has an encoder."""
        retriever = self._retriever
        if retriever is None:
            count_of(k, "k")
            return Results()
        if vector is None:
            return retriever.search(text, k, search=search, filter=filter)
        others = [name for name in retriever.search_fields(search) if name != EMBEDDING]
        queries: dict[str, Any] = dict(retriever.encode([text], " + ".join(others))) if others else {}
        queries[EMBEDDING] = DenseVectors(np.atleast_2d(np.asarray(vector, np.float32)))
        return retriever.search_vectors(queries, [text], k, search=search, filter=filter)[0]

    def close(self) -> None:
        """Release the index; a temporary one is removed."""
        with self._lock:
            if self._retriever is not None:
                self._retriever.close()
            if self._folder is not None:
                self._folder.cleanup()

    def _known(self) -> Retriever:
        if self._retriever is None:
            raise IndexNotFoundError(self.path)
        return self._retriever

    def _open(self) -> None:
        """Open the index, or its newest commit."""
        if self._retriever is not None:
            self._retriever.reload()
        else:
            given = {name: each.encoder for name, each in self._chosen.items() if each.encoding is None}
            self._retriever = Retriever.open(self.path, search=self._search, encoders=given)

    def _create(self, vectors: Floats | None) -> Collection:
        fields = dict(self._chosen)
        if self._embedded:
            if vectors is None:
                raise RepresentationError("the first documents come without embeddings, which the field 'embedding' takes")
            fields[EMBEDDING] = FieldEncoder(DenseVectorsEncoder(dim=vectors.shape[1], name=EMBEDDING), {"keep": "float32"})
        made = {name: each.encoder for name, each in fields.items() if each.encoding is None}
        search = self._search or default_search(made)
        return Collection.create(self.path, {name: each.new_field() for name, each in fields.items()}, search=search)

    def _text_encoders(self, collection: Collection, given: Floats | None) -> Mapping[str, Encoder]:
        """Encoders of the fields that are made of texts; ``given`` are the vectors of the one that is not."""
        records = collection.manifest.fields
        ready = EMBEDDING if given is not None else None
        names = [name for name in collection.fields if source_of(records, name) is None and name != ready]
        if self._retriever is not None:
            return self._retriever.encoders(names)
        return {name: self._chosen[name].encoder for name in names}
