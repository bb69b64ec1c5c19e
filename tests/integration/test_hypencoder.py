"""A Hypencoder from its checkpoint to answers: command line, Python, HTTP, evaluation; the network is tiny and random."""

import gzip
import json
import shutil
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypencoder_models import expected_nets, expected_scores, expected_vectors, hypencoder
from starlette.testclient import TestClient

from lexmax import Retriever
from lexmax.__main__ import main
from lexmax.server.app import create_app
from lexmax.server.limits import Limits

SCIFACT = Path(__file__).parents[2] / "eval" / "collections" / "scifact"
QUERY = "cold rain by the river"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the model, a few records of SciFact, and an index of them."""
    folder = tmp_path_factory.mktemp("hyp")
    hypencoder(folder / "m")
    (folder / "data" / "qrels").mkdir(parents=True)
    with gzip.open(SCIFACT / "corpus.jsonl.gz", "rt") as file:
        (folder / "data" / "corpus.jsonl").write_text("".join(islice(file, 60)))
    numbers = [json.loads(line)["_id"] for line in (folder / "data" / "corpus.jsonl").read_text().splitlines()]
    (folder / "data" / "queries.jsonl").write_text(json.dumps({"_id": "q1", "text": QUERY}) + "\n")
    (folder / "data" / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\nq1\t{numbers[3]}\t1\n")
    arguments = ["--encoder", "bm25", "--encoder", f"hyp={folder / 'm'},document_length=40,keep=float32"]
    assert main(["build", str(folder / "data" / "corpus.jsonl"), "--out", str(folder / "idx"), *arguments]) == 0
    return folder


def test_the_command_line_ranks_as_the_formulas_do(place, capsys):
    records = [json.loads(line) for line in (place / "data" / "corpus.jsonl").read_text().splitlines()]
    texts = [f"{each['title']} {each['text']}" for each in records]
    scores = expected_scores(expected_nets([QUERY])[0], expected_vectors(texts, 40)).numpy()
    capsys.readouterr()
    assert main(["search", str(place / "idx"), QUERY, "--search", "hyp", "-k", "5", "--json", "--timings", "--explain"]) == 0
    hits = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    order = np.argsort(-scores)[:5]
    assert [hit["doc_id"] for hit in hits] == [records[i]["_id"] for i in order]
    np.testing.assert_allclose([hit["score"] for hit in hits], scores[order], atol=1e-3)
    sentences = hits[0]["explanation"]["stages"][0]["fields"][0]["sentences"]
    assert len(sentences) > 1
    assert main(["info", str(place / "idx"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["fields"]["hyp"]
    assert (facts["representation"], facts["encoder"]["kind"], facts["keep"]) == ("nets", "hypencoder", "float32")
    assert main(["check", str(place / "idx")]) == 0


def test_candidates_of_another_field_are_ordered_by_the_same_scores(place, capsys):
    with Retriever.open(place / "idx") as retriever:
        every = {hit.doc_id: hit.score for hit in retriever.search(QUERY, 60, search="hyp")}
        assert len(every) == 60
        reranked = retriever.search("protein cells in the rain", 10, search="bm25 > hyp")
        alone = {hit.doc_id: hit.score for hit in retriever.search("protein cells in the rain", 60, search="hyp")}
        assert [(hit.doc_id, hit.score) for hit in reranked] == sorted(
            ((hit.doc_id, alone[hit.doc_id]) for hit in reranked), key=lambda pair: -pair[1]
        )
        with TestClient(create_app(retriever, limits=Limits())) as client:
            while client.get("/readyz").status_code != 200:
                time.sleep(0.05)
            answer = client.post("/v1/search", json={"query": QUERY, "k": 3, "search": "hyp", "explain": True})
            assert answer.status_code == 200, answer.text
            hits = answer.json()["results"]
        assert [(hit["doc_id"], hit["score"]) for hit in hits] == list(every.items())[:3]
    assert main(["search", str(place / "idx"), QUERY, "--search", "0.3*bm25 + 0.7*hyp", "--json"]) == 0


def test_the_evaluation_asks_it(place, capsys):
    capsys.readouterr()
    assert main(["eval", str(place / "data"), "--index", str(place / "idx"), "--search", "hyp", "--json"]) == 0
    assert "ndcg" in capsys.readouterr().out.lower()


def test_a_field_is_added_and_what_does_not_fit_ends_in_one_line(place, tmp_path, capsys):
    shutil.copytree(place / "idx", tmp_path / "idx")
    model = str(place / "m")
    assert main(["field", "add", str(tmp_path / "idx"), f"other={model},query_length=8"]) == 0
    assert main(["search", str(tmp_path / "idx"), QUERY, "--search", "hyp + other"]) == 0
    capsys.readouterr()
    for spec, message in (
        (f"x={model},keep=int8", "keep is 'int8'"),
        (f"x={model},nbits=2", "nbits is for tokens vectors"),
        (f"x={model},query_length=900", "3 to 64 tokens"),
        (f"x={model},pooling=cls", "hypencoder has no setting 'pooling'"),
    ):
        assert main(["field", "add", str(tmp_path / "idx"), spec]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
    assert main(["search", str(tmp_path / "idx"), QUERY, "--search", "hyp", "--option", "hyp.algorithm=fast"]) == 2
    assert "algorithm is 'fast'" in capsys.readouterr().err


def test_a_walk_from_the_command_line(place, tmp_path, capsys):
    with gzip.open(SCIFACT / "corpus.jsonl.gz", "rt") as file:
        (tmp_path / "corpus.jsonl").write_text("".join(islice(file, 1100)))
    spec = f"hyp={place / 'm'},document_length=12,n_neighbours=8"
    assert main(["build", str(tmp_path / "corpus.jsonl"), "--out", str(tmp_path / "idx"), "--encoder", spec]) == 0
    capsys.readouterr()
    options = ["--option", "hyp.algorithm=graph", "--option", "hyp.n_candidates=40"]
    assert main(["search", str(tmp_path / "idx"), QUERY, "-k", "5", "--json", "--explain", *options]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    n_scored = found[0]["explanation"]["stages"][0]["n_scored"]
    assert 30 < n_scored < 900
    assert main(["search", str(tmp_path / "idx"), QUERY, "-k", "1100", "--json"]) == 0
    every = {hit["doc_id"]: hit["score"] for hit in map(json.loads, capsys.readouterr().out.splitlines())}
    assert all(hit["score"] == every[hit["doc_id"]] for hit in found)
    assert found[0]["score"] >= sorted(every.values())[-5]
    assert main(["search", str(tmp_path / "idx"), QUERY, "-k", "5", "--explain", *options]) == 0
    assert f"of {n_scored:,} documents scored" in capsys.readouterr().out
    arguments = ["--queries", str(place / "data" / "queries.jsonl"), "--option", "algorithm=graph", "--json"]
    assert main(["audit", str(tmp_path / "idx"), "hyp", *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["recall"] > 0.5
    assert main(["search", str(place / "idx"), QUERY, "--search", "hyp", "--option", "hyp.algorithm=graph"]) == 2
    assert "algorithm=graph is for fields that were made with" in capsys.readouterr().err
