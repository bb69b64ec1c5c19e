"""Answers without a shard that fails: only when they are asked for, and named."""

import json

import pytest

from lexmax import Retriever, ShardError
from lexmax.retrieval.shards.building import build_shards
from lexmax.retrieval.shards.shard import LocalShard
from lexmax.retrieval.shards.snapshot import ShardedSnapshot
from lexmax.server.app import create_app


class Failing(LocalShard):
    """A shard whose process may go."""

    gone = True

    def search(self, *arguments):
        if self.gone:
            raise ShardError(f"{self.name} does not answer within 2 s: it is gone")
        return super().search(*arguments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    lines = [json.dumps({"_id": f"d{i}", "text": "wing flutter" + " of a jet" * (i % 3), "n": i}) for i in range(30)]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    build_shards(folder / "corpus.jsonl", folder / "set", n_shards=3, encoders=["bm25"])
    return folder / "set"


def opened(folder, *failing):
    whole = ShardedSnapshot.open(folder)
    shards = [(Failing if number in failing else LocalShard)(each.snapshot) for number, each in enumerate(whole.shards)]
    return Retriever(ShardedSnapshot(folder, whole.shard_set, shards))


def test_a_shard_that_fails_is_an_error_unless_partial_answers_are_asked_for(folder):
    retriever = opened(folder, 1)
    with pytest.raises(ShardError, match="shard-001 does not answer"):
        retriever.search("jet", 30)
    with pytest.raises(ShardError, match="shard-001 does not answer"):
        retriever.rank(["jet"], 30)
    found = retriever.search("jet", 30, partial=True)
    assert found.missing_shards == ("shard-001",)
    whole = opened(folder).search("jet", 30, partial=True)
    assert whole.missing_shards == ()
    assert [(each.doc_id, each.score) for each in found] == [
        (each.doc_id, each.score) for each in whole if not 10 <= each.metadata["n"] < 20
    ]
    found = retriever.search("jet", 30, search="bm25:20 > bm25", filter="n >= 15", partial=True)
    assert {each.metadata["n"] for each in found} == {n for n in range(20, 30) if n % 3}
    assert found.missing_shards == ("shard-001",)


def test_without_any_shard_there_is_no_answer(folder):
    with pytest.raises(ShardError, match="no shard answers"):
        opened(folder, 0, 1, 2).search("jet", partial=True)


def test_http_flags_partial_answers(folder, run_server, monkeypatch):
    monkeypatch.setattr(Failing, "gone", False)  # until the server is ready
    with run_server(create_app(opened(folder, 2))) as (client, _):
        assert client.post("/v1/search", json={"query": "jet"}).json()["missing_shards"] is None
        assert client.post("/v1/search", json={"query": "jet", "partial": True}).json()["missing_shards"] == []
        monkeypatch.setattr(Failing, "gone", True)
        assert client.post("/v1/search", json={"query": "jet"}).status_code == 503
        answer = client.post("/v1/search", json={"query": "jet", "k": 30, "partial": True}).json()
        assert answer["missing_shards"] == ["shard-002"]
        assert {hit["metadata"]["n"] for hit in answer["results"]} == {n for n in range(20) if n % 3}
        many = client.post("/v1/search/batch", json={"queries": ["jet", "wing"], "partial": True}).json()
        assert many["missing_shards"] == ["shard-002"]
