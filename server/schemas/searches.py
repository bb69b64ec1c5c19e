"""Bodies of searches, within `Limits`.

::

    SearchOne   {"query": ...}      POST /v1/search         ->  OneAnswer   {"results": [Hit, ...], "took_ms": ...}
    SearchMany  {"queries": [...]}  POST /v1/search/batch   ->  ManyAnswer  {"results": [[Hit, ...], ...], "took_ms": ...}

Either may bring vectors of fields, beside texts or in their place.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator

from ...index.filters.expressions import MAX_CHARS
from ..limits import Limits

MAX_KEYS = 100  # of a body, and of its options: pydantic would list every one that is wrong
INCLUDED = ("title", "text", "metadata")
"""What ``include`` may name, and single keys of metadata as ``metadata.year``."""
VECTORS = (
    'Query vectors by field, in place of text: {"splade": {"term": 1.5}} of sparse fields, [0.1, ...] of dense ones, '
    "[[0.1, ...], ...] of token fields. Fields without one are encoded from the text."
)


def _few(what: str) -> BeforeValidator:
    """Refuse a mapping of too many keys, or a body, before each of them is looked at."""

    def check(given: object) -> object:
        if isinstance(given, Mapping) and len(given) > MAX_KEYS:
            raise ValueError(f"{what} of {len(given)} {'terms' if what == 'boost' else 'fields'}: at most {MAX_KEYS}")
        return given

    return BeforeValidator(check)


def whole(number: object) -> object:
    """Take 3.0 as 3: to JSON and its schemas they are the same integer."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


FieldVectors = Annotated[dict[str, Any], _few("vectors")]


class SearchOptions(BaseModel):
    """What both shapes of a search share; ``search_bodies`` adds the bounds that depend on ``Limits``."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    k: int
    offset: int
    search: str | None
    filter: str | dict[str, Any] | None
    options: Annotated[dict[str, dict[str, Any]] | None, _few("options")] = Field(
        None, description='Options of each field\'s search, as {"colbert": {"n_probe": 64}}.'
    )
    boost: Annotated[dict[str, Annotated[float, Field(ge=0)]] | None, _few("boost")] = Field(
        None,
        description='Terms of sparse fields, as {"latent-12": 2}: so many times as heavy as the heaviest of the query; 0 '
        "leaves one out.",
    )
    feedback: bool | Annotated[dict[str, float], _few("options")] | None = Field(
        None,
        description="Move queries of dense, fde and sparse fields by logged clicks: true, or options of Counterfactual "
        'Rocchio, as {"eta": 0.5}. For servers that keep a log.',
    )
    explain: bool = Field(False, description="Explain every score: stages, fields, terms and tokens.")
    timings: bool = Field(False, description="Give the milliseconds of each stage.")
    partial: bool = Field(
        False, description="Of a set of shards: answer without shards that fail, and name them in `missing_shards`."
    )
    include_text: bool = Field(True, description="Without it `text` is null in every result.")
    include: Annotated[list[str], Field(max_length=MAX_KEYS)] | None = Field(
        None, description="What results hold of their documents: title, text, metadata, or one key of it as metadata.year."
    )
    timeout_s: float | None

    @model_validator(mode="before")
    @classmethod
    def _few_keys(cls, body: object) -> object:
        if isinstance(body, Mapping) and len(body) > MAX_KEYS:
            raise ValueError(f"an object of {len(body)} keys: at most {MAX_KEYS}")
        return body

    @model_validator(mode="after")
    def _one_choice(self) -> "SearchOptions":
        if self.include is not None and not self.include_text:
            raise ValueError("include names what results hold: leave include_text out")
        wrong = [name for name in self.include or () if name not in INCLUDED and not name.startswith("metadata.")]
        if wrong:
            raise ValueError(f"include names {wrong[0][:100]!r}: there are {', '.join(INCLUDED)} and metadata.KEY")
        return self


class SearchOne(SearchOptions):
    """One query: a text, vectors, or both."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"query": "how do vaccines work"},
                {"query": "solar cells", "k": 5, "offset": 5, "filter": "year >= 2020", "explain": True},
                {"query": "wind", "search": "(bm25 + splade) > colbert", "options": {"colbert": {"n_probe": 64}}},
                {"vectors": {"splade": {"wind": 1.5, "power": 0.7}}, "search": "splade", "include": ["title", "metadata.year"]},
            ]
        }
    )

    query: str | None
    vectors: FieldVectors | None = Field(None, description=VECTORS)

    @model_validator(mode="after")
    def _something(self) -> "SearchOne":
        if self.query is None and not self.vectors:
            raise ValueError("expected `query`, `vectors` or both")
        return self

    @property
    def texts(self) -> Sequence[str]:
        """Text of each query; empty where it came as vectors alone."""
        return [self.query or ""]

    @property
    def given(self) -> dict[str, list[Any]]:
        """Field -> vectors of the queries, as they came."""
        return {name: [vector] for name, vector in (self.vectors or {}).items()}

    @property
    def has_texts(self) -> bool:
        """Whether fields without vectors can be encoded."""
        return self.query is not None


