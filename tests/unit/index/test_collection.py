import json
import shutil

import numpy as np
import pytest
from corpora import ENCODER, documents, make_index, random_vectors

from lexmax import (
    Collection,
    DatasetError,
    DuplicateDocumentError,
    IndexFormatError,
    IndexLockedError,
    IndexNotFoundError,
    RepresentationError,
)
from lexmax.index.check import check_index
from lexmax.index.collection import BufferLimits
from lexmax.index.documents import Document
from lexmax.index.snapshot import Snapshot
from lexmax.index.sparse.bm25 import Bm25
from lexmax.retrieval.encoders.lexical import LexicalEncoder

rng = np.random.default_rng(3)


@pytest.fixture
def vectors():
    return random_vectors(np.random.default_rng(1), 40, 30, 8)


def ids(snapshot):
    return [d.doc_id for segment in snapshot.segments for d in _live(segment)]


def _live(segment):
    live = range(segment.record.n_docs) if segment.live is None else np.flatnonzero(segment.live)
    return segment.documents.get_many(list(live))


def test_nothing_is_seen_before_the_commit(tmp_path, vectors):
    path = tmp_path / "idx"
    with Collection.create(path, encoder=ENCODER) as collection:
        collection.add(documents(40), vectors)
        with pytest.raises(IndexNotFoundError):
            Snapshot.open(path)
        collection.commit()
        old = Snapshot.open(path)
        collection.delete(["d3"])
        collection.add(documents(1, 100), vectors.select(np.array([0])))
        assert old.n_docs == Snapshot.open(path).n_docs == 40
        collection.commit()
    assert old.n_docs == 40
    assert old.find(["d3", "d100"]).tolist() == [3, -1]
    assert Snapshot.open(path).find(["d3", "d100"]).tolist() == [-1, 40]
    assert check_index(path) == []


def test_what_was_not_committed_is_gone_and_cleaned_up(tmp_path, vectors):
    path = tmp_path / "idx"
    make_index(path, vectors)
    with Collection.open(path, limits=BufferLimits(n_postings=1)) as collection:
        collection.add(documents(40, 50), vectors)  # flushed at once: a segment that no manifest names
    assert len(list(path.glob("segment-*"))) == 2
    with Collection.open(path):
        assert len(list(path.glob("segment-*"))) == 1
    assert Snapshot.open(path).n_docs == 40


def test_one_writer_at_a_time(tmp_path, vectors):
    make_index(tmp_path / "idx", vectors)
    with Collection.open(tmp_path / "idx"):
        with pytest.raises(IndexLockedError, match="idx"):
            Collection.open(tmp_path / "idx")
        Snapshot.open(tmp_path / "idx")
    Collection.open(tmp_path / "idx").close()


def test_duplicates_are_named_and_nothing_is_added(tmp_path, vectors):
    make_index(tmp_path / "idx", vectors)
    with Collection.open(tmp_path / "idx") as collection:
        with pytest.raises(DuplicateDocumentError, match="'d39'"):
            collection.add(documents(10, 39), vectors.select(np.arange(10)))
        with pytest.raises(DuplicateDocumentError, match="'d99'"):
            collection.add(documents(1, 99) * 2, vectors.select(np.arange(2)))
        collection.add(documents(1, 99), vectors.select(np.arange(1)))
        with pytest.raises(DuplicateDocumentError, match="'d99'"):
            collection.add(documents(1, 99), vectors.select(np.arange(1)))
        collection.commit()
    assert Snapshot.open(tmp_path / "idx").n_docs == 41


def test_replace_keeps_the_new_document_alone(tmp_path, vectors):
    make_index(tmp_path / "idx", vectors)
    new = Document(doc_id="d5", text="new")
    with Collection.open(tmp_path / "idx") as collection:
        for _ in range(2):  # the second replaces one that is pending
            assert collection.add([new], vectors.select(np.array([0])), replace=True) == 1
        collection.commit()
    snapshot = Snapshot.open(tmp_path / "idx")
    assert snapshot.n_docs == 40
    assert snapshot.get_many(snapshot.find(["d5"]))[0].text == "new"
    assert check_index(tmp_path / "idx") == []


def test_delete_reports_what_is_missing(tmp_path, vectors):
    make_index(tmp_path / "idx", vectors, cuts=(10, 20))
    with Collection.open(tmp_path / "idx") as collection:
        assert collection.delete(["d1", "d15", "no", "d39", "d1"]) == ["no"]
        collection.commit()
        assert collection.delete(["d1"]) == ["d1"]
        collection.commit()
    snapshot = Snapshot.open(tmp_path / "idx")
    assert snapshot.n_docs == 37
    assert snapshot.info()["n_deleted"] == 3


def test_compaction_is_a_build_of_the_live_documents(tmp_path, vectors):
    make_index(tmp_path / "a", vectors, cuts=(7, 20, 33), deleted=(0, 8, 9, 39))
    old = Snapshot.open(tmp_path / "a")
    with Collection.open(tmp_path / "a") as collection:
        collection.compact()
        collection.commit()
    assert old.n_docs == 36
    assert old.get_many([1])[0].doc_id == "d1"  # an older reader is not disturbed
    a = Snapshot.open(tmp_path / "a")
    assert len(a.segments) == 1
    assert a.info()["n_deleted"] == 0
    assert ids(a) == [f"d{i}" for i in range(40) if i not in (0, 8, 9, 39)]
    kept = np.array([i for i in range(40) if i not in (0, 8, 9, 39)])
    with Collection.create(tmp_path / "b", encoder=ENCODER, scale=a.manifest.scale) as collection:
        collection.add([documents(40)[i] for i in kept], vectors.select(kept))
        collection.commit()
    b = Snapshot.open(tmp_path / "b")
    for name in b.segments[0].inverted.file.sizes():
        assert np.array_equal(a.segments[0].inverted.file[name], b.segments[0].inverted.file[name]), name
    assert check_index(tmp_path / "a") == []


