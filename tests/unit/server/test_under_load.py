"""Many clients at once, clients that leave, start and end, commits of others: over real connections."""

import json
import logging
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from lexmax.index.documents import Document
from lexmax.server.searching.service import Service

MAX_WAITING = 32


def search(client, *queries):
    if len(queries) == 1:
        return client.post("/v1/search", json={"query": queries[0]})
    return client.post("/v1/search/batch", json={"queries": queries})


def n_waiting(client):
    """Ask for more than can be taken while something waits: the refusal says how many queries do."""
    response = search(client, *["x"] * MAX_WAITING)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.json()["error"]["type"] == "overloaded"
    return int(response.json()["error"]["message"].split()[0])


@pytest.fixture
def pool(retriever):
    with ThreadPoolExecutor(16) as threads:
        yield threads
        retriever.encoder_open.set()
        retriever.search_open.set()


@pytest.fixture
def client(start):
    client, _ = start(max_batch=32, max_waiting=MAX_WAITING)
    return client


@pytest.fixture
def first(client, retriever, pool, wait_until):
    """Hold the encoder in a batch of one query; the future is that query's answer."""
    retriever.batches.clear()
    retriever.encoder_open.clear()
    future = pool.submit(search, client, "first")
    wait_until(lambda: retriever.batches)
    return future


def test_sixteen_clients_get_their_own_answers(client, retriever, pool):
    # The fake fails a search whose vectors belong to another text.
    retriever.batches.clear()
    responses = list(pool.map(lambda i: search(client, f"q{i}", f"r{i}"), range(160)))
    assert [response.status_code for response in responses] == [200] * 160
    assert sum(map(len, retriever.batches)) == 320


def test_queries_that_wait_share_a_batch(client, retriever, pool, first, wait_until):
    others = [pool.submit(search, client, f"q{i}") for i in range(15)]
    wait_until(lambda: n_waiting(client) == 16)
    retriever.encoder_open.set()
    assert [future.result().status_code for future in [first, *others]] == [200] * 16
    assert retriever.batches[0] == ["first"]
    assert sorted(retriever.batches[1]) == sorted(f"q{i}" for i in range(15))


def test_a_bad_text_fails_alone(client, retriever, pool, first, wait_until):
    good, bad = pool.submit(search, client, "good"), pool.submit(search, client, "poison", "fine")
    wait_until(lambda: n_waiting(client) == 4)
    retriever.encoder_open.set()
    assert [future.result().status_code for future in (first, good, bad)] == [200, 200, 500]
    assert sorted(retriever.batches[1]) == ["fine", "good", "poison"]
    assert "secret" not in bad.result().text


def test_searches_run_beside_each_other(client, retriever, pool, wait_until):
    retriever.searched.clear()
    retriever.search_open.clear()
    futures = [pool.submit(search, client, f"q{i}") for i in range(2)]
    wait_until(lambda: len(retriever.searched) == 2)  # both are inside, and neither can end
    assert client.get("/healthz").status_code == 200
    retriever.search_open.set()
    assert [future.result().status_code for future in futures] == [200, 200]


