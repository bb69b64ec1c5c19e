"""POST /v1/feedback, and searches that clicks move."""

import threading

import pytest
from hashed_tokens import HashedTexts

from lexmax import Retriever, build_index
from lexmax.index.errors import StorageError
from lexmax.retrieval.feedback.log import ClickLog
from lexmax.server.searching import service

TEXTS = ["red apple", "green pear", "blue plum", "red cherry"]


@pytest.fixture
def log(tmp_path):
    return ClickLog(tmp_path / "clicks.log", create=True)


@pytest.fixture
def client(start, retriever, log):
    retriever.clicks = log
    return start()[0]


def body(**more):
    return {"impressions": [{"query": "solar", "shown": ["a", "c", "x"], "clicked": ["c"], **more}]}


def refusal(response):
    error = response.json()["error"]
    return response.status_code, error["type"], error["message"]


def test_what_is_acknowledged_is_in_the_log(client, log):
    response = client.post("/v1/feedback", json=body())
    assert response.status_code == 200
    assert response.json() == {"logged": 1, "unknown_documents": 1}
    client.post("/v1/feedback", json={"impressions": [{"query": "solar", "shown": ["a"], "first_rank": 11.0}] * 3})
    record = log.read().queries["solar"]
    assert (record.n_times, record.counts["c", 2], record.counts["a", 11]) == (4, (1, 1), (3, 0))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "impressions: Field required"),
        ({"impressions": []}, "impressions: List should have at least 1 item"),
        ({"impressions": [{}] * 1001}, "impressions: List should have at most 1000 items"),
        ({"impressions": [{"query": "q"}]}, "impressions.0.shown: Field required"),
        (body(click=["a"]), "impressions.0.click: there is no field 'click': did you mean 'clicked'?"),
        ({**body(), "impresions": 1}, "impresions: there is no field 'impresions': did you mean 'impressions'?"),
        (body(clicked=["z"]), "impressions.0: a click on 'z', which was not shown"),
        (body(shown=["a", "a"], clicked=[]), "impressions.0: a document is shown twice"),
        (body(query=" "), "impressions.0: the query has 1 characters"),
        (body(query="x" * 20_001), "impressions.0.query: String should have at most 20000 characters"),
        (body(first_rank=0), "impressions.0.first_rank: Input should be greater than or equal to 1"),
        (body(first_rank=9_999), "impressions.0: first_rank is 9,999: ranks end at 10,000"),
        (body(shown=[1]), "impressions.0.shown.0: Input should be a valid string"),
        ([], "body: Input should be a valid dictionary"),
    ],
)
def test_wrong_bodies_are_refused_and_nothing_is_logged(given, message, client, log):
    status, kind, told = refusal(client.post("/v1/feedback", json=given))
    assert (status, kind) == (422, "invalid_request")
    assert message in told
    assert not log.read().queries


def test_half_of_a_surrogate_pair_is_refused(client):
    content = b'{"impressions": [{"query": "\\ud800", "shown": ["a"]}]}'
    response = client.post("/v1/feedback", content=content, headers={"content-type": "application/json"})
    assert refusal(response)[:2] == (422, "invalid_request")


def test_a_server_without_a_log_takes_no_feedback(start):
    client = start()[0]
    status, kind, message = refusal(client.post("/v1/feedback", json=body()))
    assert (status, kind) == (404, "not_found")
    assert "keeps no click log" in message
    assert refusal(client.post("/v1/search", json={"query": "x", "feedback": True}))[:2] == (422, "invalid_options")
    assert client.post("/v1/search", json={"query": "x", "feedback": False}).status_code == 200


def test_a_full_log_is_told_without_its_place(start, retriever, tmp_path):
    retriever.clicks = ClickLog(tmp_path / "clicks.log", create=True, max_bytes=100)
    client = start()[0]
    status, kind, message = refusal(client.post("/v1/feedback", json=body()))
    assert (status, kind) == (507, "storage")
    assert str(tmp_path) not in message
    assert not retriever.clicks.read().queries


def test_before_it_is_ready_the_server_takes_no_feedback(start, retriever, log):
    retriever.clicks = log
    retriever.encoder_open.clear()
    client = start(ready=False)[0]
    assert refusal(client.post("/v1/feedback", json=body()))[0] == 503
    retriever.encoder_open.set()


def test_too_much_feedback_at_once_is_refused(client, log, monkeypatch, wait_until):
    held, n_adding = threading.Event(), []

    def add(self, impressions):
        n_adding.append(1)
        held.wait(20)

    monkeypatch.setattr(ClickLog, "add", add)
    monkeypatch.setattr(service, "LOGGING_AT_ONCE", 8)
    statuses = []
    threads = [
        threading.Thread(target=lambda: statuses.append(client.post("/v1/feedback", json=body()).status_code))
        for _ in range(8 + 5)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(statuses) >= 5)
    assert statuses[:5] == [503] * 5
    assert len(n_adding) == 1  # one thread waits for the disk
    held.set()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] * 8 + [503] * 5


def test_errors_of_the_disk_are_not_acknowledged(client, log, monkeypatch):
    def refuse(self, impressions):
        raise StorageError(f"{self.path}: No space left on device")

    monkeypatch.setattr(ClickLog, "add", refuse)
    status, kind, message = refusal(client.post("/v1/feedback", json=body()))
    assert (status, kind) == (507, "storage")
    assert "clicks.log" not in message


def test_clicks_move_searches_of_a_real_index(start, tmp_path, log, wait_until):
    documents = [{"id": f"d{i}", "text": text} for i, text in enumerate(TEXTS)]
    build_index(documents=documents, out=tmp_path / "i", encoders={"bm25": "bm25", "dense": HashedTexts()}, search="bm25")
    opened = Retriever.open(tmp_path / "i", encoders={"dense": HashedTexts()}, clicks=log)
    client = start(opens=opened, reload_every_s=0.05)[0]

    def found(**more):
        answer = client.post("/v1/search", json={"query": "red", "k": 4, "explain": True} | more)
        assert answer.status_code == 200
        return answer.json()["results"]

    assert {hit["doc_id"] for hit in found(feedback=True)} == {"d0", "d3"}
    event = {"query": "red", "shown": ["d2", "d0"], "clicked": ["d2"]}
    assert client.post("/v1/feedback", json={"impressions": [event]}).json() == {"logged": 1, "unknown_documents": 0}
    wait_until(lambda: "d2" in {hit["doc_id"] for hit in found(feedback=True)})
    assert {hit["doc_id"] for hit in found()} == {"d0", "d3"}
    moved = found(feedback={"eta": 0.5, "alpha": 0.1})
    assert moved[0]["doc_id"] == "d2"
    assert moved[0]["explanation"]["stages"][0]["fields"][0]["measure"] == "query moved by 1 clicks on it"
    assert found(feedback=True, search="dense")[0]["doc_id"] == "d2"
    for feedback, message in (({"eta": 9}, "eta is 9.0: it must be 0 to 4"), ({"etta": 1}, "did you mean 'eta'?")):
        answer = client.post("/v1/search", json={"query": "red", "feedback": feedback})
        assert refusal(answer)[:2] == (422, "invalid_options")
        assert message in refusal(answer)[2]
