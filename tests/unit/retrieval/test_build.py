import json

import numpy as np
import pytest

from lexmax import DatasetError, DuplicateDocumentError, EncoderMismatchError, Retriever, build_index
from lexmax.index.check import check_index
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.build import add_to_index
from lexmax.retrieval.corpora.reading import BadRecords
from lexmax.retrieval.encoders.lexical import LexicalEncoder
from lexmax.retrieval.progress import Bar, count_records


@pytest.fixture
def corpus(tmp_path):
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
        build_index([corpus], tmp_path / "a", encoder=Interrupted(3, failure), commit_every_s=0)
    half = Snapshot.open(tmp_path / "a")
    assert half.n_docs == 3 * 4096
    assert half.info()["complete"] is False
    report = build_index([corpus], tmp_path / "a")
    assert report.n_resumed == 3 * 4096
    assert report.n_added == 20_000 - 3 * 4096
    build_index([corpus], tmp_path / "b")
    a, b = Retriever.open(tmp_path / "a"), Retriever.open(tmp_path / "b")
    assert a.info()["complete"]
    queries = ["word1 word2", "word3", "word4 word5 word6 word7"]
    assert a.rank(queries, 50) == b.rank(queries, 50)
    assert check_index(tmp_path / "a") == []


def test_a_build_does_not_go_on_with_another_corpus_or_encoder(corpus, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        build_index([corpus], tmp_path / "a", encoder=Interrupted(2, KeyboardInterrupt()))
    with pytest.raises(FileExistsError, match="unfinished build of"):
        build_index([corpus, corpus], tmp_path / "a")
    with pytest.raises(EncoderMismatchError):
        build_index([corpus], tmp_path / "a", encoder=LexicalEncoder(b=0.1))
    lines = (tmp_path / "c.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "c.jsonl").write_text("".join(lines[1:]))
    with pytest.raises(DatasetError, match="corpus has changed"):
        build_index([corpus], tmp_path / "a")
    assert Snapshot.open(tmp_path / "a").n_docs == 2 * 4096


def test_a_finished_index_is_not_overwritten(corpus, tmp_path):
    build_index([corpus], tmp_path / "a")
    with pytest.raises(FileExistsError, match="lexmax add"):
        build_index([corpus], tmp_path / "a")


def test_duplicates_stop_a_build_or_are_listed(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps({"_id": i, "text": f"text {i}"}) + "\n" for i in ["a", "b", "a", "c"]))
    with pytest.raises(DuplicateDocumentError, match="'a'"):
        build_index([str(path)], tmp_path / "x")
    bad = BadRecords()
    report = build_index([str(path)], tmp_path / "y", bad=bad)
    assert (report.n_added, report.n_skipped) == (3, 1)
    assert bad.examples[0].line == 3
    assert "'a'" in bad.examples[0].reason


def test_an_add_is_all_or_nothing(corpus, tmp_path):
    build_index([corpus], tmp_path / "a")
    path = tmp_path / "d.jsonl"
    path.write_text('{"_id": "new", "text": "x"}\n{"_id": "7", "text": "duplicate"}\n')
    with pytest.raises(DuplicateDocumentError):
        add_to_index([str(path)], tmp_path / "a", LexicalEncoder())
    assert Snapshot.open(tmp_path / "a").find(["new"]).tolist() == [-1]
    report = add_to_index([str(path)], tmp_path / "a", LexicalEncoder(), replace=True)
    assert (report.n_added, report.n_replaced) == (2, 1)
    assert Snapshot.open(tmp_path / "a").n_docs == 20_001


def test_small_buffers_give_the_same_index(corpus, tmp_path):
    from lexmax.index.collection import BufferLimits

    build_index([corpus], tmp_path / "a", limits=BufferLimits(n_postings=20_000))
    build_index([corpus], tmp_path / "b")
    a, b = Retriever.open(tmp_path / "a"), Retriever.open(tmp_path / "b")
    assert len(a.info()["segments"]) == 1
    assert a.rank(["word1 word9"], 100) == b.rank(["word1 word9"], 100)


def test_progress_counts_and_shows_rate_and_time_left(corpus, tmp_path):
    seen = []
    build_index([corpus], tmp_path / "a", progress=seen.append)
    assert seen[-1] == 20_000
    assert count_records([corpus]) == 20_000
    assert count_records(["-"]) is None

    import io

    bar = Bar(io.StringIO(), "documents", 20_000)
    assert bar.line(5_000, 10.0) == "[######..................]  25%  5,000 documents  500/s  0:30 left"
    assert Bar(io.StringIO(), "documents", None).line(10, 2.0) == "10 documents  5/s"
