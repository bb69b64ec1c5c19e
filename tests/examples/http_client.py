"""The HTTP server and a client of the standard library; needs the extra ``serve``."""

import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from lexmax import build_index

DOCUMENTS = [
    {"id": "cats", "text": "Cats purr.", "legs": 4},
    {"id": "birds", "text": "Birds sing, and cats listen.", "legs": 2},
]


def wait_until_ready(address: str, server: subprocess.Popen[bytes], seconds: float = 120) -> None:
    """Return when the index is open and warm."""
    end = time.monotonic() + seconds
    while server.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{address}/readyz", timeout=2):  # noqa: S310
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError("the server did not become ready")


def post(url: str, body: object) -> dict:
    """Send JSON and return the JSON of the answer; errors are {"error": {"type", "message"}}."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return json.load(error)


with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = str(free.getsockname()[1])
with tempfile.TemporaryDirectory() as folder:
    index, address = Path(folder) / "index", f"http://127.0.0.1:{port}"
    build_index(documents=DOCUMENTS, out=index, encoders=["bm25"])
    server = subprocess.Popen([sys.executable, "-m", "lexmax", "serve", index, "--port", port, "--log-level", "warning"])
    try:
        wait_until_ready(address, server)
        found = post(f"{address}/v1/search", {"query": "cats", "k": 2, "filter": "legs == 2", "timings": True})
        print([hit["doc_id"] for hit in found["results"]], list(found["timings_ms"]))
        print(post(f"{address}/v1/search", {"query": "cats", "search": "colbert"}))
    finally:
        server.terminate()
        server.wait(timeout=30)
