import dataclasses
import json

import pytest
from pydantic import TypeAdapter, ValidationError

from lexmax.index.filters.expressions import MAX_CHARS
from lexmax.retrieval.searchers.explanation import Explanation, FieldExplanation, StageExplanation, TermMatch, TokenMatch
from lexmax.server.app import create_app
from lexmax.server.limits import Limits
from lexmax.server.schemas import answers, errors, feedback, models, writing
from lexmax.server.schemas.openapi import flat
from lexmax.server.schemas.searches import search_bodies
from lexmax.server.settings import Settings

LIMITS = Limits(max_k=20, max_batch=3, max_text_chars=8, deadline_s=20.0)
ONE, MANY = map(TypeAdapter, search_bodies(LIMITS))


def test_defaults():
    defaults = {
        "k": 10,
        "offset": 0,
        "search": None,
        "filter": None,
        "timeout_s": None,
        "options": None,
        "boost": None,
        "feedback": None,
        "explain": False,
        "timings": False,
        "partial": False,
        "include_text": True,
        "include": None,
        "vectors": None,
    }
    assert ONE.validate_python({"query": "a"}).model_dump() == defaults | {"query": "a"}
    assert MANY.validate_python({"queries": ["a", "b"]}).model_dump() == defaults | {"queries": ["a", "b"]}


@pytest.mark.parametrize(
    "options",
    [
        {"k": 1},
        {"k": 20},
        {"k": 3.0},
        {"offset": 20},
        {"offset": 0.0},
        {"filter": "x" * 100_000},
        {"filter": None},
        {"filter": {"year": 3}},
        {"search": "a + b"},
        {"options": {"a": {"n_probe": 3}}},
        {"feedback": True},
        {"feedback": {"eta": 1, "alpha": 0.5}},
        {"explain": True},
        {"include": []},
        {"include": ["title", "text", "metadata", "metadata.year"]},
        {"timeout_s": 5},
        {"timeout_s": 0.5},
        {"timeout_s": 20.0},
    ],
)
def test_taken(options):
    ONE.validate_python({"query": "ü" * 8} | options)
    ONE.validate_python({"query": "a", "vectors": {"a": {"x": 1}}} | options)
    ONE.validate_python({"vectors": {"a": [1.0]}} | options)
    MANY.validate_python({"queries": ["", "b", "c"]} | options)
    MANY.validate_python({"vectors": [{"a": [1.0]}, {"a": [2.0]}]} | options)


@pytest.mark.parametrize(
    "body",
    [
        {}, [], "a", None, {"query": "a", "queries": ["b"]}, {"query": None}, {"query": 1}, {"query": ["a"]},
        {"query": "123456789"}, {"query": "\ud800"}, {"vectors": {}}, {"vectors": [1]}, {"query": "a", "vectors": 3},
        {"vectors": {str(number): [1] for number in range(101)}},
    ],
)  # fmt: skip
def test_refused_bodies_of_one_query(body):
    with pytest.raises(ValidationError):
        ONE.validate_python(body)


@pytest.mark.parametrize(
    "body",
    [
        {}, {"query": "a"}, {"queries": "a"}, {"queries": []}, {"queries": [1]}, {"queries": ["a"] * 4},
        {"queries": ["123456789"]}, {"vectors": []}, {"vectors": {"a": [1]}}, {"vectors": [{"a": [1]}] * 4},
        {"queries": ["a"], "vectors": [{"a": [1]}] * 2}, {"vectors": [{"a": [1]}, {"b": [1]}]},
    ],
)  # fmt: skip
def test_refused_bodies_of_several_queries(body):
    with pytest.raises(ValidationError):
        MANY.validate_python(body)


