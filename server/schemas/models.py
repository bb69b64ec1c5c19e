"""Bodies in the shapes that other tools send: OpenAI's embeddings and models, Cohere's rerank."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from ..limits import Limits
from .searches import whole

MODEL = "A field, as `splade`; of a server of several indexes INDEX/FIELD. `/v1/models` lists them."


def _strict(*examples: dict[str, Any]) -> ConfigDict:
    return ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, json_schema_extra={"examples": list(examples)})


class EmbeddingsBody(BaseModel):
    """Texts to encode, in OpenAI's shape."""

    model_config = _strict({"model": "dense", "input": ["solar cells"], "encoding_format": "float", "input_type": "document"})

    model: str = Field(max_length=200, description=MODEL)
    input: str | list[str]
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="base64: little-endian 32-bit floats, of dense and token vectors."
    )
    input_type: Literal["query", "document"] = Field("query", description="As what the texts are encoded.")
    dimensions: Annotated[int, BeforeValidator(whole), Field(ge=1)] | None = Field(
        default=None, description="Taken where it is the model's own: vectors are not cut."
    )
    user: str | None = Field(default=None, description="Taken and not used.")


class Embedding(BaseModel):
    """What one text was encoded to: a dense vector, or by extension sparse or token vectors; the others are null."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str | None = Field(default=None, description="Of a dense field: numbers, or base64 of them.")
    sparse: dict[str, float] | None = Field(
        default=None, description="Of a sparse field: weights by term, as `vectors` takes them."
    )
    tokens: list[list[float]] | str | None = Field(
        default=None, description="Of a token field: vectors as `vectors` takes them, or base64 of the matrix, row by row."
    )
    n_tokens: int | None = Field(default=None, description="Rows of the matrix.")


class Usage(BaseModel):
    """What was encoded, in words between spaces: OpenAI's clients want a number."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    """Encoded texts, in their order."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class ModelFacts(BaseModel):
    """A field as a model."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(default=0, description="Not known.")
    owned_by: str = Field(description="The index.")
    representation: str
    kind: str = Field(description="The encoder's method.")
    dim: int | None = Field(description="Numbers of a vector; null of sparse vectors.")
    reranks: bool = Field(description="Whether /v1/rerank takes it.")


class ModelsAnswer(BaseModel):
    """The models of a server."""

    object: Literal["list"] = "list"
    data: list[ModelFacts]


class RerankBody(BaseModel):
    """Texts to order by a query, in Cohere's shape."""

    model_config = _strict({"model": "colbert", "query": "solar cells", "documents": ["Cells that ...", "Wind"], "top_n": 1})

    model: str | None = Field(
        None, max_length=200, description=f"{MODEL} By default the last one that the index searches with."
    )
    query: str
    documents: list[str]
    top_n: Annotated[int, BeforeValidator(whole), Field(ge=1)] | None = Field(default=None, description="By default all.")
    return_documents: bool = False


class RerankDocument(BaseModel):
    """A text that was ordered."""

    text: str


class RerankResult(BaseModel):
    """Where a text came."""

    index: int = Field(description="Its position among the documents of the request.")
    relevance_score: float = Field(description="The field's score of the pair; it is no probability.")
    document: RerankDocument | None = None


class RerankAnswer(BaseModel):
    """Texts by their scores, best first."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"id": "5f0c", "results": [{"index": 0, "relevance_score": 11.7}], "model": "colbert"}]}
    )

    id: str
    results: list[RerankResult]
    model: str


def model_bodies(limits: Limits) -> tuple[Any, Any]:
    """Return the types of the bodies of embeddings and reranking, within the limits."""
    text = Annotated[str, Field(max_length=limits.max_text_chars)]
    inputs = text | Annotated[list[text], Field(min_length=1, max_length=limits.max_batch)]
    documents = Annotated[list[text], Field(min_length=1, max_length=limits.max_reranked)]
    embeddings = create_model("EmbeddingsBody", __base__=EmbeddingsBody, __doc__=EmbeddingsBody.__doc__, input=(inputs, ...))
    rerank = create_model(
        "RerankBody", __base__=RerankBody, __doc__=RerankBody.__doc__, query=(text, ...), documents=(documents, ...)
    )
    return embeddings, rerank
