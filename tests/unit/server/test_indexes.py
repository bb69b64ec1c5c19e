"""Several indexes in one process, by name; and searches by vectors, from an offset, with chosen parts of documents."""

import subprocess
import sys

import numpy as np
import pytest
from hashed_tokens import HashedTexts

from lexmax import Retriever, build_index
from lexmax.index.errors import IndexNotFoundError
from lexmax.server.app import create_app
from lexmax.server.indexes import named_folders

SEA = [{"_id": f"s{i}", "title": f"Sea {i}", "text": f"a ship {i} of the sea", "year": 2000 + i} for i in range(12)]
SKY = [{"_id": "k0", "text": "a plane of the sky"}]


def error_of(response):
    return response.status_code, response.json()["error"]["type"], response.json()["error"]["message"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("indexes")
    encoders = {"bm25": "bm25", "dense": HashedTexts()}
    build_index(documents=SEA, out=folder / "sea", encoders=encoders, search="bm25")
    build_index(documents=SKY, out=folder / "sky", encoders=["bm25"])
    (folder / "nothing").mkdir()
    return folder


@pytest.fixture(scope="module")
def client(folder, run_server):
    opens = {
        "sea": lambda: Retriever.open(folder / "sea", encoders={"dense": HashedTexts()}),
        "sky": lambda: Retriever.open(folder / "sky"),
    }
    with run_server(create_app(opens)) as (client, _):
        yield client


def test_each_index_answers_under_its_name(client):
    listed = client.get("/v1/indexes").json()
    assert listed["default"] is None
    assert [(each["name"], each["ready"], each["n_docs"]) for each in listed["indexes"]] == [
        ("sea", True, 12),
        ("sky", True, 1),
    ]
    assert listed["indexes"][0]["fields"] == ["bm25", "dense"]
    for name, first in (("sea", "s0"), ("sky", "k0")):
        found = client.post(f"/v1/indexes/{name}/search", json={"query": "ship 0 plane"}).json()["results"]
        assert found[0]["doc_id"] == first
        assert client.get(f"/v1/indexes/{name}/documents/{first}").json()["doc_id"] == first
        assert client.get(f"/v1/indexes/{name}").json()["n_docs"] == {"sea": 12, "sky": 1}[name]
    many = client.post("/v1/indexes/sky/search/batch", json={"queries": ["plane", "ship"]}).json()["results"]
    assert [len(each) for each in many] == [1, 0]
    assert error_of(client.post("/v1/indexes/sky/feedback", json={"impressions": [{"query": "q", "shown": ["k0"]}]}))[0] == 404


def test_addresses_without_a_name_are_for_servers_of_one_index(client, shared_client):
    status, kind, message = error_of(client.post("/v1/search", json={"query": "ship"}))
    assert (status, kind) == (404, "not_found")
    assert "not one index but sea, sky" in message
    assert "did you mean 'sea'?" in error_of(client.post("/v1/indexes/seas/search", json={"query": "ship"}))[2]
    assert shared_client.get("/v1/indexes").json()["default"] == "index"
    assert shared_client.post("/v1/indexes/index/search", json={"query": "x"}).status_code == 200


def test_an_offset_leaves_out_the_best(client):
    def found(**options):
        answer = client.post("/v1/indexes/sea/search", json={"query": "ship sea", **options})
        assert answer.status_code == 200
        return [hit["doc_id"] for hit in answer.json()["results"]]

    everything = found(k=12)
    assert len(everything) == 12
    assert found(k=5, offset=3) == everything[3:8]
    assert found(k=5, offset=10) == everything[10:]
    assert found(k=5, offset=100) == []
    status, _, message = error_of(client.post("/v1/indexes/sea/search", json={"query": "x", "k": 900, "offset": 101}))
    assert (status, message) == (422, "k + offset is 1001: at most 1000")


def test_results_hold_what_is_asked_for(client):
    def hit(*include):
        return client.post("/v1/indexes/sea/search", json={"query": "ship 3", "k": 1, "include": include}).json()["results"][0]

    assert (hit()["title"], hit()["text"], hit()["metadata"]) == (None, None, None)
    assert (hit("title")["title"], hit("text")["text"]) == ("Sea 3", "a ship 3 of the sea")
    assert hit("metadata")["metadata"] == {"year": 2003}
    assert hit("metadata.year", "title")["metadata"] == {"year": 2003}
    assert hit("metadata.month")["metadata"] == {}


def test_vectors_find_what_their_text_finds(client, folder):
    with Retriever.open(folder / "sea", encoders={"dense": HashedTexts()}) as engine:
        dense = engine.encode(["ship 3"], "dense")["dense"].vectors[0].tolist()
        sparse = {"ship": 1.0, "3": 1.0}
        expected = {
            search: [(hit.doc_id, hit.score) for hit in engine.search("ship 3", 4, search=search)]
            for search in ("dense", "bm25", "bm25 + dense", "bm25 > dense")
        }
    for search, vectors in (
        ("dense", {"dense": dense}),
        ("bm25", {"bm25": sparse}),
        ("bm25 + dense", {"bm25": sparse, "dense": dense}),
        ("bm25 > dense", {"bm25": sparse, "dense": dense}),
    ):
        body = {"vectors": vectors, "search": search, "k": 4}
        found = client.post("/v1/indexes/sea/search", json=body).json()["results"]
        assert [(hit["doc_id"], pytest.approx(hit["score"])) for hit in found] == expected[search]
        many = {"vectors": [vectors] * 20, "search": search, "k": 4}
        answers = client.post("/v1/indexes/sea/search/batch", json=many).json()["results"]
        assert answers == [found] * 20
    # The text stands for the field without a vector, and for explanations.
    body = {"query": "ship 3", "vectors": {"dense": dense}, "search": "bm25 + dense", "k": 4, "explain": True}
    found = client.post("/v1/indexes/sea/search", json=body).json()["results"]
    assert [(hit["doc_id"], pytest.approx(hit["score"])) for hit in found] == expected["bm25 + dense"]
    assert found[0]["explanation"]["stages"][0]["fields"][0]["terms"][0]["query_expanded"] is False


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ({"dense": [0.5] * 3}, "vectors.dense: a vector has"),
        ({"dense": [[0.5]]}, "vectors.dense: a vector has"),
        ({"dense": ["x"]}, "vectors.dense: a query is a list of numbers"),
        ({"dense": {"a": 1}}, "vectors.dense: a query is a list of numbers"),
        ({"bm25": [0.5]}, 'vectors.bm25: a vector of a sparse field is an object, as {"term": 1.5}'),
        ({"bm25": {"ship": -1}}, "vectors.bm25: "),
        ({"bm25": {"ship": "x"}}, "vectors.bm25: "),
        ({"splade": {"ship": 1}}, "vectors of 'splade': the search names bm25, dense"),
        ({"bm25": {"ship": 1}}, "no vectors of the field 'dense', which the search names: send them, or the text"),
    ],
)
def test_vectors_that_do_not_fit_are_refused_with_a_reason(client, folder, vectors, message):
    response = client.post("/v1/indexes/sea/search", json={"vectors": vectors, "search": "bm25 + dense"})
    status, kind, told = error_of(response)
    assert (status, kind) == (422, "invalid_vectors")
    assert message in told
    assert str(folder) not in told


