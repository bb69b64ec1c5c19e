"""Fields as models: found by their ids, encoding texts, scoring pairs of texts."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...index.arrays import Floats
from ...index.representations import DenseVectors, MultiVectors, SparseVectors, Vectors
from ...retrieval.pipelines.expression import parse
from ..errors import RefusedError, unknown
from ..indexes import Indexes
from ..schemas.models import Embedding, ModelFacts

if TYPE_CHECKING:
    from ..searching.service import Service

RERANKING = ("sparse", "tokens", "dense")
"""Representations whose score of a pair depends on the two texts alone; BM25's, which is sparse, does not."""


@dataclass(frozen=True)
class FieldModel:
    """A field of an index."""

    service: "Service"
    field: str
    id: str

    @property
    def encoder(self) -> Any:
        """The encoder, loaded when first asked for."""
        return self.service.retriever.encoders([self.field])[self.field]

    @property
    def representation(self) -> str:
        """Of the vectors that the encoder makes."""
        found: str = self.service.retriever.snapshot.field(self.field).record.representation
        return "tokens" if found == "fde" else found

    def facts(self) -> ModelFacts:
        """Return what the list of models says of it."""
        record = self.service.retriever.snapshot.field(self.field).record
        dim = record.options.get("dim", record.options.get("encoding", {}).get("token_dim"))
        return ModelFacts(
            id=self.id, owned_by=self.service.name, representation=record.representation, kind=record.encoder.kind,
            dim=dim, reranks=self.reranks,
        )  # fmt: skip

    @property
    def reranks(self) -> bool:
        """Whether it scores pairs of texts."""
        record = self.service.retriever.snapshot.field(self.field).record
        return record.representation in RERANKING and record.encoder.kind not in ("bm25", "vectors")

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Encode texts as documents."""
        vectors: Vectors = self.encoder.encode_documents(list(texts))
        return vectors

    def scores(self, query: Vectors, documents: Vectors) -> list[float]:
        """Score one encoded query with encoded documents: inner products, or MaxSim."""
        if isinstance(query, DenseVectors) and isinstance(documents, DenseVectors):
            per_document = len(documents.vectors) // max(1, len(documents)) or 1
            products = documents.vectors @ query.vectors[0]
            return [float(each) for each in products.reshape(-1, per_document).max(axis=1)]
        if isinstance(query, MultiVectors) and isinstance(documents, MultiVectors):
            return [_maxsim(query.row(0), documents.row(number)) for number in range(len(documents))]
        if isinstance(query, SparseVectors) and isinstance(documents, SparseVectors):
            terms, weights = query.row(0)
            return [_overlap(terms, weights, *documents.row(number)) for number in range(len(documents))]
        raise TypeError(f"no scores of {type(query).__name__} with {type(documents).__name__}")


def models_of(indexes: Indexes) -> list[FieldModel]:
    """Return the models of every index that is open."""
    return [
        FieldModel(service, field, field if indexes.default == name else f"{name}/{field}")
        for name, service in indexes
        if service.ready
        for field in service.retriever.fields
    ]


def model_of(indexes: Indexes, model_id: str) -> FieldModel:
    """Return a model by its id; of a server of one index with or without the index's name.

    Raises
    ------
    RefusedError
        404 where there is none, 503 where its index is not open.
    """
    index, slash, field = model_id.rpartition("/")
    service = indexes.service(index if slash else None)
    service.check_ready()
    if field not in service.retriever.fields:
        raise RefusedError(404, "not_found", unknown("model", model_id, [each.id for each in models_of(indexes)]))
    return FieldModel(service, field, model_id)


def reranker_of(indexes: Indexes, model_id: str | None) -> FieldModel:
    """Return the model that reranks: the one that is named, or of the only index the last one it searches with.

    Raises
    ------
    RefusedError
        404 as `model_of`, 422 where it scores no pairs.
    """
    if model_id is None:
        service = indexes.service()
        service.check_ready()
        searched = reversed(parse(service.retriever.default_search).fields)
        fields = [*searched, *service.retriever.fields]
        models = [FieldModel(service, field, field) for field in dict.fromkeys(fields)]
    else:
        models = [model_of(indexes, model_id)]
    found = next((model for model in models if model.reranks), None)
    if found is None:
        which = "no field of the index scores" if model_id is None else f"the field {model_id} does not score"
        message = f"{which} pairs of texts: learned sparse, dense and token fields do, BM25 weighs by a whole index"
        raise RefusedError(422, "invalid_request", message)
    return found


def embedding_of(vectors: Vectors, number: int, field: Any, *, packed: bool) -> Embedding:
    """Return one text's vectors as JSON has them.

    Raises
    ------
    RefusedError
        422: vectors that no JSON is agreed for.
    """
    match vectors:
        case DenseVectors():
            row = vectors.row(number)
            return Embedding(index=number, embedding=_packed(row) if packed else row.tolist())
        case MultiVectors():
            matrix = vectors.row(number)
            return Embedding(index=number, tokens=_packed(matrix) if packed else matrix.tolist(), n_tokens=len(matrix))
        case SparseVectors():
            terms, weights = vectors.row(number)
            names = _names(vectors, terms, field)
            return Embedding(index=number, sparse=dict(zip(names, weights.tolist(), strict=True)))
    message = f"{type(vectors).__name__} have no form in JSON: embeddings are dense, sparse or token vectors"
    raise RefusedError(422, "invalid_request", message)


def _names(vectors: SparseVectors, terms: Any, field: Any) -> list[str]:
    if vectors.vocabulary is not None:
        return [vectors.vocabulary[term] for term in terms.tolist()]
    if len(field.vocabulary):
        return list(field.vocabulary.strings(terms))
    return [str(term) for term in terms.tolist()]


def _packed(numbers: Floats) -> str:
    return base64.b64encode(np.ascontiguousarray(numbers, "<f4").tobytes()).decode()


def _maxsim(query: Floats, document: Floats) -> float:
    return float((query @ document.T).max(axis=1).sum()) if len(document) and len(query) else 0.0


def _overlap(terms: Any, weights: Floats, others: Any, their: Floats) -> float:
    _, ours, theirs = np.intersect1d(terms, others, assume_unique=True, return_indices=True)
    return float(weights[ours].astype(np.float64) @ their[theirs])