def test_a_client_that_hangs_up_leaves_the_queue(client, retriever, first, wait_until, caplog):
    body = json.dumps({"query": "gone"}).encode()
    head = "POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.sendall(head.encode() + body)
        wait_until(lambda: n_waiting(client) == 2)
    wait_until(lambda: n_waiting(client) == 1)
    retriever.encoder_open.set()
    assert first.result().status_code == 200
    assert search(client, "next").status_code == 200
    assert retriever.batches == [["first"], ["next"]]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_body_that_is_never_finished_harms_nobody(client):
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.sendall(b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        assert search(client, "x").status_code == 200
    assert search(client, "y").status_code == 200


def test_ready_only_when_warm(retriever, start, wait_until, caplog):
    retriever.search_error = RuntimeError("not yet")
    client, _ = start(reload_every_s=0.01, ready=False)
    with caplog.at_level(logging.INFO, logger="lexmax.server.searching.service"):
        wait_until(lambda: len(retriever.searched) > 1)  # it tries again
        for response in (client.get("/readyz"), search(client, "x")):
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"
            assert response.json()["error"]["type"] == "unavailable"
        assert client.get("/healthz").json() == {"status": "ok"}
        retriever.search_error = None
        wait_until(lambda: client.get("/readyz").status_code == 200)
    assert "warm and ready" in caplog.messages


def test_commits_are_looked_for_and_a_failed_look_is_survived(retriever, start, wait_until, caplog):
    retriever.reloads = [False, OSError("/secret"), True]
    with caplog.at_level(logging.INFO, logger="lexmax.server.searching.service"):
        client, _ = start(reload_every_s=0.01)
        wait_until(lambda: retriever.n_reloads > 3)
        assert client.get("/readyz").status_code == 200
    assert caplog.messages.count("opened a newer snapshot of the index") == 1
    assert any(message.startswith("warm-up or reload failed") for message in caplog.messages)


def test_shutdown_answers_what_was_taken_then_closes_the_index(retriever, start, pool, wait_until):
    client, server = start(max_batch=32, max_waiting=MAX_WAITING, reload_every_s=0.01)
    retriever.batches.clear()
    retriever.encoder_open.clear()
    taken = [pool.submit(search, client, f"q{i}") for i in range(4)]
    wait_until(lambda: n_waiting(client) == 4)
    server.should_exit = True
    wait_until(lambda: not server.servers[0].is_serving())
    assert not retriever.closed
    retriever.encoder_open.set()
    # The fake fails whatever is asked of it after close.
    assert [future.result().status_code for future in taken] == [200] * 4
    wait_until(lambda: retriever.closed)
    with pytest.raises(httpx.ConnectError):
        httpx.get(str(client.base_url))


def test_what_is_left_at_the_end_of_the_grace_is_answered_with_503(retriever, start, pool, wait_until, monkeypatch):
    monkeypatch.setattr(Service.close, "__defaults__", (0.05,))
    client, server = start(max_batch=32, max_waiting=MAX_WAITING, grace_s=1)
    retriever.batches.clear()
    retriever.searched.clear()
    retriever.search_open.clear()
    searching = pool.submit(search, client, "searching")
    wait_until(lambda: retriever.searched)
    retriever.encoder_open.clear()
    encoding = pool.submit(search, client, "encoding")
    wait_until(lambda: len(retriever.batches) == 2)
    queued = pool.submit(search, client, "queued")
    wait_until(lambda: n_waiting(client) == 3)
    server.should_exit = True
    for future in (searching, encoding, queued):
        response = future.result()
        assert (response.status_code, response.headers["connection"]) == (503, "close")
        assert response.headers["content-type"] == "application/json"
        assert response.json() == {"error": {"type": "unavailable", "message": "the server is shutting down"}}
    assert not retriever.closed  # threads are at work on it


def test_a_request_that_is_out_of_time_is_answered_and_leaves_the_queue(retriever, start, pool, wait_until):
    client, _ = start(deadline_s=0.5, max_waiting=256)
    retriever.batches.clear()
    retriever.encoder_open.clear()
    encoding = pool.submit(search, client, "encoding")
    wait_until(lambda: retriever.batches)
    queued = pool.submit(search, client, "queued")
    for future, seconds in ((encoding, 0.5), (queued, 0.5)):
        response = future.result()
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        message = f"no answer within {seconds} s: the server is busy, or the request asks for too much"
        assert response.json() == {"error": {"type": "deadline", "message": message}}
    retriever.encoder_open.set()
    assert search(client, "next").status_code == 200
    assert retriever.batches == [["encoding"], ["next"]]


def test_a_request_may_ask_for_less_time_than_the_server_gives(retriever, start, pool, wait_until):
    client, _ = start(deadline_s=60.0)
    retriever.search_open.clear()
    response = client.post("/v1/search", json={"query": "x", "timeout_s": 0.2})
    assert (response.status_code, response.json()["error"]["type"]) == (503, "deadline")
    assert "within 0.2 s" in response.json()["error"]["message"]
    response = client.post("/v1/search", json={"query": "x", "timeout_s": 61})
    assert (response.status_code, response.json()["error"]["message"][:11]) == (422, "timeout_s: ")


def test_the_worker_stops_after_the_piece_at_hand_when_time_is_up(retriever, start, pool, wait_until):
    client, _ = start()
    retriever.searched.clear()
    retriever.search_open.clear()
    body = {"queries": [f"q{i}" for i in range(100)], "timeout_s": 0.3}
    assert client.post("/v1/search/batch", json=body).status_code == 503
    retriever.search_open.set()
    assert search(client, "next").status_code == 200
    assert [len(texts) for texts in retriever.searched] == [16, 1]


@pytest.mark.parametrize(("n_queries", "k", "pieces"), [(30, 10, [16, 14]), (3, 500, [2, 1]), (2, 1000, [1, 1])])
def test_a_request_of_many_queries_goes_piece_by_piece(client, retriever, n_queries, k, pieces):
    retriever.searched.clear()
    queries = [f"q{i}" for i in range(n_queries)]
    answer = client.post("/v1/search/batch", json={"queries": queries, "k": k, "timings": True}).json()
    assert [len(texts) for texts in retriever.searched] == pieces
    assert [text for texts in retriever.searched for text in texts] == queries
    assert len(answer["results"]) == n_queries
    assert answer["timings_ms"]["bm25"] == 1.5 * len(pieces)


def test_documents_and_facts_have_a_deadline_too(retriever, start, pool, wait_until):
    client, _ = start(deadline_s=0.3)
    retriever.search_open.clear()
    retriever.searched.clear()
    n_threads = os.cpu_count() or 1
    searches = [pool.submit(search, client, f"q{i}") for i in range(n_threads)]
    wait_until(lambda: len(retriever.searched) == n_threads)
    for address in ("/v1/documents/a", "/v1/index"):
        response = client.get(address)
        assert (response.status_code, response.json()["error"]["type"]) == (503, "deadline")
    assert [future.result().status_code for future in searches] == [503] * n_threads
    assert client.get("/healthz").status_code == 200


def test_an_answer_over_the_limit_is_refused_with_the_numbers(retriever, start):
    retriever.documents = [Document(doc_id=f"d{i}", text="x" * 1000) for i in range(10)]
    client, _ = start(max_answer_bytes=30_000)
    body = {"queries": ["a", "b", "c"], "k": 10}
    assert client.post("/v1/search/batch", json={**body, "queries": ["a", "b"]}).status_code == 200
    response = client.post("/v1/search/batch", json=body)
    assert (response.status_code, response.json()["error"]["type"]) == (422, "invalid_request")
    message = response.json()["error"]["message"]
    assert "larger than 30000 bytes: 3 of 3 queries with k = 10 have 3" in message
    assert "include_text" in message
    assert client.post("/v1/search/batch", json={**body, "include_text": False}).status_code == 200


def test_what_requests_hold_together_is_bounded_and_given_back(retriever, start, pool, wait_until):
    retriever.documents = [Document(doc_id=f"d{i}", text="x" * 1000) for i in range(10)]
    client, server = start(max_body_bytes=10_000, max_answer_bytes=15_000, max_held_bytes=26_000)
    retriever.batches.clear()
    retriever.encoder_open.clear()
    large = {"query": "x", "include_text": False, "filter": "'" + "x" * 9_000 + "'"}
    taken = [pool.submit(client.post, "/v1/search", json=large) for _ in range(2)]
    wait_until(lambda: server._indexes.admission.n_waiting == 2)
    response = client.post("/v1/search", json=large)
    assert response.json()["error"]["type"] == "overloaded"
    assert "of 26000" in response.json()["error"]["message"]
    retriever.encoder_open.set()
    assert [future.result().status_code for future in taken] == [200, 200]
    for _ in range(10):
        assert client.post("/v1/search", json={"query": "x"}).status_code == 200


def test_until_the_index_is_open_requests_are_refused_and_then_answered(retriever, start, wait_until):
    may_open = threading.Event()

    def opens():
        assert may_open.wait(30)
        return retriever

    client, _ = start(opens=opens, ready=False)
    for response in (client.get("/readyz"), search(client, "x"), client.get("/v1/index"), client.get("/v1/documents/a")):
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert response.json()["error"]["type"] == "unavailable"
    assert client.get("/healthz").status_code == 200
    may_open.set()
    wait_until(lambda: client.get("/readyz").status_code == 200)
    assert search(client, "x").status_code == 200


def test_requests_that_come_while_others_are_cut_get_an_answer_too(retriever, start, pool, wait_until, monkeypatch):
    monkeypatch.setattr(Service.close, "__defaults__", (0.05,))
    client, server = start(grace_s=1)
    retriever.search_open.clear()
    futures = [pool.submit(search, client, f"q{i}") for i in range(12)]
    wait_until(lambda: len(server.server_state.tasks) == 12)
    server.should_exit = True
    answers = [future.result() for future in futures]
    assert [answer.status_code for answer in answers] == [503] * 12
    assert {answer.json()["error"]["type"] for answer in answers} == {"unavailable"}


def test_at_overload_every_answer_is_200_or_503_and_afterwards_all_is_well(retriever, start, wait_until, monkeypatch):
    encode = retriever.encode
    monkeypatch.setattr(retriever, "encode", lambda *given: time.sleep(0.005) or encode(*given))
    client, server = start(max_batch=4, max_waiting=16, deadline_s=1.0)
    with ThreadPoolExecutor(64) as clients:
        answers = list(clients.map(lambda i: search(client, f"q{i}", f"r{i}"), range(640)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 503}
    assert {answer.json()["error"]["type"] for answer in answers if answer.status_code == 503} <= {"overloaded", "deadline"}
    assert search(client, "after").status_code == 200
    wait_until(lambda: not server.server_state.tasks)
