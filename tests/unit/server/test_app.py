import json
import re
import resource
import socket
import threading
from types import SimpleNamespace

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lexmax.index.errors import EncoderMismatchError, RepresentationError, StorageError
from lexmax.server.app import create_app
from lexmax.server.limits import Limits
from lexmax.server.transport import process
from lexmax.server.transport.process import bound, check_files, serve


def error_of(response):
    """Check the one error shape; return type and message."""
    body = response.json()
    assert list(body) == ["error"]
    assert sorted(body["error"]) == ["message", "type"]
    assert response.headers["content-type"] == "application/json"
    return body["error"]["type"], body["error"]["message"]


def test_one_query(shared_client):
    response = shared_client.post("/v1/search", json={"query": "solar", "k": 2})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert sorted(body) == ["missing_shards", "reads", "results", "timings_ms", "took_ms"]
    assert body["timings_ms"] is None
    assert body["missing_shards"] is None
    assert body["took_ms"] > 0
    assert body["results"] == [
        {"doc_id": "a", "score": 3.0, "title": "Solar", "text": "Solar cells",
         "metadata": {"year": 2021, "tags": ["x"]}, "explanation": None, "unreadable": False},
        {"doc_id": "dir/b c%/ü", "score": 3.0, "title": "", "text": "Wind",
         "metadata": {"nested": {"ratio": None}}, "explanation": None, "unreadable": False},
    ]  # fmt: skip


def test_several_queries(shared_client):
    body = shared_client.post("/v1/search/batch", json={"queries": ["x", "y", "x"], "k": 1}).json()
    assert [[hit["doc_id"] for hit in hits] for hits in body["results"]] == [["a"], ["a"], ["a"]]


def test_explanations_and_no_texts(shared_client):
    options = {"query": "x", "k": 1, "explain": True, "include_text": False}
    (hit,) = shared_client.post("/v1/search", json=options).json()["results"]
    assert hit["text"] is None
    assert hit["title"] == "Solar"
    term = {"term": "solar", "score": 3.0, "query_weight": 1.5, "document_weight": 2.0,
            "query_expanded": False, "document_expanded": True}  # fmt: skip
    field = {"field": "bm25", "score": 3.0, "contribution": 3.0, "terms": [term], "tokens": [], "sentences": [],
             "vector": None, "measure": ""}  # fmt: skip
    assert hit["explanation"] == {
        "score": 3.0,
        "stages": [{"stage": "bm25", "rank": 1, "score": 3.0, "fields": [field], "n_scored": None}],
    }


