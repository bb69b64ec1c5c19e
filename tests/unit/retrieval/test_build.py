import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lexmax import DatasetError, DuplicateDocumentError, EncoderMismatchError, RepresentationError, Retriever, build_index
from lexmax.index.check import check_index
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.build import add_to_index
from lexmax.retrieval.corpora.reading import BadRecords
from lexmax.retrieval.encoders.lexical import LexicalEncoder
from lexmax.retrieval.fields import add_field, drop_field, set_default_search
from lexmax.retrieval.progress import Bar, count_records


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.setattr("lexmax.retrieval.build.MAX_BATCH", 4096)
    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(200)]
    with (tmp_path / "c.jsonl").open("w") as out:
        for i in range(20_000):
            out.write(json.dumps({"_id": str(i), "text": " ".join(rng.choice(words, 8))}) + "\n")
    return str(tmp_path / "c.jsonl")


class Interrupted(LexicalEncoder):
    """Encodes some batches, then fails."""

    def __init__(self, n_batches, failure):
        super().__init__()
        self._left, self._failure = n_batches, failure

    def encode_documents(self, texts):
        if self._left == 0:
            raise self._failure
        self._left -= 1
        return super().encode_documents(texts)


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), RuntimeError("crash")])
def test_an_interrupted_build_goes_on_and_equals_an_uninterrupted_one(corpus, tmp_path, failure):
    with pytest.raises(type(failure)):
        build_index([corpus], tmp_path / "a", encoders={"bm25": Interrupted(3, failure)}, commit_every_s=0)
    half = Snapshot.open(tmp_path / "a")
    assert half.n_docs == 3 * 4096
    assert half.info()["complete"] is False
    report = build_index([corpus], tmp_path / "a", encoders=["bm25"])
    assert report.n_resumed == 3 * 4096
    assert report.n_added == 20_000 - 3 * 4096
    build_index([corpus], tmp_path / "b", encoders=["bm25"])
    a, b = Retriever.open(tmp_path / "a"), Retriever.open(tmp_path / "b")
    assert a.info()["complete"]
    queries = ["word1 word2", "word3", "word4 word5 word6 word7"]
    assert a.rank(queries, 50) == b.rank(queries, 50)
    assert check_index(tmp_path / "a") == []


