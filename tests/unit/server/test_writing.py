"""Changes over HTTP: what an answer says is on the disk and found, and what fails changes nothing."""

import json
import threading
import time
from functools import partial

import pytest

from lexmax import Collection, Retriever, Snapshot, build_index
from lexmax.index.errors import StorageError
from lexmax.server.app import create_app
from lexmax.server.limits import Limits
from lexmax.server.settings import Settings
from lexmax.server.writing import changes
from lexmax.server.writing.specs import checked_spec
from lexmax.server.writing.writer import Home

WRITABLE = Settings(writable=True)


@pytest.fixture
def home(tmp_path):
    build_index(documents=[{"id": "a", "text": "solar cells"}], out=tmp_path / "one", encoders=["bm25"])
    return tmp_path


@pytest.fixture
def client(home, run_server):
    opens = {"one": lambda: Retriever.open(home / "one")}
    app = create_app(opens, Limits(), settings=WRITABLE, home=Home(home, lambda _, folder: Retriever.open(folder)))
    with run_server(app) as (client, _):
        yield client


def add(client, *documents, at="/v1", **more):
    return client.post(f"{at}/documents", json={"documents": documents, **more})


def document(doc_id, text="wind power", **more):
    return {"doc_id": doc_id, "text": text, **more}


def found(client, query, at="/v1"):
    return [hit["doc_id"] for hit in client.post(f"{at}/search", json={"query": query}).json()["results"]]


def refusal(response):
    return response.status_code, response.json()["error"]["type"], response.json()["error"]["message"]


def ended(client, job_id, wait_until):
    wait_until(lambda: client.get(f"/v1/jobs/{job_id}").json()["state"] in ("done", "failed"))
    return client.get(f"/v1/jobs/{job_id}").json()


def test_what_was_added_is_on_the_disk_and_found(client, home):
    response = add(client, document("b", title="Wind", metadata={"year": 2021}), document("c"))
    job = response.json()
    assert (response.status_code, job["state"], job["kind"], job["index"]) == (200, "done", "add", "one")
    assert job["result"] == {"added": 2, "replaced": 0, "generation": Snapshot.open(home / "one").generation}
    assert (job["n_done"], job["n_total"], job["error"]) == (2, 2, None)
    assert sorted(found(client, "wind")) == ["b", "c"]
    assert client.get("/v1/documents/b").json() == document("b", title="Wind", metadata={"year": 2021})
    assert [each.doc_id for each in Snapshot.open(home / "one").get_many([1, 2])] == ["b", "c"]


def test_documents_are_replaced_when_that_is_asked_for(client):
    status, kind, message = refusal(add(client, document("a")))
    assert (status, kind) == (409, "conflict")
    assert message == "already in the index: 'a'; send replace: true to replace documents"
    assert found(client, "solar") == ["a"]
    assert add(client, document("a"), document("b"), replace=True).json()["result"]["replaced"] == 1
    assert (found(client, "solar"), sorted(found(client, "wind"))) == ([], ["a", "b"])


def test_documents_are_deleted(client):
    add(client, document("b"), document("dir/c d"))
    job = client.post("/v1/documents/delete", json={"doc_ids": ["b", "nothing", "b"]}).json()
    assert job["result"]["deleted"] == 1
    assert job["result"]["missing"] == ["nothing"]
    assert client.delete("/v1/documents/dir%2Fc%20d").json()["state"] == "done"
    assert refusal(client.delete("/v1/documents/dir%2Fc%20d"))[:2] == (404, "not_found")
    assert found(client, "wind") == []


@pytest.mark.parametrize(
    ("documents", "status", "message"),
    [
        ([document("b"), document("b")], 409, "twice in one request: already in the index: 'b'"),
        ([document("b"), document("b\ud800")], 422, ""),
        ([document("b", metadata={"a": 1}), document("c", metadata={"a": "x"})], 422, "'a'"),
        ([document("b"), document("")], 422, "documents.1.doc_id: String should have at least 1 character"),
        ([document("b"), {"doc_id": "c"}], 422, "documents.1.text: Field required"),
        ([document("b"), document("c", txt="x")], 422, "documents.1.txt: there is no field 'txt': did you mean 'text'?"),
        ([document("b"), document("c" * 1025)], 422, "documents.1.doc_id: "),
        ([document("b"), document("ü" * 1000)], 422, "must have 1 to 1024 bytes"),
        ([], 422, "documents: List should have at least 1 item"),
    ],
)  # fmt: skip
def test_of_documents_that_are_refused_none_is_added(client, home, documents, status, message):
    content = json.dumps({"documents": documents})
    response = client.post("/v1/documents", content=content, headers={"content-type": "application/json"})
    assert response.status_code == status
    assert message in refusal(response)[2]
    assert str(home) not in response.text
    assert found(client, "wind") == []
    assert Snapshot.open(home / "one").n_docs == 1


