"""API keys: the file, the command, and what a server lets pass."""

import base64
import hashlib
import json
import stat

import pytest

from lexmax.__main__ import main
from lexmax.server.app import create_app
from lexmax.server.guarding.guard import only_reads
from lexmax.server.guarding.keys import KeyFile, make_key, read_keys, write_keys
from lexmax.server.settings import Settings


@pytest.fixture
def file(tmp_path):
    return tmp_path / "keys.json"


@pytest.fixture
def keys(file):
    made = {scope: make_key(f"{scope}er", scope) for scope in ("read", "write")}
    write_keys(file, {key.id: key for _, key in made.values()})
    return {scope: text for scope, (text, _) in made.items()}


@pytest.fixture
def client(keys, file, retriever, run_server):
    with run_server(create_app(retriever, reload_every_s=0.05, settings=Settings(keys=str(file))), ready=True) as (client, _):
        yield client


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def error_of(response):
    return response.status_code, response.json()["error"]["type"], response.json()["error"]["message"]


def test_only_hashes_are_kept_and_for_the_owner_alone(keys, file):
    text = file.read_text()
    for key in keys.values():
        assert key not in text
        assert key.split("_")[2] not in text
        assert hashlib.sha256(key.encode()).hexdigest() in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_key_is_found_and_nothing_like_it(keys, file):
    found = KeyFile(file)
    assert found.find(keys["read"]).scope == "read"
    assert found.find(keys["write"]).name == "writeer"
    other, _ = make_key("other", "read")
    first, number, secret = keys["read"].split("_", 2)
    for wrong in ("", other, keys["read"][:-1], keys["read"] + "x", f"{first}_{number}_{'A' * 43}", "\ud800", secret):
        assert found.find(wrong) is None


def test_requests_without_a_key_are_refused_before_their_body_is_read(client, retriever):
    retriever.batches.clear()
    for headers in ({}, {"Authorization": "Basic ???"}, {"Authorization": "Digest x"}, bearer("x"), {"X-API-Key": ""}):
        response = client.post("/v1/search", content=b"no JSON", headers=headers)
        assert error_of(response)[:2] == (401, "unauthorized")
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert response.headers["x-request-id"]
    for address in ("/v1/index", "/v1/indexes", "/metrics", "/docs", "/openapi.json", "/nothing"):
        assert client.get(address).status_code == 401
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
    assert not retriever.batches


def test_a_key_comes_in_any_of_three_headers(client, keys):
    basic = base64.b64encode(f"anyone:{keys['read']}".encode()).decode()
    for headers in (bearer(keys["read"]), {"X-API-Key": keys["read"]}, {"Authorization": f"Basic {basic}"}):
        assert client.post("/v1/search", json={"query": "x"}, headers=headers).status_code == 200


def test_a_key_that_may_read_changes_nothing(client, keys):
    impressions = {"impressions": [{"query": "q", "shown": ["a"]}]}
    status, kind, message = error_of(client.post("/v1/feedback", json=impressions, headers=bearer(keys["read"])))
    assert (status, kind) == (403, "forbidden")
    assert "'reader' may only read" in message
    answer = client.post("/v1/feedback", json=impressions, headers=bearer(keys["write"]))
    assert "click log" in error_of(answer)[2]  # it passed, and there is no log


@pytest.mark.parametrize(
    ("method", "path", "reads"),
    [
        ("GET", "/v1/anything", True), ("HEAD", "/", True), ("POST", "/v1/search", True), ("POST", "/v1/search/batch", True),
        ("POST", "/v1/indexes/a/search", True), ("POST", "/v1/rerank", True), ("POST", "/mcp", True),
        ("POST", "/v1/indexes", False), ("POST", "/v1/indexes/search", False), ("POST", "/v1/indexes/a/b/search", False),
        ("POST", "/v1/indexes/a/documents", False), ("DELETE", "/v1/indexes/a/documents/search", False),
        ("PUT", "/v1/search", False), ("POST", "/v1/feedback", False), ("POST", "/v1/search\n", False),
    ],
)  # fmt: skip
def test_what_only_reads(method, path, reads):
    assert only_reads(method, path) is reads


def test_keys_of_a_changed_file_are_taken_and_removed_ones_are_not(client, keys, file, wait_until):
    new, key = make_key("new", "read")
    assert client.get("/v1/index", headers=bearer(new)).status_code == 401
    write_keys(file, {key.id: key})
    wait_until(lambda: client.get("/v1/index", headers=bearer(new)).status_code == 200)
    assert client.get("/v1/index", headers=bearer(keys["read"])).status_code == 401
    file.write_text("{")
    wait_until(lambda: client.get("/v1/index", headers=bearer(new)).status_code == 200)  # damage locks nobody out


def test_the_command_makes_lists_and_removes_keys(file, capsys):
    assert main(["keys", "add", str(file), "--name", "web"]) == 0
    key = capsys.readouterr().out.strip()
    assert KeyFile(file).find(key).name == "web"
    assert main(["keys", "add", str(file), "--name", "job", "--scope", "write"]) == 0
    capsys.readouterr()
    assert main(["keys", "list", str(file)]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [(line[1], line[3]) for line in lines] == [("read", "web"), ("write", "job")]
    assert main(["keys", "remove", str(file), lines[0][0]]) == 0
    assert KeyFile(file).find(key) is None
    assert len(read_keys(file)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add"], "needs --name"),
        (["add", "--name", " "], "a key is named by 1 to 100"),
        (["list"], "keys.json: No such file"),
        (["remove", "12345678"], "No such file"),
    ],
)
def test_mistakes_end_the_command_with_one_line(file, capsys, arguments, message):
    assert main(["keys", arguments[0], str(file), *arguments[1:]]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"keys": [{"id": "x"}]}', '{"keys": 3}', '{"keys": [3]}'])
def test_a_file_that_is_none_of_keys_is_refused(file, content, retriever):
    file.write_text(content)
    with pytest.raises(ValueError, match="is no file of keys"):
        create_app(retriever, settings=Settings(keys=str(file)))


def test_a_scope_that_nobody_knows_is_no_key(file, keys):
    record = json.loads(file.read_text())
    record["keys"][0]["scope"] = "admin"
    file.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="no file of keys"):
        KeyFile(file)