class SearchMany(SearchOptions):
    """Several queries with the same options: texts, vectors of each, or both."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"queries": ["solar cells", "wind power"], "k": 5, "include_text": False}],
        }
    )

    queries: list[str] | None
    vectors: list[FieldVectors] | None

    @model_validator(mode="after")
    def _something(self) -> "SearchMany":
        if self.queries is None and not self.vectors:
            raise ValueError("expected `queries`, `vectors` or both")
        if self.queries is not None and self.vectors is not None and len(self.queries) != len(self.vectors):
            raise ValueError(f"{len(self.queries)} queries with vectors of {len(self.vectors)}")
        fields = {frozenset(each) for each in self.vectors or ()}
        if len(fields) > 1:
            raise ValueError("vectors: every query brings vectors of the same fields")
        return self

    @property
    def texts(self) -> Sequence[str]:
        """Text of each query; empty where it came as vectors alone."""
        return [""] * len(self.vectors or ()) if self.queries is None else self.queries

    @property
    def given(self) -> dict[str, list[Any]]:
        """Field -> vectors of the queries, as they came."""
        return {name: [each[name] for each in self.vectors or ()] for name in (self.vectors or [{}])[0]}

    @property
    def has_texts(self) -> bool:
        """Whether fields without vectors can be encoded."""
        return self.queries is not None


Search = SearchOne | SearchMany


def search_bodies(limits: Limits) -> tuple[Any, Any]:
    """Return the types of the two bodies, ``SearchOne`` and ``SearchMany``, within the limits.

    The bounds stand in the types, so that the OpenAPI document and the validation cannot disagree.
    """
    text = Annotated[str, Field(max_length=limits.max_text_chars)]
    texts = Annotated[list[text], Field(min_length=1, max_length=limits.max_batch)]
    vectors = Annotated[list[FieldVectors], Field(min_length=1, max_length=limits.max_batch)]
    options: dict[str, Any] = {
        "k": (
            Annotated[int, BeforeValidator(whole)],
            Field(10, ge=1, le=limits.max_k, description="Results wanted for a query."),
        ),
        "offset": (
            Annotated[int, BeforeValidator(whole)],
            Field(0, ge=0, le=limits.max_k, description="Leave out so many of the best; offset + k is at most `--max-k`."),
        ),
        "search": (
            Annotated[str, Field(max_length=limits.max_search_chars)] | None,
            Field(None, description="Search expression, as `(bm25 + splade) > colbert`; by default the index's."),
        ),
        "filter": (
            Annotated[str, Field(max_length=MAX_CHARS)] | dict[str, Any] | None,
            Field(None, description="Condition on metadata that every result meets: an expression or a tree."),
        ),
        "timeout_s": (
            Annotated[float, Field(gt=0, le=limits.deadline_s)] | None,
            Field(None, description="Seconds until the request is given up with 503; by default the server's deadline."),
        ),
    }
    one = create_model("SearchOne", __base__=SearchOne, __doc__=SearchOne.__doc__, query=(text | None, None), **options)
    many = create_model(
        "SearchMany", __base__=SearchMany, __doc__=SearchMany.__doc__, queries=(texts | None, None),
        vectors=(vectors | None, Field(None, description=VECTORS)), **options,
    )  # fmt: skip
    return one, many
