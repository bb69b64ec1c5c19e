"""Clients that send little, late or nothing, and what is no HTTP: over real sockets."""

import contextlib
import json
import socket
import time

import httpx
import pytest

from lexmax.index.documents import Document

SOON_S = 0.3
BODY = b'{"query": "x"}'
HEAD = b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 14\r\n"


@pytest.fixture
def connect(start):
    """Start a server; ``connect(count, sent=...)`` opens connections to it."""
    with contextlib.ExitStack() as stack:

        def connect(client, count=1, sent=b""):
            address = (client.base_url.host, client.base_url.port)
            opened = [stack.enter_context(socket.create_connection(address)) for _ in range(count)]
            for connection in opened:
                connection.settimeout(20)
                connection.sendall(sent)
            return opened if count > 1 else opened[0]

        yield connect


def answer_of(connection):
    """Read to the end: status and body; None for a connection that was closed without an answer."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            received += data
    head, _, body = received.partition(b"\r\n\r\n")
    return (int(head.split()[1]), json.loads(body)) if received else None


def is_error(answer, status, kind, message):
    assert answer is not None, "closed without an answer"
    assert answer[0] == status
    assert list(answer[1]) == ["error"]
    assert answer[1]["error"]["type"] == kind
    assert message in answer[1]["error"]["message"]


@pytest.mark.parametrize(
    ("sent", "status", "message"),
    [
        (b"GARBAGE\r\n\r\n", 400, "not HTTP/1.1: illegal request line"),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400, "not HTTP/1.1"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "Host"),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 200_000, 431, "too long"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "Transfer-Encoding"),
        (b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n", 400, "Content-Length"),
        (b"POST /v1/search HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", 400, "chunk"),
    ],
)
def test_what_is_no_http_is_refused_in_the_one_error_shape(shared_client, connect, sent, status, message):
    is_error(answer_of(connect(shared_client, sent=sent)), status, "invalid_request", message)
    assert shared_client.get("/healthz").status_code == 200


def test_a_head_that_does_not_come_is_not_waited_for(start, connect):
    client, _ = start(header_timeout_s=SOON_S)
    silent, halfway = connect(client), connect(client, sent=b"GET /healthz HT")
    is_error(answer_of(halfway), 408, "timeout", "the head of the request did not arrive within 0.3 s")
    assert answer_of(silent) is None


def test_the_clock_of_a_head_is_not_set_back_by_each_byte(start, connect, wait_until):
    client, _ = start(header_timeout_s=SOON_S)
    connection = connect(client, sent=b"GET /healthz HTTP/1.1\r\n")
    connection.setblocking(False)

    def answered():
        with contextlib.suppress(BlockingIOError):
            return connection.recv(12) == b"HTTP/1.1 408"
        connection.sendall(b"A: b\r\n")
        time.sleep(0.02)
        return False

    wait_until(answered)


def test_the_next_head_on_a_connection_is_waited_for_as_the_first(start, connect):
    client, _ = start(header_timeout_s=SOON_S)
    connection = connect(client, sent=b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    connection.sendall(b"GET")
    is_error(answer_of(connection), 408, "timeout", "0.3 s")


def test_a_body_that_does_not_come_is_not_waited_for(start, connect):
    client, _ = start(body_timeout_s=SOON_S)
    for sent in (HEAD + b"\r\n{", HEAD.replace(b"Content-Length: 14", b"Transfer-Encoding: chunked") + b"\r\n1\r\n{\r\n"):
        is_error(answer_of(connect(client, sent=sent)), 408, "timeout", "the body did not arrive within 0.3 s")


@pytest.mark.parametrize("sent", [b"", b"GET / HT", HEAD, HEAD + b"\r\n{"])
def test_connections_that_send_nothing_keep_nobody_out(start, connect, sent):
    client, _ = start(max_connections=20)
    slow = connect(client, 200, sent)
    for _ in range(5):  # on connections of their own: one that was kept may be cut off while it is used again
        assert httpx.post(f"{client.base_url}/v1/search", json={"query": "x"}, timeout=20).status_code == 200
    assert len(slow) == 200


def test_connections_with_a_request_are_not_cut_off_for_another(start, connect, retriever, wait_until):
    client, server = start(max_connections=2, keep_alive_s=1)
    client.headers["Connection"] = "close"
    wait_until(lambda: not server.server_state.connections)
    retriever.batches.clear()
    retriever.encoder_open.clear()
    busy = connect(client, 2, HEAD + b"Connection: close\r\n\r\n" + BODY)
    wait_until(lambda: retriever.batches)
    time.sleep(0.1)
    response = client.get("/healthz")
    assert (response.status_code, response.headers["connection"], response.headers["retry-after"]) == (503, "close", "1")
    assert response.json()["error"] == {"type": "overloaded", "message": "all 2 connections are busy: try again in a second"}
    retriever.encoder_open.set()
    assert [answer_of(connection)[0] for connection in busy] == [200, 200]
    wait_until(lambda: not server.server_state.connections)
    assert client.get("/healthz").status_code == 200


def test_an_answer_that_nobody_takes_is_cut_off_and_its_bytes_are_free_again(start, connect, retriever, wait_until):
    retriever.documents = [Document(doc_id=f"d{i}", text="x" * 2_000_000) for i in range(10)]
    sizes = {"max_body_bytes": 1000, "max_answer_bytes": 21_000_000, "max_held_bytes": 22_000_000}
    client, server = start(write_timeout_s=SOON_S, keep_alive_s=1, **sizes)
    client.headers["Connection"] = "close"
    connect(client, sent=HEAD + b"\r\n" + BODY)  # it never reads
    wait_until(lambda: len(server.server_state.connections) > 1)
    wait_until(lambda: not server.server_state.connections)
    assert len(client.post("/v1/search", json={"query": "x"}).content) > 20_000_000


def test_a_body_over_the_limit_is_read_to_its_end_so_that_its_client_sees_the_refusal(start, connect):
    client, _ = start(max_body_bytes=1000)
    response = client.post("/v1/search", content=b"x" * 20_000_000, headers={"Content-Type": "application/json"})
    is_error((response.status_code, response.json()), 413, "body_too_large", "larger than 1000 bytes")
    assert response.headers["connection"] == "close"
