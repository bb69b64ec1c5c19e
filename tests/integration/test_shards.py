"""Sets of shards on the command line and in Python: built in parallel, resumed, searched, changed, damaged."""

import json
import shutil

import pytest

from lexmax import DuplicateDocumentError, IndexFormatError, Retriever
from lexmax.__main__ import main
from lexmax.retrieval.shards.building import build_shards
from lexmax.retrieval.shards.manifest import read
from lexmax.retrieval.shards.planning import PLAN
from lexmax.retrieval.shards.snapshot import ShardedSnapshot

WORDS = ["wing", "flutter", "boundary", "layer", "heat", "transfer", "shock", "wave", "body", "panel", "jet", "nozzle"]
QUERIES = ["wing flutter", "heat of the boundary layer", "jet", "nothing of this"]


def corpus(path, n=60, start=0):
    lines = []
    for i in range(start, start + n):
        text = " ".join(WORDS[(i * step) % len(WORDS)] for step in (1, 3, 5, 7, 11)[: 1 + i % 5])
        lines.append(
            json.dumps({"_id": f"d{i}", "title": f"about {WORDS[i % len(WORDS)]}", "text": text, "year": 1950 + i % 30})
        )
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture
def both(tmp_path):
    """An index and a set of three shards of the same corpus."""
    source = corpus(tmp_path / "corpus.jsonl")
    assert main(["build", source, "--out", str(tmp_path / "one"), "--encoder", "bm25"]) == 0
    command = ["build", source, "--out", str(tmp_path / "set"), "--encoder", "bm25", "--shards", "3", "--workers", "2"]
    assert main(command) == 0
    return tmp_path / "one", tmp_path / "set"


def found(path, **options):
    with Retriever.open(path) as retriever:
        return [[(each.doc_id, each.score) for each in retriever.search(query, 20, **options)] for query in QUERIES]


def test_commands_take_a_set_as_they_take_an_index(both, capsys, tmp_path):
    one, shards = both
    assert found(one) == found(shards)
    assert found(one, filter="year >= 1960") == found(shards, filter="year >= 1960")
    capsys.readouterr()
    for arguments in (
        ["search", "IDX", "wing flutter", "-k", "5", "--json"],
        ["search", "IDX", "heat", "--filter", "year < 1960"],
    ):
        outputs = []
        for path in both:
            assert main([str(path) if each == "IDX" else each for each in arguments]) == 0
            outputs.append(capsys.readouterr().out)
        assert outputs[0] == outputs[1]
    assert main(["info", str(shards)]) == 0
    assert "shard-002" in capsys.readouterr().out
    assert main(["check", str(shards)]) == 0
    more = corpus(tmp_path / "more.jsonl", 5, start=60)
    for path in both:
        assert main(["add", str(path), more]) == 0
        assert main(["delete", str(path), "d3", "d59", "d61"]) == 0
        assert main(["compact", str(path)]) == 0
    assert found(one) == found(shards)
    assert len(Retriever.open(shards)) == 62
    assert main(["shards", str(shards)]) == 0
    assert capsys.readouterr().out.count("documents, commit") == 3


def test_a_retriever_changes_a_set_and_searches_it_from_then_on(both):
    with Retriever.open(both[1]) as retriever:
        assert retriever.add([{"id": "new", "text": "helicopter rotor"}]) == 1
        assert [each.doc_id for each in retriever.search("helicopter")] == ["new"]
        with pytest.raises(DuplicateDocumentError, match="d5"):
            retriever.add([{"id": "other", "text": "propeller"}, {"id": "d5", "text": "propeller"}])
        assert not retriever.search("propeller")
        assert retriever.delete(["new", "d0", "none"]) == ["none"]
        assert not retriever.search("helicopter")
        assert retriever.document("d0") is None
        assert retriever.document("d1").doc_id == "d1"
        with pytest.raises(ValueError, match="no click log"):
            retriever.search("wing", feedback=True)


def test_explanations_come_from_the_shard_that_has_the_document(both):
    one, shards = (Retriever.open(path) for path in both)
    for query in QUERIES[:3]:
        expected, got = (each.search(query, 5, explain=True) for each in (one, shards))
        assert [each.explanation for each in got] == [each.explanation for each in expected]


def test_a_build_continues_and_keeps_finished_shards(tmp_path, both):
    _, shards = both
    kept = [shard.build_id for shard in read(shards).shards]
    (shards / "shards.json").unlink()
    shutil.rmtree(shards / "shard-001")
    source = str(tmp_path / "corpus.jsonl")
    report = build_shards(source, shards, n_shards=3, encoders=["bm25"])
    now = [shard.build_id for shard in read(shards).shards]
    assert (now[0], now[2]) == (kept[0], kept[2])
    assert now[1] != kept[1]
    assert report.n_added + report.n_resumed == 60
    assert build_shards(source, shards, n_shards=3, encoders=["bm25"]).finished
    assert found(both[0]) == found(shards)


def test_what_cannot_be_built_is_refused(tmp_path, both, capsys):
    source, shards = str(tmp_path / "corpus.jsonl"), both[1]
    wrong = [
        (["--out", str(shards), "--encoder", "bm25", "--shards", "4"], "holds a set of shards already"),
        (["--out", str(both[0]), "--encoder", "bm25", "--shards", "2"], "is not empty"),
        (["--out", str(tmp_path / "x"), "--encoder", "bm25", "--workers", "2"], "are for --shards"),
        (["--out", str(tmp_path / "x"), "--encoder", "bm25", "--shards", "0"], "n_shards"),
    ]
    for arguments, message in wrong:
        assert main(["build", source, *arguments]) == 2
        assert message in capsys.readouterr().err
    assert main(["build", "-", "--out", str(tmp_path / "x"), "--encoder", "bm25", "--shards", "2"]) == 2
    assert "standard input is read once" in capsys.readouterr().err
    assert main(["field", "add", str(shards), "dense=bm25"]) == 2
    assert "is a set of shards" in capsys.readouterr().err


def test_a_doc_id_that_two_shards_have_is_refused(tmp_path):
    source = tmp_path / "corpus.jsonl"
    corpus(source)
    source.write_text(source.read_text() + json.dumps({"_id": "d2", "text": "again"}) + "\n")
    with pytest.raises(DuplicateDocumentError, match="d2"):
        build_shards(str(source), tmp_path / "set", n_shards=3, encoders=["bm25"])
    assert not (tmp_path / "set" / "shards.json").exists()


def test_a_shard_that_was_changed_by_itself_is_noticed(both, capsys, monkeypatch):
    shards = both[1]
    monkeypatch.setattr("lexmax.retrieval.shards.snapshot.RETRY_S", 0.1)
    assert main(["delete", str(shards / "shard-001"), "d30"]) == 0
    with pytest.raises(IndexFormatError, match="changed by itself"):
        ShardedSnapshot.open(shards)
    assert main(["check", str(shards)]) == 1
    assert main(["shards", str(shards), "--commit"]) == 0
    assert main(["check", str(shards)]) == 0
    assert len(Retriever.open(shards)) == 59


def test_damage_is_noticed(both):
    file = both[1] / "shards.json"
    text = file.read_text()
    file.write_text(text.replace("shard-001", "shard-000"))
    with pytest.raises(IndexFormatError, match="checksum"):
        Retriever.open(both[1])
    file.write_text("{}")
    with pytest.raises(IndexFormatError, match="lexmax-shards"):
        Retriever.open(both[1])
    assert PLAN in {each.name for each in both[1].iterdir()}