def test_changes_that_wait_together_share_a_commit_and_fail_alone(client, home, monkeypatch, wait_until):
    may_begin, began = threading.Event(), threading.Event()
    write = changes.Collection.open

    def slowly(path):
        began.set()
        assert may_begin.wait(30)
        return write(path)

    monkeypatch.setattr(changes.Collection, "open", slowly)
    before = Snapshot.open(home / "one").generation
    first = add(client, document("first"), wait=False)
    assert (first.status_code, first.json()["state"]) == (202, "queued")
    wait_until(began.is_set)
    jobs = [add(client, document(f"b{number}"), wait=False).json()["id"] for number in range(8)]
    bad = add(client, document("a"), document("never"), wait=False).json()["id"]
    gone = client.post("/v1/documents/delete", json={"doc_ids": ["b3"], "wait": False}).json()["id"]
    assert {client.get(f"/v1/jobs/{each}").json()["state"] for each in jobs} == {"queued"}
    may_begin.set()
    assert [ended(client, each, wait_until)["state"] for each in [*jobs, bad, gone]] == ["done"] * 8 + ["failed", "done"]
    assert "already in the index: 'a'" in client.get(f"/v1/jobs/{bad}").json()["error"]["message"]
    assert sorted(found(client, "wind")) == sorted(["first", *(f"b{number}" for number in range(8) if number != 3)])
    assert Snapshot.open(home / "one").generation > before
    listed = client.get("/v1/jobs").json()["jobs"]
    assert [each["id"] for each in listed] == [gone, bad, *reversed(jobs), first.json()["id"]]


def test_jobs_that_wait_together_cost_one_commit(client, home, monkeypatch, wait_until):
    may_encode, encoding = threading.Event(), threading.Event()
    encode = changes._encoded

    def slowly(retriever, job):
        encoding.set()
        assert may_encode.wait(30)
        return encode(retriever, job)

    monkeypatch.setattr(changes, "_encoded", slowly)
    before = Snapshot.open(home / "one").generation
    jobs = [add(client, document("first"), wait=False).json()["id"]]
    wait_until(encoding.is_set)
    jobs += [add(client, document(f"b{number}"), wait=False).json()["id"] for number in range(20)]
    may_encode.set()
    answers = [ended(client, each, wait_until) for each in jobs]
    assert {each["state"] for each in answers} == {"done"}
    assert Snapshot.open(home / "one").generation == before + 2
    assert len({each["result"]["generation"] for each in answers[1:]}) == 1


def test_too_many_changes_at_once_are_refused(home, run_server, monkeypatch, wait_until):
    may_begin, began = threading.Event(), threading.Event()
    monkeypatch.setattr(changes, "_encoded", lambda *_: began.set() or (may_begin.wait(30) and []))
    app = create_app(lambda: Retriever.open(home / "one"), Limits(max_jobs=3, deadline_s=0.3), settings=WRITABLE)
    with run_server(app) as (client, _):
        late = add(client, document("b"))
        assert (late.status_code, late.json()["state"]) == (202, "running")  # its time was up
        for number in range(3):
            assert add(client, document(f"c{number}"), wait=False).status_code == 202
        assert refusal(add(client, document("d"), wait=False))[:2] == (503, "overloaded")
        may_begin.set()


def test_what_the_system_refuses_is_told_without_a_place(client, home, monkeypatch):
    def refuse(self):
        raise StorageError(f"{self.path}: No space left on device")

    monkeypatch.setattr(Collection, "commit", refuse)
    status, kind, message = refusal(add(client, document("b")))
    assert (status, kind) == (507, "storage")
    assert "nothing of it is there" in message
    assert str(home) not in message
    monkeypatch.undo()
    assert found(client, "wind") == []
    assert add(client, document("b")).status_code == 200


def test_a_writer_of_another_process_is_waited_for(client, home, monkeypatch):
    with Collection.open(home / "one"):
        monkeypatch.setattr(changes, "LOCKED_S", 0.1)
        status, kind, message = refusal(add(client, document("b")))
        assert (status, kind, message) == (409, "conflict", "another process is writing to the index: try again later")
        monkeypatch.setattr(changes, "LOCKED_S", 60.0)
        waiting = add(client, document("b"), wait=False).json()["id"]
        time.sleep(0.3)
        assert client.get(f"/v1/jobs/{waiting}").json()["state"] == "running"
    assert add(client, document("c")).status_code == 200
    assert sorted(found(client, "wind")) == ["b", "c"]