def test_a_build_does_not_go_on_with_another_corpus_or_encoder(corpus, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        build_index([corpus], tmp_path / "a", encoders={"bm25": Interrupted(2, KeyboardInterrupt())})
    with pytest.raises(FileExistsError, match="unfinished build of"):
        build_index([corpus, corpus], tmp_path / "a", encoders=["bm25"])
    with pytest.raises(EncoderMismatchError):
        build_index([corpus], tmp_path / "a", encoders={"bm25": LexicalEncoder(b=0.1)})
    lines = (tmp_path / "c.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "c.jsonl").write_text("".join(lines[1:]))
    with pytest.raises(DatasetError, match="corpus has changed"):
        build_index([corpus], tmp_path / "a", encoders=["bm25"])
    assert Snapshot.open(tmp_path / "a").n_docs == 2 * 4096


def test_a_finished_index_is_not_overwritten_and_the_same_build_is_done(corpus, tmp_path):
    build_index([corpus], tmp_path / "a", encoders=["bm25"])
    again = build_index([corpus], tmp_path / "a", encoders=["bm25"])
    assert (again.finished, again.n_added, again.n_resumed) == (True, 0, 20_000)
    with pytest.raises(FileExistsError, match="lexmax add"):
        build_index([corpus, corpus], tmp_path / "a", encoders=["bm25"])
    with pytest.raises(FileExistsError, match="lexmax add"):
        build_index(documents=["text"], out=tmp_path / "a", encoders=["bm25"])


def test_python_objects_are_built_and_added(tmp_path):
    report = build_index(documents=["cats purr", "dogs bark"], out=tmp_path / "a", encoders=["bm25"])
    assert report.n_added == 2
    add_to_index(None, tmp_path / "a", documents=[{"id": "x", "text": "birds sing", "year": 2001}])
    with Retriever.open(tmp_path / "a") as retriever:
        assert [hit.doc_id for hit in retriever.search("birds")] == ["x"]
        assert retriever.search("birds", filter="year == 2001")[0].metadata == {"year": 2001}
        assert retriever.search("cats")[0].doc_id == "0"
    with pytest.raises(TypeError, match="one of them"):
        build_index("c.jsonl", tmp_path / "b", documents=["x"])
    with pytest.raises(TypeError, match="needs out"):
        build_index(documents=["x"])


def test_paths_of_any_kind(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text('{"_id": "a", "text": "some words"}\n')
    assert build_index(path, tmp_path / "a", encoders=["bm25"]).n_added == 1
    assert build_index([path], str(tmp_path / "b"), encoders=["bm25"]).n_added == 1


def test_several_fields_are_filled_in_one_build(corpus, tmp_path):
    build_index([corpus], tmp_path / "a", encoders=["bm25", "german=bm25,stemmer=german"])
    with Retriever.open(tmp_path / "a") as retriever:
        assert retriever.default_search == "bm25 + german"
        assert retriever.rank(["word3"], 5, search="bm25")[0] == retriever.rank(["word3"], 5, search="german")[0]
    with pytest.raises(ValueError, match="two fields are called 'bm25'"):
        build_index([corpus], tmp_path / "b", encoders=["bm25", "bm25,k1=2"])
    with pytest.raises(ValueError, match="names 'splade'; the fields are bm25"):
        build_index([corpus], tmp_path / "b", encoders=["bm25"], search="bm25 + splade")
    assert not (tmp_path / "b").exists()


def test_fields_are_added_and_dropped(corpus, tmp_path):
    build_index([corpus], tmp_path / "a", encoders=["bm25"])
    assert add_field(tmp_path / "a", "other=bm25,b=0.1", search="bm25 + other") == 20_000
    build_index([corpus], tmp_path / "b", encoders=["bm25,b=0.1"])
    with Retriever.open(tmp_path / "a") as a, Retriever.open(tmp_path / "b") as b:
        assert a.default_search == "bm25 + other"
        assert a.rank(["word1 word2"], 20, search="other") == b.rank(["word1 word2"], 20)
    with pytest.raises(ValueError, match="there is a field 'other' already"):
        add_field(tmp_path / "a", "other=bm25")
    with pytest.raises(ValueError, match="the default search 'bm25 \\+ other' names 'other'"):
        drop_field(tmp_path / "a", "other")
    drop_field(tmp_path / "a", "other", search="bm25")
    assert list(Snapshot.open(tmp_path / "a").fields) == ["bm25"]
    with pytest.raises(ValueError, match="only field"):
        drop_field(tmp_path / "a", "bm25")
    assert check_index(tmp_path / "a") == []
    with pytest.raises(ValueError, match="names 'none'"):
        set_default_search(tmp_path / "a", "none")


def test_an_interrupted_field_continues(corpus, tmp_path):
    build_index([corpus], tmp_path / "a", encoders=["bm25"])
    with pytest.raises(RuntimeError):
        add_field(tmp_path / "a", "other=bm25", encoder=Interrupted(10, RuntimeError("crash")), commit_every_s=0)
    half = Snapshot.open(tmp_path / "a")
    assert list(half.fields) == ["bm25"]
    with pytest.raises(RepresentationError, match="not filled yet"):
        half.field("other")
    with pytest.raises(EncoderMismatchError):
        add_field(tmp_path / "a", "other=bm25,k1=2")
    assert add_field(tmp_path / "a", "other=bm25") == 20_000 - 10 * 256
    with Retriever.open(tmp_path / "a") as retriever:
        assert retriever.rank(["word5"], 20, search="other") == retriever.rank(["word5"], 20, search="bm25")
    assert check_index(tmp_path / "a") == []


def test_duplicates_stop_a_build_or_are_listed(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps({"_id": i, "text": f"text {i}"}) + "\n" for i in ["a", "b", "a", "c"]))
    with pytest.raises(DuplicateDocumentError, match="'a'"):
        build_index([str(path)], tmp_path / "x", encoders=["bm25"])
    bad = BadRecords()
    report = build_index([str(path)], tmp_path / "y", encoders=["bm25"], bad=bad)
    assert (report.n_added, report.n_skipped) == (3, 1)
    assert bad.examples[0].line == 3
    assert "'a'" in bad.examples[0].reason


def write_records(path, records):
    """Write records in the form that the suffix says; returns on which line the last one is."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
        return len(records)
    if path.suffix == ".csv":
        rows = [",".join(records[0]), *(",".join(map(str, record.values())) for record in records)]
        path.write_text("\n".join(rows) + "\n")
        return len(rows)
    lines = [json.dumps(record) for record in records]
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n" if path.suffix == ".json" else "\n".join(lines) + "\n")
    return len(records) + (path.suffix == ".json")


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_an_id_that_comes_twice_is_told_with_file_and_line(tmp_path, suffix):
    path = tmp_path / f"c{suffix}"
    line = write_records(path, [{"id": each, "text": "x"} for each in ("a", "b", "c", "b")])
    expected = rf"c\{suffix}, line {line}: already in the index: 'b'"
    with pytest.raises(DuplicateDocumentError, match=expected):
        build_index([path], tmp_path / "new", encoders=["bm25"])
    build_index(documents=["x"], out=tmp_path / "i", encoders=["bm25"])
    with pytest.raises(DuplicateDocumentError, match=expected):
        add_to_index([path], tmp_path / "i")


@pytest.mark.parametrize(
    ("first", "last", "reason"),
    [
        (1, "one", "string here and int64 in earlier documents"),
        (2**53 + 1, 0.5, r"float64 here and an integer above 2\^53 in earlier documents"),
        (["a"], "a", "string here and a list of strings in earlier documents"),
        ({"x": 1}, "a", "string here and nested in earlier documents"),
        (1, 2**63, "an integer beyond 64 bits"),
    ],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_metadata_of_another_type_are_told_with_file_line_and_field(tmp_path, suffix, first, last, reason):
    path = tmp_path / f"c{suffix}"
    line = write_records(
        path, [{"id": "a", "text": "x", "n": first}, {"id": "b", "text": "x"}, {"id": "c", "text": "x", "n": last}]
    )
    expected = rf"c\{suffix}, line {line}: .*'n'.* {reason}"
    with pytest.raises(DatasetError, match=expected):
        build_index([path], tmp_path / "new", encoders=["bm25"])
    build_index(documents=["x"], out=tmp_path / "i", encoders=["bm25"])
    with pytest.raises(DatasetError, match=expected):
        add_to_index([path], tmp_path / "i")
    bad = BadRecords()
    assert add_to_index([path], tmp_path / "i", bad=bad).n_added == 2
    assert [each.line for each in bad.examples] == [line]


def test_an_add_is_all_or_nothing(corpus, tmp_path):
    build_index([corpus], tmp_path / "a", encoders=["bm25"])
    path = tmp_path / "d.jsonl"
    path.write_text('{"_id": "new", "text": "x"}\n{"_id": "7", "text": "duplicate"}\n')
    with pytest.raises(DuplicateDocumentError):
        add_to_index([str(path)], tmp_path / "a")
    assert Snapshot.open(tmp_path / "a").find(["new"]).tolist() == [-1]
    report = add_to_index([str(path)], tmp_path / "a", replace=True)
    assert (report.n_added, report.n_replaced) == (2, 1)
    assert Snapshot.open(tmp_path / "a").n_docs == 20_001


def test_small_buffers_give_the_same_index(corpus, tmp_path):
    from lexmax.index.collection import BufferLimits

    build_index([corpus], tmp_path / "a", encoders=["bm25"], limits=BufferLimits(n_postings=20_000))
    build_index([corpus], tmp_path / "b", encoders=["bm25"])
    a, b = Retriever.open(tmp_path / "a"), Retriever.open(tmp_path / "b")
    assert len(a.info()["segments"]) == 1
    assert a.rank(["word1 word9"], 100) == b.rank(["word1 word9"], 100)


def test_progress_counts_and_shows_rate_and_time_left(corpus, tmp_path):
    seen = []
    build_index([corpus], tmp_path / "a", encoders=["bm25"], progress=seen.append)
    assert seen[-1] == 20_000
    assert count_records([corpus]) == 20_000
    assert count_records(["-"]) is None

    import io

    bar = Bar(io.StringIO(), "documents", 20_000)
    assert bar.line(5_000, 10.0) == "[######..................]  25%  5,000 documents  500/s  0:30 left"
    assert Bar(io.StringIO(), "documents", None).line(10, 2.0) == "10 documents  5/s"
