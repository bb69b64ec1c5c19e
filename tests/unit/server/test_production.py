"""Request ids, the access log, metrics, CORS, gzip, settings."""

import argparse
import json
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lexmax.index.documents import Document
from lexmax.index.errors import StorageError
from lexmax.server.app import create_app
from lexmax.server.settings import Settings, add_setting_options, settings_of


@pytest.fixture
def log(tmp_path):
    return tmp_path / "access.jsonl"


@pytest.fixture
def client(retriever, run_server, log):
    settings = Settings(access_log=str(log), cors_origins=("https://a.example",))
    with run_server(create_app(retriever, settings=settings)) as (client, _):
        yield client


def lines_of(log, wait_until, n_lines):
    """Lines of the log, but for those of waiting for the server, which may come late."""

    def lines():
        found = [json.loads(line) for line in log.read_text().splitlines()]
        return [line for line in found if line["path"] != "/readyz"]

    wait_until(lambda: len(lines()) >= n_lines)
    return lines()


def samples(client):
    found = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_every_answer_has_an_id_the_clients_own_if_it_is_sound(client):
    assert re.fullmatch("[0-9a-f]{24}", client.get("/healthz").headers["x-request-id"])
    for given, kept in (("abc-1.2_3", True), ("a" * 64, True), ("a" * 65, False), ("a b", False), ('"', False)):
        for address in ("/healthz", "/none"):
            found = client.get(address, headers={"X-Request-Id": given}).headers["x-request-id"]
            assert (found == given) is kept


def test_the_access_log_tells_of_requests_and_not_of_their_texts(client, log, wait_until):
    log.write_text("")
    body = {"queries": ["a secret", "another"], "k": 2}
    answer = client.post("/v1/search/batch", json=body, headers={"X-Request-Id": "one", "Accept-Encoding": "identity"})
    client.get("/v1/documents/none?token=secret")
    client.head("/healthz")
    first, second, third = lines_of(log, wait_until, 3)
    assert (first["id"], first["method"], first["path"], first["status"]) == ("one", "POST", "/v1/search/batch", 200)
    assert (first["index"], first["queries"], first["k"], first["bytes"]) == ("index", 2, 2, len(answer.content))
    assert sorted(first["stages_ms"]) == ["bm25", "encode"]
    assert 0 < first["stages_ms"]["encode"] <= first["ms"]
    assert (second["status"], second["path"], "queries" in second) == (404, "/v1/documents/none", False)
    assert (third["method"], third["path"]) == ("HEAD", "/healthz")
    assert "secret" not in log.read_text()


def test_a_log_that_is_moved_away_is_begun_again(client, log, wait_until):
    client.get("/healthz")
    log.rename(log.with_suffix(".1"))
    client.get("/healthz")
    wait_until(log.exists)
    assert lines_of(log, wait_until, 1)


def test_a_log_that_cannot_be_written_ends_the_start(retriever, tmp_path):
    with pytest.raises(StorageError, match="none"):
        create_app(retriever, settings=Settings(access_log=str(tmp_path / "none" / "log")))


def test_metrics_count_requests_stages_and_batches(client):
    before = samples(client)
    for _ in range(3):
        client.post("/v1/search", json={"query": "x"})
    client.post("/v1/search", json={})
    client.get("/nowhere/at/all")
    client.request("BREW", "/v1/search")
    after = samples(client)

    def grown(name, **labels):
        key = name, tuple(sorted(labels.items()))
        return after.get(key, 0) - before.get(key, 0)

    assert grown("lexmax_requests_total", route="/v1/search", method="POST", status="200") == 3
    assert grown("lexmax_requests_total", route="/v1/search", method="POST", status="422") == 1
    assert grown("lexmax_requests_total", route="none", method="GET", status="404") == 1
    assert grown("lexmax_requests_total", route="/v1/search", method="other", status="405") == 1
    assert grown("lexmax_request_seconds_count", route="/v1/search") == 5
    assert grown("lexmax_stage_seconds_count", index="index", stage="encode") == 3
    assert grown("lexmax_stage_seconds_count", index="index", stage="bm25") == 3
    assert grown("lexmax_encode_batch_queries_sum", index="index") == 3
    assert after["lexmax_waiting_queries", ()] == 0
    assert after["lexmax_connections", ()] >= 1
    index = (("index", "index"),)
    assert [after[f"lexmax_index_{name}", index] for name in ("ready", "documents", "generation")] == [1, 3, 1]
    assert after["process_resident_memory_bytes", ()] > 1e6


def test_what_clients_write_becomes_no_label(client, retriever):
    retriever.fields = ("bm25", "splade")
    client.post("/v1/search", json={"query": "x", "search": "0.123*bm25 + 0.4*splade"})
    for name, labels in samples(client):
        assert "0.123" not in str((name, labels))


def test_metrics_of_an_index_that_is_not_open(retriever, start):
    retriever.search_error = RuntimeError("not yet")
    client, _ = start(ready=False)
    assert samples(client)["lexmax_index_ready", (("index", "index"),)] == 0


def test_pages_of_known_origins_may_ask_and_no_others(client, shared_client):
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    allowed = client.options("/v1/search", headers={"Origin": "https://a.example", **ask})
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, "https://a.example")
    answer = client.post("/v1/search", json={"query": "x"}, headers={"Origin": "https://a.example"})
    assert answer.headers["access-control-allow-origin"] == "https://a.example"
    for server, origin in ((client, "https://b.example"), (shared_client, "https://a.example")):
        refused = server.options("/v1/search", headers={"Origin": origin, **ask})
        assert refused.status_code in (400, 405)
        answer = server.post("/v1/search", json={"query": "x"}, headers={"Origin": origin})
        assert "access-control-allow-origin" not in refused.headers.keys() | answer.headers.keys()


def test_long_answers_are_compressed_for_those_who_take_it(client, retriever):
    retriever.documents = [Document(doc_id=f"d{i}", text="long " * 10_000) for i in range(3)]
    body = {"query": "x"}
    plain = client.post("/v1/search", json=body, headers={"Accept-Encoding": "identity"})
    packed = client.post("/v1/search", json=body, headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert "Accept-Encoding" in packed.headers["vary"]
    assert packed.json()["results"] == plain.json()["results"]
    short = client.get("/healthz", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in short.headers


def test_settings_come_from_flags_then_from_the_environment():
    parser = argparse.ArgumentParser()
    add_setting_options(parser)
    environment = {"LEXMAX_KEYS": "k", "LEXMAX_CORS_ORIGINS": "https://a.example, http://b:8080"}
    found = settings_of(parser.parse_args(["--keys", "other"]), environment)
    assert found == Settings(keys="other", cors_origins=("https://a.example", "http://b:8080"))
    assert settings_of(parser.parse_args([]), {}) == Settings()
    for wrong in ("a.example", "https://a.example/", "ftp://a.example", ""):
        with pytest.raises(ValueError, match="is no origin"):
            Settings(cors_origins=(wrong,))
    assert settings_of(parser.parse_args(["--writable"]), {}).writable
    for text, means in (("1", True), ("true", True), ("0", False), ("", False)):
        assert settings_of(parser.parse_args([]), {"LEXMAX_WRITABLE": text}).writable is means
    with pytest.raises(ValueError, match="LEXMAX_WRITABLE must be 1 or 0, not 'yes'"):
        settings_of(parser.parse_args([]), {"LEXMAX_WRITABLE": "yes"})