def test_timings_on_request(shared_client):
    body = shared_client.post("/v1/search/batch", json={"queries": ["x"], "timings": True}).json()
    assert list(body["timings_ms"]) == ["encode", "bm25"]
    assert body["timings_ms"]["encode"] > 0
    assert body["timings_ms"]["bm25"] == 1.5
    assert body["reads"] == {}


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ({"search": "bm25 +"}, "invalid_search", "expected a field"),
        ({"search": "bm25 + colbert"}, "invalid_search", "there is no field 'colbert': there are bm25, splade"),
        ({"search": "spalde"}, "invalid_search", "there is no field 'spalde': did you mean 'splade'?"),
        ({"search": "splade + bm25:1000000"}, "invalid_search", "score 1000100 documents: at most 1000000"),
        ({"search": "bm25:1000" + " > bm25" * 100, "queries": ["x"] * 10}, "invalid_search", "score 1010000 documents"),
        ({"search": "(bm25:900000 + splade:90000):10 > splade:999999", "queries": ["x", "y"]}, "invalid_search", "1980020"),
        ({"options": {"splade": {}}}, "invalid_options", "options: options for the field 'splade'"),
        ({"options": {"bm25": {"n_probe": float("inf")}}}, "invalid_options", "infinity"),
        ({"k": 1000, "queries": ["x"] * 21}, "invalid_request", "ask for 21000 results: at most 20000 results"),
        ({"k": 67, "explain": True, "queries": ["x"] * 3}, "invalid_request", "ask for 201 explanations: at most 200 per"),
        ({"queries": ["x" * 19_000] * 11}, "invalid_request", "at most 200000 characters"),
    ],
)
def test_searches_that_cannot_be_answered_are_refused(shared_client, body, kind, message):
    query = {} if "queries" in body else {"query": "x"}
    content = json.dumps(query | body)
    address = "/v1/search/batch" if "queries" in body else "/v1/search"
    response = shared_client.post(address, content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert response.json()["error"]["type"] == kind
    assert message in response.json()["error"]["message"]


def test_options_reach_the_retriever(client, retriever):
    options = {"k": 7, "filter": {"year": {">": 2020}}, "explain": True, "search": "bm25 + splade",
               "options": {"splade": {"alpha": 0.5}}}  # fmt: skip
    assert client.post("/v1/search", json={"query": "x"} | options).status_code == 200
    assert retriever.options[-1] == options


def test_the_default_search_is_read_once(client, retriever):
    assert client.post("/v1/search", json={"query": "x"}).status_code == 200
    assert retriever.options[-1]["search"] == "bm25"


@pytest.mark.parametrize("address", ["a", "dir%2Fb%20c%25%2F%C3%BC", "dir/b%20c%25/%C3%BC"])
def test_a_document_by_an_id_with_anything_in_it(shared_client, address):
    response = shared_client.get(f"/v1/documents/{address}")
    assert response.status_code == 200
    assert response.json()["doc_id"] in ("a", "dir/b c%/ü")
    assert sorted(response.json()) == ["doc_id", "metadata", "text", "title"]


def test_index_facts_without_places(shared_client):
    assert shared_client.get("/v1/index").json() == {
        "n_docs": 3,
        "n_bytes": 1000,
        "fields": {
            "splade": {
                "encoder": {"kind": "splade", "settings": {"model": "tiny", "query_model": "naver/splade"}},
                "vocabulary": "v.txt",
            },
            "bm25": {"complete": False},
        },
        "metadata_fields": {"path": "string"},
        "segments": [{"name": "s0", "files": ["a.bin", "x" * 5000 + "/y"]}],
    }


CHANGING = ("date", "x-request-id")


@pytest.mark.parametrize(
    "address", ["/healthz", "/readyz", "/v1/index", "/v1/documents/a", "/v1/documents/none", "/openapi.json"]
)
def test_head_is_answered_as_get_without_a_body(shared_client, address):
    head, get = shared_client.head(address), shared_client.get(address)
    assert head.content == b""
    heads = [{name: text for name, text in answer.headers.items() if name not in CHANGING} for answer in (head, get)]
    assert (head.status_code, heads[0]) == (get.status_code, heads[1])
    assert shared_client.head("/v1/search").status_code == 405


@pytest.mark.parametrize(
    ("method", "address", "status", "kind"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/v1/search/", 404, "not_found"),
        ("GET", "/v1/documents/none", 404, "not_found"),
        ("GET", "/v1/documents/", 404, "not_found"),
        ("GET", "/v1/documents/%FF", 404, "not_found"),
        ("GET", "/v1/search", 405, "method_not_allowed"),
        ("DELETE", "/v1/documents/a", 403, "forbidden"),
        ("PUT", "/v1/documents/a", 405, "method_not_allowed"),
    ],
)
def test_addresses_that_are_not_there(shared_client, method, address, status, kind):
    response = shared_client.request(method, address)
    assert (response.status_code, error_of(response)[0]) == (status, kind)
    assert status != 405 or response.headers["allow"]


def test_a_method_that_is_not_taken_is_told_all_that_are(shared_client):
    response = shared_client.put("/v1/documents/a")
    assert (response.status_code, response.headers["allow"]) == (405, "DELETE, GET")
    assert error_of(response)[1] == "this address takes DELETE, GET"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "body: Field required"),
        (b"{", "body: JSON decode error at character 2: "),
        (b'{"query": x}', "body: JSON decode error at character 11: "),
        (b'{"query": "x", "K": 3}', "K: there is no field 'K': did you mean 'k'?"),
        (b"\xff", ""),
        (b"[" * 100_000, ""),
        (b'{"query": "x", "k": ' + b"9" * 5000 + b"}", ""),
        (b"[]", "body: "),
        (b"{}", "body: expected `query`, `vectors` or both"),
        (b'{"query": "x", "queries": ["x"]}', "queries: there is no field 'queries': did you mean 'query'?"),
        (b'{"query": "x", "explain": 0}', "explain: "),
        (b'{"query": "x", "k": 1001}', "k: "),
        (b'{"query": "x", "options": 3}', "options: "),
        (b'{"query": "x", "search": 1}', "search: "),
        (b'{"query": "x", "\\ud800": 1}', "body: "),
        (b'{"query": "x", "fliter": "a > 1"}', "fliter: there is no field 'fliter': did you mean 'filter'?"),
        (b'{"query": "x", "alpha": 1}', "alpha: there is no field 'alpha': there are k, offset, search, filter, options"),
        (b'{"qurey": "x"}', "qurey: there is no field 'qurey': did you mean 'query'?"),
        (b'{"query": "x", "k": 1, "options": {"a": 1}}', "options.a: "),
        (b'{"query": "\\ud800"}', "query: "),
        (json.dumps({"query": "x", **{f"{i}": 1 for i in range(100_000)}}).encode(), "body: an object of 100001 keys"),
        (
            json.dumps({"query": "x", "options": {f"{i}": 1 for i in range(100_000)}}).encode(),
            "options: options of 100000 fields",
        ),
    ],
)
def test_bodies_that_are_refused(shared_client, content, says):
    headers = {"Content-Type": "application/json"}
    response = shared_client.post("/v1/search", content=content, headers=headers)
    kind, message = error_of(response)
    assert response.status_code in (400, 422)
    assert kind == "invalid_request"
    assert says in message


