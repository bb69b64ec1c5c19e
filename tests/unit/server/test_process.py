"""The server as a process of its own: how it begins, refuses to begin, and ends after a signal."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

from lexmax.retrieval.build import build_index

SLOW = """
import signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup leaves it ignored
from lexmax.retrieval.retriever import Retriever
found = Retriever.search_vectors
def slowly(self, queries, texts=None, *given, **options):
    if texts and "slow" in texts[0]:
        time.sleep(600)
    return found(self, queries, texts, *given, **options)
Retriever.search_vectors = slowly
from lexmax.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("process") / "index"
    build_index(documents=["solar cells", "wind power"], out=path, encoders=["bm25"])
    return path


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def lexmax_serve(*arguments, **environment):
    command = [sys.executable, "-m", "lexmax", "serve", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **environment})


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        (["--max-k", "0"], {}, "lexmax: max_k (--max-k, LEXMAX_MAX_K) must be at least 1, not 0"),
        ([], {"LEXMAX_DEADLINE_S": "soon"}, "lexmax: LEXMAX_DEADLINE_S must be a number, not 'soon'"),
    ],
)
def test_limits_that_make_no_sense_end_the_command_with_one_line(path, arguments, environment, says):
    ended = lexmax_serve(path, "--port", free_port(), *arguments, **environment)
    assert (ended.returncode, ended.stdout, ended.stderr.splitlines()) == (2, "", [says])


def test_where_no_index_is_the_command_ends_with_one_line(tmp_path):
    ended = lexmax_serve(tmp_path / "none", "--port", free_port())
    (line,) = ended.stderr.splitlines()
    assert (ended.returncode, ended.stdout) == (2, "")
    assert str(tmp_path / "none") in line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_process_in_time_and_every_request_gets_json(path, wait_until, number):
    """A search in a thread cannot be stopped; neither it nor requests that wait behind it hold the process."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-c", SLOW, "serve", str(path), "--port", str(port), "--grace-s", "1", "--log-level", "error"]
    with subprocess.Popen(command) as process:
        try:
            statuses = set()
            deadline = time.monotonic() + 120
            while 200 not in statuses and time.monotonic() < deadline:
                try:
                    response = httpx.post(f"{url}/v1/search", json={"query": "solar"})
                except httpx.TransportError:
                    time.sleep(0.01)
                    continue
                statuses.add(response.status_code)
            assert statuses <= {200, 503}, "until the index is open there is 503"
            assert 200 in statuses
            body = json.dumps({"queries": ["slow"] * 20}).encode()
            head = "POST /v1/search/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            head += f"Content-Length: {len(body)}\r\n\r\n"
            waiting = [socket.create_connection(("127.0.0.1", port)) for _ in range(12)]
            for connection in waiting:
                connection.settimeout(30)
                connection.sendall(head.encode() + body)
            time.sleep(0.5)
            asked = time.monotonic()
            process.send_signal(number)
            for connection in waiting:
                received = b""
                while data := connection.recv(65536):
                    received += data
                connection.close()
                head, _, answer = received.partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 503 ")
                assert json.loads(answer) == {"error": {"type": "unavailable", "message": "the server is shutting down"}}
            process.wait(30)
            assert time.monotonic() - asked < 15
        finally:
            process.kill()
