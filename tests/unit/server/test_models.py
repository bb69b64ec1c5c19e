"""Embeddings, reranking and models: the shapes of other tools over fields of an index."""

import base64

import numpy as np
import pytest
from hashed_tokens import HashedTexts, HashedTokens

from lexmax import Retriever, build_index
from lexmax.server.app import create_app

TEXTS = ["solar cells make power", "wind makes power at sea", "a market for steel"]
ENCODERS = {"dense": HashedTexts(), "tokens": HashedTokens()}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "one"
    encoders = {"bm25": "bm25", "splade": "lexmax-splade", **ENCODERS}
    build_index(documents=TEXTS, out=path, encoders=encoders, search="bm25 > tokens")
    return path


@pytest.fixture(scope="module")
def engine(path):
    with Retriever.open(path, encoders=ENCODERS) as retriever:
        yield retriever


@pytest.fixture(scope="module")
def client(path, run_server):
    opens = {"one": lambda: Retriever.open(path, encoders=ENCODERS)}
    with run_server(create_app(opens)) as (client, _):
        yield client


def embeddings(client, **body):
    response = client.post("/v1/embeddings", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def refusal(response):
    return response.status_code, response.json()["error"]["message"]


def test_fields_are_listed_as_models(client):
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    facts = {each["id"]: each for each in listed["data"]}
    assert set(facts) == {"bm25", "splade", "dense", "tokens"}
    assert facts["dense"] == {
        "id": "dense", "object": "model", "created": 0, "owned_by": "one", "representation": "dense", "kind": "hashed-dense",
        "dim": 32, "reranks": True,
    }  # fmt: skip
    assert (facts["bm25"]["dim"], facts["bm25"]["reranks"], facts["splade"]["reranks"]) == (None, False, True)


def test_dense_embeddings_as_numbers_and_packed(client):
    found = embeddings(client, model="dense", input=TEXTS)
    expected = HashedTexts().encode_queries(TEXTS).vectors
    assert [each["index"] for each in found["data"]] == [0, 1, 2]
    assert np.allclose([each["embedding"] for each in found["data"]], expected)
    assert (found["object"], found["model"], found["usage"]["total_tokens"]) == ("list", "dense", 13)
    packed = embeddings(client, model="one/dense", input=TEXTS[0], encoding_format="base64", dimensions=32, user="me")
    (each,) = packed["data"]
    assert np.array_equal(np.frombuffer(base64.b64decode(each["embedding"]), "<f4"), expected[0])


def test_sparse_and_token_vectors_are_what_searches_take(client, engine):
    for field, key in (("splade", "sparse"), ("tokens", "tokens"), ("dense", "embedding")):
        (each,) = embeddings(client, model=field, input="wind power")["data"]
        assert [name for name in ("sparse", "tokens", "embedding") if each[name] is not None] == [key]
        by_vector = client.post("/v1/search", json={"vectors": {field: each[key]}, "search": field}).json()["results"]
        assert [hit["doc_id"] for hit in by_vector] == [hit.doc_id for hit in engine.search("wind power", search=field)]
    (each,) = embeddings(client, model="tokens", input="wind power", encoding_format="base64")["data"]
    matrix = np.frombuffer(base64.b64decode(each["tokens"]), "<f4").reshape(each["n_tokens"], -1)
    assert np.array_equal(matrix, HashedTokens().encode_queries(["wind power"]).row(0))


def test_texts_are_encoded_as_what_they_are_said_to_be(client, engine):
    (document,) = embeddings(client, model="splade", input=TEXTS[0], input_type="document")["data"]
    (query,) = embeddings(client, model="splade", input=TEXTS[0])["data"]
    encoder = engine.encoders(["splade"])["splade"]
    assert len(document["sparse"]) == len(encoder.encode_documents([TEXTS[0]]).row(0)[0])
    assert len(query["sparse"]) == len(encoder.encode_queries([TEXTS[0]]).row(0)[0])
    (bm25,) = embeddings(client, model="bm25", input="Solar cells")["data"]
    assert bm25["sparse"] == {"solar": 1.0, "cell": 1.0}


def test_reranking_scores_as_a_search_does(client, engine):
    for field, tolerance in (("dense", 1e-3), ("tokens", 0.05), ("splade", 0.05)):
        body = {"model": field, "query": "wind power", "documents": TEXTS}
        found = client.post("/v1/rerank", json=body).json()
        searched = engine.search("wind power", search=field)
        scores = {TEXTS[each["index"]]: each["relevance_score"] for each in found["results"]}
        for hit in searched:
            assert scores[hit.text] == pytest.approx(hit.score, rel=tolerance, abs=tolerance)
        assert [each["relevance_score"] for each in found["results"]] == sorted(scores.values(), reverse=True)
        assert found["model"] == field


def test_reranking_returns_the_best_with_their_texts(client):
    body = {"query": "wind power", "documents": TEXTS * 20, "top_n": 2, "return_documents": True}
    found = client.post("/v1/rerank", json=body).json()
    assert found["model"] == "tokens"  # the last that the index searches with
    assert [each["document"]["text"] for each in found["results"]] == [TEXTS[1]] * 2
    assert [each["index"] for each in found["results"]] == [1, 4]


@pytest.mark.parametrize(
    ("address", "body", "status", "message"),
    [
        ("embeddings", {"model": "dnese", "input": "x"}, 404, "there is no model 'dnese': did you mean 'dense'?"),
        ("embeddings", {"model": "two/dense", "input": "x"}, 404, "there is no index 'two'"),
        ("embeddings", {"model": "dense", "input": []}, 422, "input"),
        ("embeddings", {"model": "dense", "input": [1, 2]}, 422, "input"),
        ("embeddings", {"model": "dense", "input": "x", "dimensions": 16}, 422, "vectors of dense have 32"),
        ("embeddings", {"model": "dense", "input": "x", "encoding_format": "hex"}, 422, "encoding_format"),
        ("embeddings", {"model": "dense", "input": ["x" * 20_000] * 11}, 422, "at most 200000 characters"),
        ("rerank", {"model": "bm25", "query": "x", "documents": ["y"]}, 422, "the field bm25 does not score pairs"),
        ("rerank", {"query": "x", "documents": []}, 422, "documents"),
        ("rerank", {"query": "x", "documents": ["y"], "top_n": 0}, 422, "top_n"),
        ("rerank", {"query": "x", "documents": ["y"], "topn": 1}, 422, "did you mean 'top_n'?"),
    ],
)
def test_what_is_refused(client, address, body, status, message):
    found = refusal(client.post(f"/v1/{address}", json=body))
    assert found[0] == status
    assert message in found[1]