def test_a_body_that_is_not_declared_as_json(shared_client):
    for declared in (None, "text/plain", "application/x-www-form-urlencoded"):
        headers = {} if declared is None else {"Content-Type": declared}
        response = shared_client.post("/v1/search", content=b'{"query": "x"}', headers=headers)
        assert response.status_code == 415
        assert error_of(response) == (
            "unsupported_media_type",
            f"the body must be JSON and declared so, not {declared or 'no type'}: send the header Content-Type: "
            "application/json (curl -H 'content-type: application/json')",
        )


def test_a_bad_filter_is_explained_before_anything_is_encoded(client, retriever):
    retriever.batches.clear()
    response = client.post("/v1/search", json={"query": "x", "filter": "bad"})
    assert response.status_code == 422
    assert error_of(response) == ("invalid_filter", "filter: expected a comparison at column 4")
    assert not retriever.batches


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (UnicodeDecodeError("utf-8", b"/secret", 0, 1, "bad"), 422, "invalid_filter"),
        (RecursionError("/secret"), 422, "invalid_filter"),
        (OverflowError("/secret"), 422, "invalid_filter"),
        (StorageError("/secret"), 500, "internal"),
        (OSError("/secret"), 500, "internal"),
    ],
)
def test_a_filter_that_fails_is_refused_and_a_damaged_index_is_not_blamed_on_it(client, retriever, error, status, kind):
    retriever.filter_error = error
    response = client.post("/v1/search", json={"query": "x", "filter": {"year": 3}})
    assert (response.status_code, error_of(response)[0]) == (status, kind)
    assert "secret" not in response.text + str(response.headers)
    assert response.headers["x-request-id"] in response.text