def test_compaction(client, home):
    for number in range(3):
        add(client, document(f"b{number}"))
    client.delete("/v1/documents/b1")
    job = client.post("/v1/compact", json={}).json()
    assert (job["state"], job["result"]["segments"]) == ("done", 1)
    assert client.get("/v1/index").json()["n_deleted"] == 0
    assert sorted(found(client, "wind")) == ["b0", "b2"]


def test_a_field_is_added_and_filled(client, wait_until):
    add(client, document("b"))
    job = client.post("/v1/fields", json={"encoder": "plain=bm25,k1=2.0", "search": "bm25 + plain"}).json()
    done = ended(client, job["id"], wait_until)
    assert done["result"]["fields"] == ["bm25", "plain"]
    assert (done["n_done"], done["result"]["encoded"]) == (2, 2)
    assert client.get("/v1/indexes").json()["indexes"][0]["search"] == "bm25 + plain"
    assert add(client, document("c")).status_code == 200  # of both fields
    again = client.post("/v1/fields", json={"encoder": "plain=bm25,k1=1.0", "wait": True})
    assert refusal(again)[:2] == (422, "invalid_request")
    assert "there is a field 'plain' already" in refusal(again)[2]


def test_an_index_is_made_and_served(client, home):
    made = client.post("/v1/indexes", json={"name": "two", "encoders": ["bm25", "plain=bm25,k1=2.0"], "search": "plain"})
    assert (made.status_code, made.json()["result"]["fields"]) == (200, ["bm25", "plain"])
    at = "/v1/indexes/two"
    assert add(client, document("x"), at=at).json()["index"] == "two"
    assert (found(client, "wind", at), found(client, "wind", "/v1/indexes/one")) == (["x"], [])
    assert Snapshot.open(home / "two").n_docs == 1
    assert refusal(client.post("/v1/indexes", json={"name": "two", "encoders": ["bm25"]}))[:2] == (409, "conflict")
    for body in ({"name": "../x", "encoders": ["bm25"]}, {"name": "x", "encoders": []}, {"name": "x", "encoders": ["/etc"]},
                 {"name": "x", "encoders": ["bm25"], "search": "splade"}):  # fmt: skip
        assert client.post("/v1/indexes", json=body).status_code == 422
    assert [each["name"] for each in client.get("/v1/indexes").json()["indexes"]] == ["one", "two"]
    assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    "text",
    ["/etc/passwd", "x=naver/splade", "bm25,stop_words=/etc/passwd", "bm25,stop_words=words.txt", "vectors", "bm25,k2=1", "",
     "s=lexmax-splade,tokenizer=../x", "s=lexmax-splade,kind=splade,model=/x"],
)  # fmt: skip
def test_encoders_that_would_have_the_server_read_files_are_refused(text):
    with pytest.raises(Exception, match="encoder: ") as refused:
        checked_spec(text)
    assert refused.value.status == 422


@pytest.mark.parametrize("text", ["bm25", "a=bm25,k1=0.9,stemmer=german,stop_words=none", "lexmax-colbert,nbits=2"])
def test_encoders_that_come_with_lexmax_are_taken(text):
    assert checked_spec(text).settings is not None


def test_a_server_that_does_not_write_says_so(shared_client):
    for ask in (
        partial(shared_client.post, "/v1/documents", json={"documents": [document("b")]}),
        partial(shared_client.post, "/v1/indexes/index/compact", json={}),
        partial(shared_client.post, "/v1/indexes", json={"name": "x", "encoders": ["bm25"]}),
        partial(shared_client.get, "/v1/jobs/x"),
    ):
        status, kind, message = refusal(ask())
        assert (status, kind) == (403, "forbidden")
        assert "--writable" in message


def test_a_job_that_nobody_knows(client):
    assert refusal(client.get("/v1/jobs/none"))[:2] == (404, "not_found")


def test_searches_go_on_beside_changes(client, wait_until):
    failed, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            response = client.post("/v1/search", json={"query": "solar"})
            if response.status_code != 200 or response.json()["results"][0]["doc_id"] != "a":
                failed.append(response.text)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(15):
        assert add(client, *(document(f"{number}-{i}") for i in range(20))).status_code == 200
    client.post("/v1/compact")
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed
    assert client.get("/v1/index").json()["n_docs"] == 301
