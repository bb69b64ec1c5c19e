import dataclasses
import json

import pytest
from pydantic import TypeAdapter, ValidationError

from lexmax.index.filters.expressions import MAX_CHARS
from lexmax.retrieval.searchers.explanation import Explanation, FieldExplanation, StageExplanation, TermMatch, TokenMatch
from lexmax.server import schemas
from lexmax.server.app import create_app
from lexmax.server.limits import Limits
from lexmax.server.schemas import SearchMany, SearchOne, search_body

LIMITS = Limits(max_k=20, max_batch=3, max_text_chars=8, deadline_s=20.0)
BODY = TypeAdapter(search_body(LIMITS))


def test_the_shape_follows_the_key():
    one, many = BODY.validate_python({"query": "a"}), BODY.validate_python({"queries": ["a", "b"]})
    assert isinstance(one, SearchOne)
    assert isinstance(many, SearchMany)
    defaults = {
        "k": 10,
        "search": None,
        "filter": None,
        "timeout_s": None,
        "options": None,
        "boost": None,
        "feedback": None,
        "explain": False,
        "timings": False,
        "include_text": True,
    }
    assert one.model_dump() == defaults | {"query": "a"}


@pytest.mark.parametrize(
    "options",
    [
        {"k": 1},
        {"k": 20},
        {"k": 3.0},
        {"filter": "x" * 100_000},
        {"filter": None},
        {"filter": {"year": 3}},
        {"search": "a + b"},
        {"options": {"a": {"n_probe": 3}}},
        {"feedback": True},
        {"feedback": {"eta": 1, "alpha": 0.5}},
        {"explain": True},
        {"timeout_s": 5},
        {"timeout_s": 0.5},
        {"timeout_s": 20.0},
    ],
)
def test_taken(options):
    BODY.validate_python({"query": "ü" * 8} | options)
    BODY.validate_python({"queries": ["", "b", "c"]} | options)


@pytest.mark.parametrize(
    "body",
    [
        {}, [], "a", None, {"query": "a", "queries": ["b"]}, {"query": None}, {"query": 1}, {"query": ["a"]},
        {"query": "123456789"}, {"query": "\ud800"}, {"queries": "a"}, {"queries": []}, {"queries": [1]},
        {"queries": ["a"] * 4}, {"queries": ["123456789"]},
    ],
)  # fmt: skip
def test_refused_bodies(body):
    with pytest.raises(ValidationError):
        BODY.validate_python(body)


@pytest.mark.parametrize(
    "options",
    [
        {"k": 0}, {"k": 21}, {"k": True}, {"k": "3"}, {"k": 3.5}, {"k": 21.0}, {"k": float("inf")},
        {"k": None}, {"k": 10**400}, {"explain": 0},
        {"explain": "true"}, {"include_text": 1}, {"include_text": None}, {"search": 1}, {"search": "x" * 1001},
        {"timeout_s": 0}, {"timeout_s": 20.5}, {"timeout_s": "5"}, {"timeout_s": float("inf")}, {"timeout_s": True},
        {"options": {"a": 1}}, {"options": []}, {"alpha": 1},
        {"filter": 1}, {"filter": []}, {"K": 3}, {"unknown": None},
        {"feedback": 1}, {"feedback": "true"}, {"feedback": {"eta": "1"}}, {"feedback": {"eta": float("inf")}},
    ],
)  # fmt: skip
def test_refused_options(options):
    for body in ({"query": "a"}, {"queries": ["a"]}):
        with pytest.raises(ValidationError):
            BODY.validate_python(body | options)


def test_limits_are_in_the_openapi_document(retriever):
    models = create_app(retriever, LIMITS).openapi()["components"]["schemas"]
    assert models["SearchOne"]["properties"]["k"]["maximum"] == 20
    assert models["SearchOne"]["properties"]["query"]["maxLength"] == 8
    assert models["SearchMany"]["properties"]["queries"]["maxItems"] == 3
    assert models["SearchOne"]["properties"]["filter"]["anyOf"][0]["maxLength"] == MAX_CHARS
    assert models["SearchMany"]["additionalProperties"] is False


def test_explanations_in_the_openapi_document_are_those_of_the_searchers(retriever):
    models = create_app(retriever).openapi()["components"]["schemas"]
    for kind in (Explanation, StageExplanation, FieldExplanation, TermMatch, TokenMatch):
        assert list(models[kind.__name__]["properties"]) == [field.name for field in dataclasses.fields(kind)]


def test_every_example_in_the_openapi_document_fits_its_model(retriever):
    models = create_app(retriever).openapi()["components"]["schemas"]
    examples = [(name, example) for name, model in models.items() for example in model.get("examples", [])]
    for name, example in examples:
        adapter = BODY_OF_ANY_LIMITS if name in ("SearchOne", "SearchMany") else getattr(schemas, name)
        parsed = TypeAdapter(adapter).validate_json(json.dumps(example))
        assert type(parsed).__name__ == name
        found = parsed.model_dump(mode="json", exclude_none=True)  # nulls are left out of the document
        assert all(found[key] == example[key] for key in example)
    assert {name for name, _ in examples} == {
        "SearchOne", "SearchMany", "OneAnswer", "ManyAnswer", "DocumentAnswer", "IndexInfo", "ErrorBody", "FeedbackBody",
        "FeedbackAnswer",
    }  # fmt: skip


BODY_OF_ANY_LIMITS = search_body(Limits())
