"""What other tools call: embeddings, reranking, models."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import Body, FastAPI, Request, Response

from ...index.representations import Vectors
from ..errors import RefusedError
from ..indexes import Indexes
from ..limits import Limits
from ..models.fields import FieldModel, embedding_of, model_of, models_of, reranker_of
from ..observing.notes import notes_of
from ..schemas.models import (
    Embedding,
    EmbeddingsAnswer,
    EmbeddingsBody,
    ModelsAnswer,
    RerankAnswer,
    RerankBody,
    RerankDocument,
    RerankResult,
    Usage,
    model_bodies,
)
from .common import GONE, errors, json_of, unless_gone

PIECE = 16  # texts that take a thread at once


def add_model_routes(app: FastAPI, indexes: Indexes, limits: Limits) -> None:
    """Add them."""
    embeddings_body, rerank_body = model_bodies(limits)
    _add(app, indexes, limits, embeddings_body, rerank_body)


def _add(app: FastAPI, indexes: Indexes, limits: Limits, embeddings_body: Any, rerank_body: Any) -> None:
    @app.post("/v1/embeddings", response_model=EmbeddingsAnswer, responses=errors(404, 415, 422))
    async def embeddings(body: Annotated[embeddings_body, Body()], request: Request) -> Response:
        """Encode texts with a field's encoder: OpenAI's shape, with sparse and token vectors beside."""
        model = _noted(request, model_of(indexes, body.model))
        return await _unless_gone(request, _embed(model, body, limits))

    @app.post("/v1/rerank", response_model=RerankAnswer, responses=errors(404, 415, 422))
    async def rerank(body: Annotated[rerank_body, Body()], request: Request) -> Response:
        """Order texts, which need not be in the index, by a field's score: Cohere's shape."""
        model = _noted(request, reranker_of(indexes, body.model))
        return await _unless_gone(request, _rerank(model, body, limits, notes_of(request.scope).request_id))

    @app.get("/v1/models", response_model=ModelsAnswer)
    async def models() -> Response:
        """List fields as models."""
        return json_of(ModelsAnswer(data=[model.facts() for model in models_of(indexes)]))


async def _embed(model: FieldModel, body: EmbeddingsBody, limits: Limits) -> Response:
    texts = [body.input] if isinstance(body.input, str) else body.input
    _check_chars(texts, limits)
    dim = model.facts().dim
    if body.dimensions not in (None, dim):
        raise RefusedError(422, "invalid_request", f"dimensions: vectors of {model.id} have {dim}, and are not cut")
    field = model.service.retriever.snapshot.field(model.field)
    found: list[Embedding] = []
    async with model.service.admitted(len(texts)):
        for at in range(0, len(texts), PIECE):
            piece = texts[at : at + PIECE]
            vectors = await _encoded(model, piece, as_query=body.input_type == "query")
            packed = body.encoding_format == "base64"
            for number in range(len(piece)):
                each = embedding_of(vectors, number, field, packed=packed)
                found.append(each.model_copy(update={"index": at + number}))
    n_words = sum(len(text.split()) for text in texts)
    usage = Usage(prompt_tokens=n_words, total_tokens=n_words)
    return json_of(EmbeddingsAnswer(data=found, model=body.model, usage=usage))


async def _rerank(model: FieldModel, body: RerankBody, limits: Limits, request_id: str) -> Response:
    _check_chars([body.query, *body.documents], limits)
    scores: list[float] = []
    async with model.service.admitted(1 + len(body.documents) // PIECE):
        query = await _encoded(model, [body.query], as_query=True)
        for at in range(0, len(body.documents), PIECE):
            documents = await _encoded(model, body.documents[at : at + PIECE], as_query=False)
            scores += model.scores(query, documents)
    order = np.argsort(-np.array(scores), kind="stable")[: body.top_n].tolist()
    results = [
        RerankResult(
            index=number, relevance_score=scores[number],
            document=RerankDocument(text=body.documents[number]) if body.return_documents else None,
        )
        for number in order
    ]  # fmt: skip
    return json_of(RerankAnswer(id=request_id, results=results, model=model.id))


async def _encoded(model: FieldModel, texts: Sequence[str], *, as_query: bool) -> Vectors:
    if as_query:
        return await model.service.encode(texts, model.field)
    return await model.service.in_thread(partial(model.encode_documents, texts))


def _check_chars(texts: Sequence[str], limits: Limits) -> None:
    n_chars = sum(map(len, texts))
    if n_chars > limits.max_total_chars:
        message = f"texts of {n_chars} characters: at most {limits.max_total_chars} characters per request"
        raise RefusedError(422, "invalid_request", message)


async def _unless_gone(request: Request, work: Any) -> Response:
    try:
        response: Response = await unless_gone(request.receive, work)
    except ConnectionAbortedError:
        return Response(status_code=GONE)
    return response


def _noted(request: Request, model: FieldModel) -> FieldModel:
    notes_of(request.scope).index = model.service.name
    return model
