"""Shards on Ray: the answers of one index, also while replicas are killed."""

import json
import os
import signal
import time

import pytest

ray = pytest.importorskip("ray")

from lexmax import Retriever, ShardError  # noqa: E402
from lexmax.retrieval.build import build_index  # noqa: E402
from lexmax.retrieval.shards.building import build_shards  # noqa: E402
from lexmax.retrieval.shards.on_ray import RayOptions, open_on_ray  # noqa: E402
from lexmax.retrieval.shards.running import on_ray  # noqa: E402

QUERIES = ["wing flutter", "heat of the boundary layer", "jet"]
WORDS = ["wing", "flutter", "boundary", "layer", "heat", "transfer", "jet"]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """An index, and a set that Ray built; Ray runs until the module ends."""
    folder = tmp_path_factory.mktemp("ray")
    lines = [{"_id": f"d{i}", "text": " ".join(WORDS[i * step % 7] for step in range(1, 2 + i % 5)), "n": i} for i in range(40)]
    source = folder / "corpus.jsonl"
    source.write_text("\n".join(map(json.dumps, lines)))
    build_index(str(source), folder / "one", encoders=["bm25"])
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    try:
        report = build_shards(str(source), folder / "set", n_shards=2, encoders=["bm25"], runner=on_ray(None, 2))
        assert report.n_added == 40
        yield folder / "one", folder / "set"
    finally:
        ray.shutdown()


def found(retriever, **options):
    return [[(each.doc_id, each.score, each.text) for each in retriever.search(query, 10, **options)] for query in QUERIES]


def test_answers_survive_the_death_of_actors(paths):
    one = Retriever.open(paths[0])
    shards = open_on_ray(paths[1], RayOptions(n_replicas=2, hedge_s=0.5))
    retriever = Retriever(shards)
    assert found(retriever) == found(one)
    assert found(retriever, filter="n > 10") == found(one, filter="n > 10")
    assert retriever.info()["n_docs"] == 40
    explained, expected = (each.search(QUERIES[0], 3, explain=True) for each in (retriever, one))
    assert [each.explanation.score for each in explained] == [each.explanation.score for each in expected]
    with pytest.raises(ValueError, match="unknown option"):
        retriever.search("jet", options={"bm25": {"nothing": 1}})
    for replica in range(2):  # one, then the other: in the end none is the process that began
        for shard in shards.shards:
            os.kill(pid_of(shard, replica), signal.SIGKILL)
        for _ in range(3):
            assert found(retriever) == found(one)
        for shard in shards.shards:
            pid_of(shard, replica)  # until it has been restarted


def pid_of(shard, replica):
    """Process of an actor, once it runs."""
    until = time.monotonic() + 120
    while True:
        try:
            return ray.get(shard._replicas[replica].pid.remote(), timeout=60)
        except ray.exceptions.RayError:
            assert time.monotonic() < until
            time.sleep(0.2)


def test_a_shard_that_does_not_answer_is_an_error_in_time(paths):
    shards = open_on_ray(paths[1], RayOptions(deadline_s=120))
    retriever = Retriever(shards)
    assert found(retriever)
    for shard in shards.shards:  # from now on: the first answers load kernels, which takes what it takes
        shard._options = RayOptions(deadline_s=2)
    ray.kill(shards.shards[1]._replicas[0])  # for good
    start = time.monotonic()
    with pytest.raises(ShardError, match="shard-001 does not answer within 2 s"):
        retriever.search("jet")
    assert time.monotonic() - start < 30


def test_a_reload_opens_the_new_commit_in_new_actors(paths):
    retriever = Retriever(open_on_ray(paths[1]))
    assert not retriever.search("propeller")
    with Retriever.open(paths[1]) as writer:
        writer.add([{"id": "new", "text": "propeller", "n": 99}])
    assert retriever.reload()
    assert [each.doc_id for each in retriever.search("propeller")] == ["new"]