@pytest.mark.parametrize(
    ("error", "filter", "status", "kind"),
    [
        (EncoderMismatchError(index="a:1", encoder="b:2"), None, 409, "encoder_mismatch"),
        (RepresentationError("no sparse part"), None, 422, "representation"),
        (StorageError("/secret/postings: offset 7"), None, 500, "internal"),
        (ValueError("/secret shapes do not match"), None, 500, "internal"),
        (ValueError("/secret shapes do not match"), "year > 1", 500, "internal"),
        (UnicodeDecodeError("utf-8", b"/secret", 0, 1, "bad"), "year > 1", 500, "internal"),
        (RuntimeError("/secret"), None, 500, "internal"),
    ],
)
def test_errors_of_the_engine(client, retriever, error, filter, status, kind):
    retriever.search_error = error
    response = client.post("/v1/search", json={"query": "x", "filter": filter})
    assert (response.status_code, error_of(response)[0]) == (status, kind)
    assert "secret" not in response.text + str(response.headers)
    retriever.search_error = None
    assert client.post("/v1/search", json={"query": "x"}).status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("n_bytes", "status"), [(1000, 200), (1001, 413)])
def test_the_body_limit_counts_bytes_however_they_come(start, chunked, n_bytes, status):
    client, _ = start(max_body_bytes=1000)
    content = b'{"query": "x"}'.ljust(n_bytes)
    parts = iter([content[:400], content[400:800], content[800:]]) if chunked else content
    response = client.post("/v1/search", content=parts, headers={"Content-Type": "application/json"})
    assert response.status_code == status
    assert status == 200 or error_of(response)[0] == "body_too_large"


def test_a_chunked_body_without_end_is_cut_off(start):
    client, _ = start(max_body_bytes=1000, body_timeout_s=0.5)
    sent = []

    def endless():
        while True:
            sent.append(1)
            yield b"[" * 500

    # The server answers and closes while the client still sends: it sees the answer or the closed connection.
    try:
        assert client.post("/v1/search", content=endless()).status_code == 413
    except httpx.TransportError:
        assert sent
    assert client.get("/healthz").status_code == 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "query": st.text() | JSON,
        "queries": st.lists(st.text(), max_size=3) | JSON,
        "k": st.integers(-1, 1001) | JSON,
        "filter": st.text() | JSON,
        "explain": st.booleans() | JSON,
        "search": st.sampled_from(["bm25", "bm25 + splade", "x", "a > b"]) | JSON,
        "options": st.dictionaries(st.sampled_from(["bm25", "splade"]), st.dictionaries(st.text(), JSON)) | JSON,
        "include_text": st.booleans() | JSON,
        "other": JSON,
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BODIES | JSON)
@example({"query": "bad", "filter": "\x00"})
def test_no_body_surprises_the_server(shared_client, body):
    response = shared_client.post("/v1/search", content=json.dumps(body), headers={"Content-Type": "application/json"})
    if response.status_code == 200:
        assert isinstance(response.json()["results"], list)
    else:
        assert response.status_code in (400, 422)
        error_of(response)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary())
def test_no_bytes_surprise_the_server(shared_client, content):
    headers = {"Content-Type": "application/json"}
    response = shared_client.post("/v1/search", content=content, headers=headers)
    assert response.status_code in (400, 422)
    error_of(response)


def test_the_openapi_document_tells_of_errors_in_their_one_shape(shared_client):
    document = shared_client.get("/openapi.json").json()
    of_an_index = [
        "compact",
        "documents",
        "documents/delete",
        "documents/{doc_id}",
        "feedback",
        "fields",
        "search",
        "search/batch",
    ]
    others = ["embeddings", "index", "indexes", "indexes/{index}", "jobs", "jobs/{job_id}", "models", "rerank"]
    v1 = [*others, *of_an_index, *(f"indexes/{{index}}/{each}" for each in of_an_index)]
    assert sorted(document["paths"]) == sorted(["/healthz", "/readyz", *(f"/v1/{each}" for each in v1)])
    for path in document["paths"].values():
        for operation in path.values():
            for status, answer in operation["responses"].items():
                schema = answer["content"]["application/json"]["schema"]
                assert status in ("200", "202") or schema == {"$ref": "#/components/schemas/ErrorBody"}
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_create_app_refuses_a_period_that_is_none(retriever):
    with pytest.raises(ValueError, match="reload_every_s"):
        create_app(retriever, reload_every_s=0)


