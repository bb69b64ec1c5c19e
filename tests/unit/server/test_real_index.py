"""The server over a real index of two fields: what it answers is what a Retriever in the same process answers."""

import dataclasses
import json
import socket
import subprocess
import sys

import pytest

from lexmax.retrieval.build import build_index
from lexmax.retrieval.retriever import Retriever
from lexmax.server.app import create_app

WORDS = ["solar", "wind", "cells", "power", "storms", "panels", "turbines", "grid"]
SEARCH = "(0.4*bm25 + 0.6*plain):20 > plain"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("server") / "index"
    documents = [
        {"_id": f"d{i}", "title": f"{WORDS[i % 8]} {i}", "text": " ".join(WORDS[(i * j) % 8] for j in range(1, 7)),
         "year": 2000 + i, "tags": ["even" if i % 2 == 0 else "odd"]}
        for i in range(40)
    ]  # fmt: skip
    build_index(documents=documents, out=path, encoders=["bm25", "plain=bm25,k1=2.0"], search="bm25 + plain")
    return path


@pytest.fixture(scope="module")
def engine(path):
    with Retriever.open(path) as retriever:
        yield retriever


@pytest.fixture(scope="module")
def client(path, run_server):
    with run_server(create_app(Retriever.open(path))) as (client, _):
        yield client


def plain(value):
    """Dataclasses and tuples as JSON has them."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"search": "plain"},
        {"search": SEARCH, "explain": True},
        {"k": 3, "filter": "year >= 2020 and 'odd' in tags"},
        {"k": 3, "filter": {"year": {">=": 2020}, "tags": {"contains": "odd"}}, "explain": True},
        {"k": 3, "filter": '{"year": {">=": 2020}}'},
        {"k": 3, "filter": "unseen is None and author.name is None"},
        {"search": "bm25 > plain", "options": {"bm25": {"algorithm": "exhaustive"}}},
        {"boost": {"storm": 3, "solar": 0}, "explain": True},
    ],
)
def test_what_is_served_is_what_is_searched(client, engine, options):
    queries = ["solar panels", "wind turbines", "nothing-of-this"]
    answer = client.post("/v1/search/batch", json={"queries": queries} | options).json()
    expected = engine.search_batch(queries, **options)
    assert answer["results"] == [plain(list(results)) for results in expected]
    assert answer["results"][0]
    one = client.post("/v1/search", json={"query": queries[0]} | options).json()
    assert one["results"] == answer["results"][0]


def test_explanations_come_stage_by_stage(client):
    body = {"query": "solar", "k": 1, "search": SEARCH, "explain": True, "timings": True}
    answer = client.post("/v1/search", json=body).json()
    stages = answer["results"][0]["explanation"]["stages"]
    assert [stage["stage"] for stage in stages] == ["0.4*bm25 + 0.6*plain", "> plain"]
    assert [[field["field"] for field in stage["fields"]] for stage in stages] == [["bm25", "plain"], ["plain"]]
    assert stages[-1]["fields"][0]["terms"][0]["term"] == "solar"
    assert {"encode", "> plain"} <= answer["timings_ms"].keys()


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ({"search": "bm25 + plian"}, "invalid_search", "did you mean 'plain'?"),
        ({"search": "(bm25"}, "invalid_search", "expected )"),
        ({"options": {"bm25": {"alhpa": 1}}}, "invalid_options", "did you mean 'alpha'?"),
        ({"options": {"bm52": {"alpha": 1}}}, "invalid_options", "did you mean 'bm25'?"),
        ({"options": {"bm25": {"alpha": 1e400}}}, "invalid_options", "options: "),
        ({"options": {"bm25": {"alpha": 10**400}}}, "invalid_options", "options: "),
        ({"options": {"bm25": {"algorithm": "no"}}}, "invalid_options", "options: "),
        ({"options": {"bm25": {"algorithm": ["x"]}}}, "invalid_options", "options: "),
        ({"boost": {"strom": 2}}, "invalid_options", "boost: no term 'strom' in bm25, plain"),
        ({"boost": {"storm": -2}}, "invalid_request", "greater than or equal to 0"),
        ({"boost": {"storm": "2"}}, "invalid_request", "number"),
        ({"boost": {str(i): 1 for i in range(101)}}, "invalid_request", "boost of 101 terms: at most 100"),
        ({"filter": "yaer > 3"}, "invalid_filter", "yaer"),
        ({"filter": "not " * 2400 + "(year > 3)"}, "invalid_filter", "levels"),
        ({"filter": {"year": {">": 10**400}}}, "invalid_filter", "year"),
        ({"filter": {"year": {">": float("nan")}}}, "invalid_filter", ""),
        ({"filter": {"title": "\ud800"}}, "invalid_filter", "surrogate"),
        ({"filter": {"year": {"~": 3}}}, "invalid_filter", "operator"),
        ({"filter": " or ".join(["year == 1"] * 10_001)}, "invalid_filter", "comparisons"),
        ({"filter": '{"year": '}, "invalid_filter", "JSON"),
        ({"filter": {"year": {"in": [None]}}}, "invalid_filter", "int64"),
        ({"filter": {}}, "invalid_filter", "an object"),
    ],
)
def test_what_the_index_cannot_answer_is_refused_with_a_reason(client, body, kind, message):
    content = json.dumps({"query": "x"} | body)
    response = client.post("/v1/search", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert response.json()["error"]["type"] == kind
    assert message in response.json()["error"]["message"]


def test_the_facts_of_every_field_and_no_place(client, path):
    response = client.get("/v1/index")
    facts = response.json()
    assert facts["fields"].keys() == {"bm25", "plain"}
    assert facts["fields"]["plain"]["encoder"]["kind"] == "bm25"
    assert (facts["n_docs"], facts["search"]) == (40, "bm25 + plain")
    assert str(path.parent) not in response.text


def test_an_empty_index_is_served(tmp_path, run_server):
    build_index(documents=["one"], out=tmp_path / "index", encoders=["bm25"])
    with Retriever.open(tmp_path / "index") as retriever:
        doc_id = retriever.search("one")[0].doc_id
        retriever.delete([doc_id])
    with run_server(create_app(Retriever.open(tmp_path / "index"))) as (client, _):
        assert client.post("/v1/search", json={"query": "one"}).json()["results"] == []


def test_the_command_ends_with_one_line_where_the_port_is_in_use(path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "lexmax", "serve", str(path), "--port", port]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"lexmax: cannot listen on 127.0.0.1:{port}: ")