def test_token_vectors_come_as_matrices(tmp_path, run_server):
    from hashed_tokens import HashedTokens

    texts = ["a ship of the sea", "a plane of the sky"]
    build_index(documents=texts, out=tmp_path / "i", encoders={"tokens": HashedTokens()})
    with run_server(create_app(Retriever.open(tmp_path / "i", encoders={"tokens": HashedTokens()}))) as (client, _):
        matrix = HashedTokens().encode_queries(["plane"]).row(0)
        by_vectors = client.post("/v1/search", json={"vectors": {"tokens": matrix.tolist()}}).json()["results"]
        by_text = client.post("/v1/search", json={"query": "plane"}).json()["results"]
        assert by_vectors == by_text
        for wrong, says in (((matrix * 2).tolist(), "unit"), (np.zeros((2, 3)).tolist(), "token vectors of"), (3, "a list of")):
            status, kind, message = error_of(client.post("/v1/search", json={"vectors": {"tokens": wrong}}))
            assert (status, kind) == (422, "invalid_vectors")
            assert says in message


def test_folders_get_their_names(folder, tmp_path):
    assert named_folders([str(folder)]) == {"sea": folder / "sea", "sky": folder / "sky"}
    assert named_folders([f"ocean={folder}/sea", f"{folder}/sky"]) == {"ocean": folder / "sea", "sky": folder / "sky"}
    with pytest.raises(ValueError, match="two indexes are called sea"):
        named_folders([str(folder), f"{folder}/sea"])
    with pytest.raises(IndexNotFoundError):
        named_folders([str(tmp_path)])
    with pytest.raises(IndexNotFoundError):
        named_folders([str(folder / "nothing")])
    build_index(documents=["x"], out=tmp_path / "a b", encoders=["bm25"])
    with pytest.raises(ValueError, match="write NAME="):
        named_folders([str(tmp_path / "a b")])
    assert named_folders([f"ab={tmp_path}/a b"]) == {"ab": tmp_path / "a b"}


def test_options_of_one_index_are_refused_for_several(folder):
    command = [sys.executable, "-m", "lexmax", "serve", str(folder), "--port", "0", "--search", "bm25"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2
    assert ended.stderr == "lexmax: --search is for a server of one index; requests choose their search and its options\n"
