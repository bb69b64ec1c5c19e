"""Spans of OpenTelemetry."""

import sys

import pytest

from lexmax.index.errors import MissingDependencyError
from lexmax.server import app as server_app
from lexmax.server.settings import Settings

pytest.importorskip("opentelemetry.sdk")
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def spans(monkeypatch):
    """What is sent, in the place of a collector."""
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    monkeypatch.setattr(server_app, "sent_to_collector", lambda: BatchSpanProcessor(exporter))
    return exporter.get_finished_spans


def test_a_request_is_a_span_of_the_clients_trace_without_its_texts(retriever, run_server, spans):
    body = {"query": "a secret", "search": "0.3*bm25 + 0.7*splade", "k": 2}
    with run_server(server_app.create_app(retriever, settings=Settings(traces=True))) as (client, _):
        parent = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "X-Request-Id": "one"}
        assert client.post("/v1/search", json=body, headers=parent).status_code == 200
        client.get("/v1/documents/secret?token=secret")
        client.get("/metrics")
    search, document = spans()  # sent when the server ends, at the latest
    assert search.name == "POST /v1/search"
    assert (f"{search.context.trace_id:032x}", f"{search.parent.span_id:016x}") == (TRACE, "b7ad6b7169203331")
    known = dict(search.attributes)
    assert (known["http.response.status_code"], known["lexmax.index"], known["lexmax.k"]) == (200, "index", 2)
    assert (known["lexmax.request_id"], known["lexmax.stage_ms.bm25"]) == ("one", 1.5)
    took_ms = (search.end_time - search.start_time) / 1e6
    assert 0 < known["lexmax.stage_ms.encode"] <= took_ms
    assert (document.name, document.attributes["http.response.status_code"]) == ("GET /v1/documents/{doc_id:path}", 404)
    assert document.parent is None
    assert "secret" not in search.to_json() + document.to_json()
    assert "0.3" not in str(known.keys())


def test_without_the_packages_the_extra_is_named(retriever, monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(MissingDependencyError, match=r"lexmax\[traces\]"):
        server_app.create_app(retriever, settings=Settings(traces=True))