def test_compacted_bm25_is_weighed_as_a_fresh_build(tmp_path):
    texts = [" ".join(rng.choice(["ant", "bee", "cat", "dog", "eel"], rng.integers(1, 30))) for _ in range(30)]
    docs = [Document(doc_id=str(i), text=text) for i, text in enumerate(texts)]
    encoder = LexicalEncoder()

    def fill(path, parts):
        with Collection.create(path, encoder=ENCODER, bm25=Bm25()) as collection:
            for part in parts:
                collection.add(part, encoder.encode_documents([d.text for d in part]))
                collection.commit()
            if len(parts) > 1:
                collection.delete(["3", "29"])
                collection.compact()
                collection.commit()

    fill(tmp_path / "a", [docs[:4], docs[4:5], docs[5:]])
    fill(tmp_path / "b", [[d for d in docs if d.doc_id not in {"3", "29"}]])
    a, b = Snapshot.open(tmp_path / "a"), Snapshot.open(tmp_path / "b")
    for i in range(28):
        left, right = a.document_row(i), b.document_row(i)
        words = a.vocabulary.strings(left.terms)
        other = b.vocabulary.strings(right.terms)
        assert dict(zip(words, left.weights.tolist(), strict=True)) == dict(zip(other, right.weights.tolist(), strict=True))


def test_deleting_everything_and_compacting_leaves_an_empty_index(tmp_path, vectors):
    make_index(tmp_path / "idx", vectors, cuts=(9,))
    with Collection.open(tmp_path / "idx") as collection:
        collection.delete([f"d{i}" for i in range(40)])
        collection.compact()
        collection.commit()
    snapshot = Snapshot.open(tmp_path / "idx")
    assert snapshot.n_docs == 0
    assert snapshot.segments == []
    assert check_index(tmp_path / "idx") == []


def test_wrong_input_is_refused(tmp_path, vectors):
    with Collection.create(tmp_path / "idx", encoder=ENCODER) as collection:
        with pytest.raises(RepresentationError, match="3 documents with 40"):
            collection.add(documents(3), vectors)
        with pytest.raises(DatasetError, match="doc_id"):
            collection.add([Document(doc_id="", text="x")], vectors.select(np.array([0])))
        with pytest.raises(RepresentationError, match="weights"):
            collection.add(documents(1), LexicalEncoder().encode_documents(["a word"]))
        with pytest.raises(DatasetError, match="'number' is string here"):
            collection.add(
                [*documents(1), Document(doc_id="x", text="", metadata={"number": "one"})],
                vectors.select(np.arange(2)),
            )
        collection.commit()
    with pytest.raises(FileExistsError):
        Collection.create(tmp_path / "idx", encoder=ENCODER)
    with pytest.raises(IndexNotFoundError, match="lexmax build"):
        Collection.open(tmp_path / "none")


def test_a_damaged_index_is_named_and_check_finds_each_file(tmp_path, vectors):
    path = tmp_path / "idx"
    make_index(path, vectors, cuts=(20,), deleted=(3,))
    assert check_index(path) == []
    files = [p for p in path.rglob("*") if p.is_file() and p.name != "write.lock"]
    assert {p.name.split("-")[0].split(".")[0] for p in files} >= {
        "manifest",
        "inverted",
        "documents",
        "doc_ids",
        "deletes",
    }
    for file in files:
        whole = file.read_bytes()
        for damaged in (whole[: len(whole) // 2], _flip(whole, len(whole) // 2), b""):
            file.write_bytes(damaged)
            problems = check_index(path)
            assert problems, file
            assert file.name in problems[0]
            with pytest.raises(IndexFormatError, match=file.name):
                Snapshot.open(path)
        file.write_bytes(whole)
    shutil.rmtree(next(path.glob("segment-*")))
    assert any("nothing there" in problem for problem in check_index(path))


def _flip(content, position):
    return content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :]


def test_a_newer_or_foreign_manifest_is_refused(tmp_path, vectors):
    path = tmp_path / "idx"
    make_index(path, vectors)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "version": 99}))
    with pytest.raises(IndexFormatError, match="upgrade"):
        Snapshot.open(path)
    (path / "manifest.json").write_text("{}")
    with pytest.raises(IndexFormatError, match="not a lexmax index"):
        Snapshot.open(path)


def test_many_small_commits_keep_the_vocabulary_whole(tmp_path):
    encoder = LexicalEncoder()
    with Collection.create(tmp_path / "idx", encoder=ENCODER, bm25=Bm25()) as collection:
        for i in range(12):
            collection.add(
                [Document(doc_id=str(i), text=f"word{i} shared")],
                encoder.encode_documents([f"word{i} shared"]),
            )
            collection.commit()
    snapshot = Snapshot.open(tmp_path / "idx")
    assert len(snapshot.vocabulary) == 13
    assert len(snapshot.manifest.vocabulary) <= 8
    queries = snapshot.query_vectors(encoder.encode_queries(["word7 shared unknown"]))
    assert sorted(snapshot.vocabulary.strings(queries.terms)) == ["share", "word7"]
    assert snapshot.document_frequencies(queries.terms).tolist() in ([12, 1], [1, 12])
