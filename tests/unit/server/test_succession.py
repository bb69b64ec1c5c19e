"""A restart under load refuses nobody: the successor takes the socket over once it is ready."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

from lexmax.retrieval.build import build_index


@pytest.fixture
def path(tmp_path):
    build_index(documents=["solar cells", "wind power"], out=tmp_path / "index", encoders=["bm25"])
    return tmp_path / "index"


def children_of(process):
    return [int(each) for each in open(f"/proc/{process}/task/{process}/children").read().split()]  # noqa: PTH123


def test_a_restart_refuses_no_request(path, wait_until):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    statuses, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            try:
                statuses.append(httpx.post(f"{url}/v1/search", json={"query": "solar"}, timeout=30).status_code)
            except httpx.HTTPError as error:
                statuses.append(repr(error))

    command = [sys.executable, "-m", "lexmax", "serve", str(path), "--port", str(port), "--log-level", "warning"]
    process = subprocess.Popen(command)
    successor = None
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{url}/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.05)
        asking = threading.Thread(target=ask)
        asking.start()
        wait_until(lambda: len(statuses) > 20)
        process.send_signal(signal.SIGUSR2)
        wait_until(lambda: children_of(process.pid))
        (successor,) = children_of(process.pid)
        wait_until(lambda: process.poll() is not None, 120)
        n_before = len(statuses)
        wait_until(lambda: len(statuses) > n_before + 20)
        stop.set()
        asking.join()
        assert set(statuses) == {200}
        assert process.returncode == 143  # as after any SIGTERM
    finally:
        stop.set()
        process.kill()
        process.wait()
        if successor is not None:
            os.kill(successor, signal.SIGTERM)


def test_a_successor_that_fails_changes_nothing(path, wait_until):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "lexmax", "serve", str(path), "--port", str(port), "--log-level", "error"]
    with subprocess.Popen(command) as process:
        try:

            def ready():
                try:
                    return httpx.get(f"{url}/readyz").status_code == 200
                except httpx.TransportError:
                    return False

            wait_until(ready, 120)
            (path / "manifest.json").rename(path / "away")
            process.send_signal(signal.SIGUSR2)
            wait_until(lambda: children_of(process.pid))
            (successor,) = children_of(process.pid)
            wait_until(lambda: open(f"/proc/{successor}/stat").read().split()[2] == "Z", 120)  # noqa: SIM115, PTH123
            assert httpx.post(f"{url}/v1/search", json={"query": "solar"}).status_code == 200
        finally:
            process.terminate()
            process.wait(30)