@pytest.mark.parametrize(
    "options",
    [
        {"k": 0}, {"k": 21}, {"k": True}, {"k": "3"}, {"k": 3.5}, {"k": 21.0}, {"k": float("inf")},
        {"k": None}, {"k": 10**400}, {"explain": 0}, {"offset": -1}, {"offset": 21}, {"offset": True},
        {"explain": "true"}, {"include_text": 1}, {"include_text": None}, {"search": 1}, {"search": "x" * 1001},
        {"timeout_s": 0}, {"timeout_s": 20.5}, {"timeout_s": "5"}, {"timeout_s": float("inf")}, {"timeout_s": True},
        {"options": {"a": 1}}, {"options": []}, {"alpha": 1}, {"include": ["titel"]}, {"include": "title"},
        {"include": ["title"], "include_text": False}, {"include": ["title"] * 101},
        {"filter": 1}, {"filter": []}, {"K": 3}, {"unknown": None},
        {"feedback": 1}, {"feedback": "true"}, {"feedback": {"eta": "1"}}, {"feedback": {"eta": float("inf")}},
    ],
)  # fmt: skip
def test_refused_options(options):
    for kind, body in ((ONE, {"query": "a"}), (MANY, {"queries": ["a"]})):
        with pytest.raises(ValidationError):
            kind.validate_python(body | options)


def test_limits_are_in_the_openapi_document(retriever):
    models = create_app(retriever, LIMITS).openapi()["components"]["schemas"]
    assert models["SearchOne"]["properties"]["k"]["maximum"] == 20
    assert models["SearchOne"]["properties"]["query"]["maxLength"] == 8
    assert models["SearchMany"]["properties"]["queries"]["maxItems"] == 3
    assert models["SearchOne"]["properties"]["filter"]["maxLength"] == MAX_CHARS
    assert models["SearchMany"]["additionalProperties"] is False


def test_the_openapi_document_has_no_alternatives_but_lists_of_types(retriever):
    document = create_app(retriever).openapi()
    text = json.dumps(document)
    for word in ("anyOf", "oneOf", "allOf"):
        assert word not in text
    properties = document["components"]["schemas"]["Hit"]["properties"]
    assert properties["text"]["type"] == ["string", "null"]
    assert properties["explanation"]["type"] == ["object", "null"]
    assert properties["explanation"]["properties"]["stages"]["items"] == {"$ref": "#/components/schemas/StageExplanation"}


def test_alternatives_that_share_a_keyword_cannot_be_merged():
    node = {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "array", "items": {"type": "integer"}}]}
    with pytest.raises(TypeError, match="items"):
        flat({"components": {"schemas": {"A": node}}})


def test_explanations_in_the_openapi_document_are_those_of_the_searchers(retriever):
    models = create_app(retriever).openapi()["components"]["schemas"]
    for kind in (Explanation, StageExplanation, FieldExplanation, TermMatch, TokenMatch):
        assert list(models[kind.__name__]["properties"]) == [field.name for field in dataclasses.fields(kind)]


def within(example, found):
    """Whether all that an example has is in what was made of it, which has defaults beside."""
    if isinstance(example, dict):
        return all(value is None or within(value, found[key]) for key, value in example.items())
    if isinstance(example, list):
        return len(example) == len(found) and all(map(within, example, found))
    return example == found


def test_every_example_in_the_openapi_document_fits_its_model(retriever):
    described = create_app(retriever, settings=Settings(writable=True)).openapi()["components"]["schemas"]
    one, many = search_bodies(Limits())
    kinds = {"SearchOne": one, "SearchMany": many}
    kinds |= {name: kind for module in (answers, errors, feedback, models, writing) for name, kind in vars(module).items()}
    examples = [(name, example) for name, model in described.items() for example in model.get("examples", [])]
    for name, example in examples:
        parsed = TypeAdapter(kinds[name]).validate_json(json.dumps(example))
        found = parsed.model_dump(mode="json", exclude_none=True)  # nulls are left out of the document
        assert within(example, found)
    assert {name for name, _ in examples} == {
        "SearchOne", "SearchMany", "OneAnswer", "ManyAnswer", "DocumentAnswer", "IndexInfo", "ErrorBody", "FeedbackBody",
        "FeedbackAnswer", "IndexesAnswer", "EmbeddingsBody", "RerankBody", "RerankAnswer", "AddBody", "DeleteBody",
        "CompactBody", "FieldBody", "IndexBody", "JobAnswer",
    }  # fmt: skip