def test_a_port_in_use_is_known_before_anything_else():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with (
            pytest.raises(StorageError, match=r"cannot listen on 127.*in use; choose another"),
            bound(port=taken.getsockname()[1]),
        ):
            pytest.fail("bound")
    with bound(port=0) as mine, pytest.raises(StorageError, match="in use"), bound(port=mine.getsockname()[1]):
        pytest.fail("bound twice, before either listened")
    with pytest.raises(StorageError, match="cannot listen"), bound(port=70_000):
        pytest.fail("bound")


def test_answers_of_two_parts_are_not_held_back_by_nagle(retriever):
    server = process.Server(create_app(retriever), Limits())
    with bound(port=0) as listener:
        thread = threading.Thread(target=lambda: server.run(sockets=[listener]))
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=30) as client:
                assert client.get("/healthz").status_code == 200
                (connection,) = server.server_state.connections
                found = connection.transport.get_extra_info("socket")
                assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        finally:
            server.should_exit = True
            thread.join(30)


class FakeUvicorn:
    """Stands for the server; ``run`` is what the test makes of it."""

    def __init__(self, run):
        self.run = run

    def __call__(self, app, limits):
        return SimpleNamespace(run=lambda sockets: self.run(app, sockets))


def test_serve_takes_the_socket_that_is_bound(retriever, monkeypatch):
    ran = []
    monkeypatch.setattr(process, "Server", FakeUvicorn(lambda *given: ran.append(given)))
    with bound(port=0) as listener:
        serve(retriever, listener)
    ((app, sockets),) = ran
    assert sockets == [listener]
    assert app.title == "lexmax"


def test_threads_that_work_on_after_the_end_do_not_hold_the_process(retriever, monkeypatch):
    def interrupted(app, _):
        app.state.indexes.service()._running.add("a search that hangs")
        raise KeyboardInterrupt

    exits = []
    monkeypatch.setattr(process, "Server", FakeUvicorn(interrupted))
    monkeypatch.setattr(process.os, "_exit", exits.append)
    with bound(port=0) as listener, pytest.raises(KeyboardInterrupt):
        serve(retriever, listener)
    assert exits == [130]


def test_what_opening_the_index_raised_ends_the_server(monkeypatch):
    def opens():
        raise StorageError("the index is damaged")

    with bound(port=0) as listener, pytest.raises(StorageError, match="the index is damaged"):
        serve(opens, listener)


def test_more_connections_than_descriptors_are_refused():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY:
        pytest.skip("descriptors without bound")
    with pytest.raises(ValueError, match=r"open files, of which a process may have \d+ here: lower --max-connections"):
        check_files(Limits(max_connections=hard))


@pytest.mark.parametrize(
    ("address", "advice"),
    [("/v1/serach", "did you mean /v1/search?"), ("/search", "did you mean /v1/search?"), ("/x", "/openapi.json lists them")],
)
def test_the_nearest_address_is_named(shared_client, address, advice):
    assert advice in error_of(shared_client.get(address))[1]


def test_the_limits_of_the_server_stand_in_its_description_and_its_page(start):
    client, _ = start(max_k=77)
    assert "| `--max-k` | 77 | results per query |" in client.get("/openapi.json").json()["info"]["description"]


def test_the_description_loads_nothing_from_elsewhere(shared_client):
    page = shared_client.get("/docs")
    assert "default-src 'none'; script-src 'self'" in page.headers["content-security-policy"]
    assert "//" not in page.text
    loaded = re.findall(r'(?:src|href)="(docs/[^"]+)"', page.text)
    assert len(loaded) == 3
    for address in loaded:
        file = shared_client.get(f"/{address}")
        assert file.status_code == 200
        assert file.headers["content-type"].partition(";")[0] in ("text/javascript", "text/css")
