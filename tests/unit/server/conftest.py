"""A retriever that obeys the engine's contract without an index, and a real uvicorn around it."""

import contextlib
import threading
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from lexmax.index.documents import Document
from lexmax.index.errors import FilterError
from lexmax.index.representations.sparse import SparseVectors
from lexmax.retrieval.pipelines.expression import parse
from lexmax.retrieval.results import Result, Results
from lexmax.retrieval.searchers.explanation import Explanation, FieldExplanation, StageExplanation, TermMatch
from lexmax.server.app import create_app
from lexmax.server.limits import Limits
from lexmax.server.transport.process import Server

DEADLINE_S = 30
COMPILE_S = 300  # a real index may have its kernels compiled first


DOCUMENTS = [
    Document(doc_id="a", title="Solar", text="Solar cells", metadata={"year": 2021, "tags": ["x"]}),
    Document(doc_id="dir/b c%/ü", text="Wind", metadata={"nested": {"ratio": float("nan")}}),
    Document(doc_id="c", title="Empty", text=""),
]


@dataclass
class FakeRetriever:
    """Finds every document for every query; a text's vector is one term, so mixed-up rows show."""

    fingerprint: str = "fake:0123456789abcdef"
    fields: tuple[str, ...] = ("bm25", "splade")
    documents: list[Document] = field(default_factory=lambda: DOCUMENTS)
    batches: list[list[str]] = field(default_factory=list)
    searched: list[list[str]] = field(default_factory=list)
    options: list[dict[str, Any]] = field(default_factory=list)
    encoder_open: threading.Event = field(default_factory=threading.Event)
    search_open: threading.Event = field(default_factory=threading.Event)
    search_error: Exception | None = None
    reloads: list[bool | Exception] = field(default_factory=list)
    n_reloads: int = 0
    closed: bool = False
    filter_error: Exception | None = None
    default_search: str = "bm25"
    clicks: Any = None
    n_docs: int = 3
    generation: int = 1
    manifest: Any = field(default_factory=lambda: SimpleNamespace(build_id="b", fields={}, segments=()))

    def __post_init__(self):
        self.encoder_open.set()
        self.search_open.set()
        self._numbers: dict[str, int] = {}
        self._lock = threading.Lock()

    def _number(self, text):
        with self._lock:
            return self._numbers.setdefault(text, len(self._numbers))

    def _use(self, gate=None):
        assert gate is None or gate.wait(DEADLINE_S)
        assert not self.closed, "used after close"

    def search_fields(self, search=None, options=None, boost=None, feedback=None):
        if feedback and self.clicks is None:
            raise ValueError("there is no click log")
        fields = parse(search or self.default_search).fields
        assert set(fields) <= set(self.fields)
        for name, given in (options or {}).items():
            if name not in fields:
                raise ValueError(f"options for the field {name!r}")
            if "n_probe" in given:
                int(given["n_probe"])
        return fields

    @property
    def snapshot(self):
        self._use()
        return self

    def masks(self, filter):
        if self.filter_error is not None:
            raise self.filter_error
        if filter == "bad":
            raise FilterError("filter: expected a comparison at column 4")

    def encode(self, texts, search=None):
        self.batches.append(list(texts))
        self._use(self.encoder_open)
        if "poison" in texts:
            raise ZeroDivisionError("/secret/model.safetensors")
        vectors = SparseVectors.from_rows([([self._number(text)], [1.5]) for text in texts])
        return dict.fromkeys(self.search_fields(search), vectors)

    def search_vectors(
        self, queries, texts, k=10, *, search=None, filter=None, options=None, boost=None, feedback=None, explain=False,
        timings=False, partial=False, checkpoint=None,
    ):  # fmt: skip
        self.searched.append(list(texts))
        self._use(self.search_open)
        if checkpoint is not None:
            checkpoint()
        if self.search_error is not None:
            raise self.search_error
        for i, text in enumerate(texts):
            for vectors in queries.values():
                assert vectors.row(i)[0].tolist() == [self._number(text)], "another request's row"
        assert set(queries) == set(self.search_fields(search))
        self.options.append({"k": k, "search": search, "filter": filter, "options": options, "explain": explain})
        match = TermMatch(term="solar", score=3.0, query_weight=1.5, document_weight=2.0, query_expanded=False,
                          document_expanded=True)  # fmt: skip
        field = FieldExplanation(field="bm25", score=3.0, contribution=3.0, terms=[match])
        stage = StageExplanation(stage="bm25", rank=1, score=3.0, fields=[field])
        explanation = Explanation(score=3.0, stages=[stage]) if explain else None
        found = [
            Result(doc_id=d.doc_id, score=3.0, title=d.title, text=d.text, metadata=dict(d.metadata), explanation=explanation)
            for d in self.documents[:k]
        ]
        return [Results(found, {"bm25": 1.5} if timings else None) for _ in texts]

    def find(self, doc_ids):
        self._use()
        known = [document.doc_id for document in self.documents]
        return np.array([known.index(each) if each in known else -1 for each in doc_ids], np.int64)

    def warm(self):
        self.search_vectors(self.encode(["warm up"]), ["warm up"], 1)

    def document(self, doc_id):
        self._use()
        return next((d for d in self.documents if d.doc_id == doc_id), None)

    def info(self):
        self._use()
        return {
            "path": "/secret/index",
            "n_docs": 3,
            "n_bytes": 1000,
            "fields": {
                "splade": {
                    "encoder": {"kind": "splade", "settings": {"model": "/secret/tiny", "query_model": "naver/splade"}},
                    "vocabulary": "../secret/v.txt",
                },
                "bm25": {"complete": False},
            },
            "metadata_fields": {"path": "string"},
            "segments": [{"name": "s0", "files": ["/secret/s0/a.bin", "x" * 5000 + "/y"]}],
        }

    def reload(self):
        self._use()
        self.n_reloads += 1
        outcome = self.reloads.pop(0) if self.reloads else False
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def close(self):
        self.closed = True


@contextlib.contextmanager
def run_server(app, limits=Limits(), ready=True):  # noqa: B008
    """Run uvicorn as ``serve`` does, in a thread, until ready; yields an httpx client and the uvicorn server."""
    server = Server(app, limits, port=0)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        port = server.servers[0].sockets[0].getsockname()[1]
        limits = httpx.Limits(max_connections=64)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE_S, limits=limits) as client:
            if ready:
                wait_until(lambda: client.get("/readyz").status_code == 200, COMPILE_S)
            yield client, server
    finally:
        server.should_exit = True
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


def wait_until(condition, within_s=DEADLINE_S):
    """Wait for what another thread does; fails after the deadline."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


@pytest.fixture
def retriever():
    return FakeRetriever()


@pytest.fixture
def start(retriever):
    """Start servers over ``retriever``: ``client, server = start(max_k=..., reload_every_s=..., ready=...)``."""
    with contextlib.ExitStack() as stack:

        def start(ready=True, reload_every_s=5.0, opens=retriever, **limits):
            limits = Limits(**limits)
            return stack.enter_context(run_server(create_app(opens, limits, reload_every_s), limits, ready))

        yield start


@pytest.fixture
def client(start):
    return start()[0]


@pytest.fixture(scope="session", name="run_server")
def run_server_fixture():
    return run_server


@pytest.fixture(name="wait_until")
def wait_until_fixture():
    return wait_until


@pytest.fixture(scope="module")
def shared_client():
    """One server for a module of tests that leave no trace in it."""
    with run_server(create_app(FakeRetriever())) as (client, _):
        yield client
