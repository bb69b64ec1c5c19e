"""Audits: what they measure, that the index keeps it, and that it is called outdated once vectors have changed."""

import json
from dataclasses import replace

import numpy as np
import pytest
from corpora import documents, write_index
from dense_vectors import dense_vectors, new_dense_field

from lexmax import Collection, RepresentationError, audit
from lexmax.__main__ import main
from lexmax.index.manifest import EncoderRecord
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.searchers import dense


@pytest.fixture
def index(tmp_path, monkeypatch):
    monkeypatch.setattr(dense, "FEW_DOCS", 0)
    make_field(tmp_path / "idx", 300)
    return tmp_path / "idx"


def make_field(path, n, deleted=()):
    """A field of lists whose vectors another program made."""
    encoder = EncoderRecord(kind="vectors", fingerprint="vectors:0123456789abcdef", settings={})
    new = replace(new_dense_field(24, structure="ivf", n_lists=8), encoder=encoder)
    write_index(path, {"dense": new}, {"dense": dense_vectors(np.random.default_rng(1), n)}, (), deleted)


def facts(index):
    return Snapshot.open(index).info()["fields"]["dense"]["audit"]


def test_recall_is_that_of_the_search_against_all_scores(index):
    queries = dense_vectors(np.random.default_rng(2), 30)
    record = audit(index, "dense", queries, k=5, options={"n_probe": "1"})
    field = Snapshot.open(index).field("dense")
    kept = np.stack([field.document_vector(i) for i in range(300)]).astype(np.float64)
    best = np.argsort(-(kept @ queries.vectors.T.astype(np.float64)), axis=0)[:5].T
    searcher = dense.DenseSearcher(field)
    found = searcher.search(queries, 5, options=dense.DenseOptions(n_probe=1))
    shares = [len(set(right) & set(found.query(i)[0].tolist())) / 5 for i, right in enumerate(best.tolist())]
    assert record.recall == round(np.mean(shares), 4) < 1
    assert record.worst == round(min(shares), 4)
    assert (record.k, record.n_queries, record.queries, record.options) == (5, 30, "given", {"n_probe": 1})
    assert audit(index, "dense", queries, k=5, options={"n_probe": 8}).recall == 1
    assert facts(index)["recall"] == 1


def test_documents_vectors_ask_where_there_is_no_encoder_and_do_not_find_themselves(index):
    record = audit(index, "dense", k=3, options={"n_probe": 8})
    assert (record.queries, record.n_queries, record.recall) == ("vectors", 100, 1)


def test_later_changes_make_an_audit_outdated(index):
    assert facts(index) is None
    audit(index, "dense")
    assert facts(index)["outdated"] is False
    with Collection.open(index) as collection:
        collection.commit()
    assert facts(index)["outdated"] is False
    with Collection.open(index) as collection:
        collection.delete(["d5"])
        collection.commit()
    assert facts(index)["outdated"] is True
    audit(index, "dense")
    with Collection.open(index) as collection:
        collection.add(documents(1, 300), {"dense": dense_vectors(np.random.default_rng(3), 1)})
        collection.commit()
    assert facts(index)["outdated"] is True


def test_what_cannot_be_audited_is_refused(index, tmp_path):
    with pytest.raises(ValueError, match="k must be at least 1"):
        audit(index, "dense", k=0)
    with pytest.raises(ValueError, match="unknown option 'n_prob'"):
        audit(index, "dense", options={"n_prob": 3})
    with pytest.raises(RepresentationError, match="give queries as vectors"):
        audit(index, "dense", ["a text"])
    with pytest.raises(TypeError, match="not one string"):
        audit(index, "dense", "a text")
    with pytest.raises(ValueError, match="needs queries"):
        audit(index, "dense", np.empty((0, 24), np.float32))
    make_field(tmp_path / "empty", 1, (0,))
    with pytest.raises(RepresentationError, match="no documents"):
        audit(tmp_path / "empty", "dense")


def test_from_the_command_line(tmp_path, capsys):
    index, corpus = str(tmp_path / "idx"), tmp_path / "docs.jsonl"
    words = ["sun", "moon", "rain", "wind", "snow"]
    lines = [{"_id": f"d{i}", "text": f"{words[i % 5]} and {words[i % 3]} number {i}"} for i in range(30)]
    corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["build", str(corpus), "--out", index, "--encoder", "bm25"]) == 0
    assert main(["audit", index, "bm25", "-k", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recall"] == 1
    queries = tmp_path / "queries.jsonl"
    queries.write_text('{"_id": "1", "text": "moon"}\n')
    assert main(["audit", index, "bm25", "--queries", str(queries), "--option", "algorithm=scan"]) == 0
    assert "recall@10 1.0000 +- 0.0000 (worst 1.00, 1 queries: given; algorithm=scan)" in capsys.readouterr().out
    assert main(["info", index]) == 0
    assert "recall@10 1.0000" in capsys.readouterr().out
    assert main(["audit", index, "dense"]) == 2
    assert "dense" in capsys.readouterr().err
    assert main(["audit", index, "bm25", "--option", "algorithm=guess"]) == 2
    assert main(["delete", index, "d1"]) == 0
    capsys.readouterr()
    assert main(["info", index]) == 0
    assert "OUTDATED: the vectors have changed since" in capsys.readouterr().out
