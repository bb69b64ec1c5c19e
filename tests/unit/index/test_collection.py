import json
import os
import shutil
import signal
import zlib

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
    StorageError,
)
from lexmax.index.check import check_index
from lexmax.index.collection import BufferLimits, NewField
from lexmax.index.documents import Document
from lexmax.index.snapshot import Snapshot
from lexmax.index.sparse.writer import SparseWriter
from lexmax.retrieval.encoders.lexical import LexicalEncoder

rng = np.random.default_rng(3)
SPARSE = {"sparse": NewField(encoder=ENCODER)}
BM25 = {"bm25": NewField(encoder=ENCODER, options={"bm25": {"k1": 1.2, "b": 0.75}})}


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
    with Collection.create(path, SPARSE) as collection:
        collection.add(documents(40), {"sparse": vectors})
        with pytest.raises(IndexNotFoundError):
            Snapshot.open(path)
        collection.commit()
        old = Snapshot.open(path)
        collection.delete(["d3"])
        collection.add(documents(1, 100), {"sparse": vectors.select(np.array([0]))})
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
        collection.add(documents(40, 50), {"sparse": vectors})  # flushed at once: a segment that no manifest names
        new = max(path.glob("segment-*"))
        assert len(list(path.glob("segment-*"))) == 2
    assert len(list(path.glob("segment-*"))) == 1
    shutil.copytree(next(path.glob("segment-*")), path / new.name)  # as a writer that was killed leaves it
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
            collection.add(documents(10, 39), {"sparse": vectors.select(np.arange(10))})
        with pytest.raises(DuplicateDocumentError, match="'d99'"):
            collection.add(documents(1, 99) * 2, {"sparse": vectors.select(np.arange(2))})
        collection.add(documents(1, 99), {"sparse": vectors.select(np.arange(1))})
        with pytest.raises(DuplicateDocumentError, match="'d99'"):
            collection.add(documents(1, 99), {"sparse": vectors.select(np.arange(1))})
        collection.commit()
    assert Snapshot.open(tmp_path / "idx").n_docs == 41


def test_replace_keeps_the_new_document_alone(tmp_path, vectors):
    make_index(tmp_path / "idx", vectors)
    new = Document(doc_id="d5", text="new")
    with Collection.open(tmp_path / "idx") as collection:
        for _ in range(2):  # the second replaces one that is pending
            assert collection.add([new], {"sparse": vectors.select(np.array([0]))}, replace=True) == 1
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
    with Collection.create(tmp_path / "b", {"sparse": NewField(encoder=ENCODER, scale=a.field("sparse").scale)}) as collection:
        collection.add([documents(40)[i] for i in kept], {"sparse": vectors.select(kept)})
        collection.commit()
    b = Snapshot.open(tmp_path / "b")
    merged, built = (snapshot.field("sparse").segments[0].inverted.file for snapshot in (a, b))
    assert merged._entries == built._entries
    for name, entry in built._entries.items():
        assert np.array_equal(*(file.array(name, entry.dtype, entry.shape) for file in (merged, built))), name
    assert check_index(tmp_path / "a") == []


def test_compacted_bm25_is_weighed_as_a_fresh_build(tmp_path):
    texts = [" ".join(rng.choice(["ant", "bee", "cat", "dog", "eel"], rng.integers(1, 30))) for _ in range(30)]
    docs = [Document(doc_id=str(i), text=text) for i, text in enumerate(texts)]
    encoder = LexicalEncoder()

    def fill(path, parts):
        with Collection.create(path, BM25) as collection:
            for part in parts:
                collection.add(part, {"bm25": encoder.encode_documents([d.text for d in part])})
                collection.commit()
            if len(parts) > 1:
                collection.delete(["3", "29"])
                collection.compact()
                collection.commit()

    fill(tmp_path / "a", [docs[:4], docs[4:5], docs[5:]])
    fill(tmp_path / "b", [[d for d in docs if d.doc_id not in {"3", "29"}]])
    a, b = (Snapshot.open(tmp_path / name).field("bm25") for name in "ab")
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
    with Collection.create(tmp_path / "idx", SPARSE) as collection:
        with pytest.raises(RepresentationError, match="3 documents with 40 vectors for the field sparse"):
            collection.add(documents(3), {"sparse": vectors})
        with pytest.raises(DatasetError, match="doc_id"):
            collection.add([Document(doc_id="", text="x")], {"sparse": vectors.select(np.array([0]))})
        with pytest.raises(RepresentationError, match="weights"):
            collection.add(documents(1), {"sparse": LexicalEncoder().encode_documents(["a word"])})
        with pytest.raises(DatasetError, match="'number' is string here"):
            collection.add(
                [*documents(1), Document(doc_id="x", text="", metadata={"number": "one"})],
                {"sparse": vectors.select(np.arange(2))},
            )
        collection.commit()
    with pytest.raises(FileExistsError):
        Collection.create(tmp_path / "idx", SPARSE)
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
                Snapshot.open(path, verify=True)
        file.write_bytes(whole)
    shutil.rmtree(next(path.glob("segment-*")))
    assert any("nothing there" in problem for problem in check_index(path))


def _flip(content, position):
    return content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :]


def test_a_newer_or_foreign_manifest_is_refused(tmp_path, vectors):
    path = tmp_path / "idx"
    make_index(path, vectors)
    manifest = json.loads((path / "manifest.json").read_text())
    body = manifest["body"]

    def write(sealed, **record):
        crc32 = zlib.crc32(json.dumps(sealed, sort_keys=True).encode())
        (path / "manifest.json").write_text(json.dumps({**record, "crc32": crc32}))

    newer = {"format": "lexmax-index", "version": 99, "body": body}
    write(newer, **newer)
    with pytest.raises(IndexFormatError, match="upgrade"):
        Snapshot.open(path)
    write(body, format="lexmax-index", version=2, body=body)  # the checksum covered the body alone
    with pytest.raises(IndexFormatError, match=r"expected index format version 3, found 2; an older lexmax wrote it: build"):
        Snapshot.open(path)
    with pytest.raises(IndexFormatError, match="version 3, found 2"):
        Collection.open(path)
    (path / "manifest.json").write_text(json.dumps({**manifest, "version": 2}))
    with pytest.raises(IndexFormatError, match="damaged"):
        Snapshot.open(path)
    (path / "manifest.json").write_text("{}")
    with pytest.raises(IndexFormatError, match="not a lexmax index"):
        Snapshot.open(path)


def test_many_small_commits_keep_the_vocabulary_whole(tmp_path):
    encoder = LexicalEncoder()
    with Collection.create(tmp_path / "idx", BM25) as collection:
        for i in range(12):
            collection.add(
                [Document(doc_id=str(i), text=f"word{i} shared")],
                {"bm25": encoder.encode_documents([f"word{i} shared"])},
            )
            collection.commit()
    field = Snapshot.open(tmp_path / "idx").field("bm25")
    assert len(field.vocabulary) == 13
    assert len(field.record.state["vocabulary"]) <= 8
    queries = field.query_vectors(encoder.encode_queries(["word7 shared unknown"]))
    assert sorted(field.vocabulary.strings(queries.terms)) == ["share", "word7"]
    assert field.document_frequencies(queries.terms).tolist() in ([12, 1], [1, 12])
    assert check_index(tmp_path / "idx") == []


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (Document(doc_id="a\ud800", text="x"), "doc_id"),
        (Document(doc_id="a", text="x \ud800"), "text"),
        (Document(doc_id="a", text="x", title="\udfff"), "title"),
        (Document(doc_id="a", text="x", metadata={"number": 1, "s": "\ud800"}), "'s'"),
        (Document(doc_id="a", text="x", metadata={"tags": ["ok", "\ud800"]}), "'tags'"),
        (Document(doc_id="a", text="x", metadata={"deep": {"a": ["\ud800"]}}), "'deep'"),
        (Document(doc_id="a", text="x", metadata={"\ud800": 1}), "field"),
        (Document(doc_id="a", text="x", metadata={"deep": {"a": object()}}), "'deep'"),
        (Document(doc_id="a", text="x", metadata={3: 1}), "field"),
        (Document(doc_id="a" * 1025, text="x"), "doc_id"),
    ],
)
def test_what_cannot_be_stored_is_refused_and_changes_nothing(tmp_path, vectors, document, message):
    one = {"sparse": vectors.select(np.array([0]))}
    with Collection.create(tmp_path / "idx", SPARSE) as collection:
        for commit in (False, True):
            with pytest.raises(DatasetError, match=message):
                collection.add([document], one)
            if commit:
                collection.add(documents(1), one)
                collection.commit()
        with pytest.raises(DatasetError, match=message):
            collection.add([document], one)
        collection.commit()
    snapshot = Snapshot.open(tmp_path / "idx")
    assert snapshot.n_docs == 1
    assert snapshot.manifest.metadata == {"number": "int64"}
    assert snapshot.find(["a\ud800", "d0"]).tolist() == [-1, 0]
    with Collection.open(tmp_path / "idx") as collection:
        assert collection.delete(["a\ud800"]) == ["a\ud800"]


@pytest.mark.parametrize("later", [[], ["a", None], ["b"], None])
@pytest.mark.parametrize("commit", [False, True])
def test_lists_with_nulls_and_empty_lists_fit_a_field_of_lists(tmp_path, vectors, later, commit):
    rows = [{"tags": ["sea"]}, {"tags": later}, {"tags": ["sea", "sky"]}]
    with Collection.create(tmp_path / "idx", SPARSE) as collection:
        for i, row in enumerate(rows):
            collection.add([Document(doc_id=str(i), text="", metadata=row)], {"sparse": vectors.select(np.array([i]))})
            if commit:
                collection.commit()
        collection.compact()
        collection.commit()
    snapshot = Snapshot.open(tmp_path / "idx")
    assert snapshot.manifest.metadata == {"tags": "list<string>"}
    assert [d.metadata.get("tags") for d in snapshot.get_many([0, 1, 2])] == [["sea"], later, ["sea", "sky"]]
    assert snapshot.masks("'sea' in tags")[0].tolist() == [True, False, True]
    assert snapshot.masks("'sea' not in tags")[0].tolist() == [False, later is not None, False]


@pytest.mark.parametrize("values", [(2**53 + 1, 1.5), (1.5, 2**53 + 1)])
@pytest.mark.parametrize("commit", [False, True])
def test_large_integers_and_floats_do_not_share_a_field(tmp_path, vectors, values, commit):
    with Collection.create(tmp_path / "idx", SPARSE) as collection:
        one = {"sparse": vectors.select(np.array([0]))}
        collection.add([Document(doc_id="a", text="", metadata={"n": values[0]})], one)
        if commit:
            collection.commit()
        with pytest.raises(DatasetError, match="document 'b': metadata field 'n'"):
            collection.add([Document(doc_id="b", text="", metadata={"n": values[1]})], one)
        collection.commit()
    (document,) = Snapshot.open(tmp_path / "idx").get_many([0])
    assert document.metadata == {"n": values[0]}


def test_types_of_metadata_are_read_per_segment(tmp_path, vectors):
    """A field that widens later does not change what earlier segments return."""
    rows = [{"n": 3, "x": ["a"]}, {"n": 2.5, "x": ["b", 1]}, {"n": 4}]
    with Collection.create(tmp_path / "idx", SPARSE) as collection:
        for i, row in enumerate(rows):
            collection.add([Document(doc_id=str(i), text="", metadata=row)], {"sparse": vectors.select(np.array([i]))})
            collection.commit()
    snapshot = Snapshot.open(tmp_path / "idx")
    assert len(snapshot.segments) == 3
    assert snapshot.manifest.metadata == {"n": "float64", "x": "json"}
    assert [d.metadata for d in snapshot.get_many([0, 1, 2])] == rows
    assert [mask.tolist() for mask in snapshot.masks("n >= 3")] == [[True], [False], [True]]
    with Collection.open(tmp_path / "idx") as collection:
        collection.compact()
        collection.commit()
    compacted = Snapshot.open(tmp_path / "idx")
    assert [d.metadata for d in compacted.get_many([0, 1, 2])] == rows
    assert compacted.masks({"n": {">=": 3}})[0].tolist() == [True, False, True]


def test_a_failed_create_leaves_nothing(tmp_path):
    path = tmp_path / "new"
    for fields in ({}, {"a b": SPARSE["sparse"]}, {"bm25": NewField(encoder=ENCODER, options={"bm25": {"k1": -1, "b": 0.5}})},
                   {"t": NewField(encoder=ENCODER, representation="tokens", options={"dim": 3})},
                   {"x": NewField(encoder=ENCODER, options={"bm52": None})}):  # fmt: skip
        with pytest.raises((ValueError, RepresentationError)):
            Collection.create(path, fields)
        assert not path.exists()
    path.mkdir()
    (path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="k1"):
        Collection.create(path, {"bm25": NewField(encoder=ENCODER, options={"bm25": {"k1": -1, "b": 0.5}})})
    assert [each.name for each in path.iterdir()] == ["notes.txt"]
    with Collection.create(tmp_path / "closed", SPARSE):
        pass
    assert not (tmp_path / "closed").exists()


def test_fields_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="'graph'; there are sparse, tokens, sparse-tokens"):
        NewField(encoder=ENCODER, representation="graph")
    with pytest.raises(ValueError, match="neither"):
        NewField(encoder=ENCODER, representation="tokens", scale=2.0)


def test_a_forked_child_does_not_keep_the_lock(tmp_path, vectors):
    make_index(tmp_path / "idx", vectors)
    reader, writer = os.pipe()
    collection = Collection.open(tmp_path / "idx")
    child = os.fork()
    if child == 0:  # holds the descriptor until the parent closes the pipe
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    try:
        collection.close()
        Collection.open(tmp_path / "idx").close()
    finally:
        os.close(writer)
        os.close(reader)
        os.waitpid(child, 0)


def in_child(act):
    """What ``act`` returns in a forked child, as an exit status."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(act())
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_child_neither_writes_nor_ends_its_parents_collection(tmp_path, vectors):
    make_index(tmp_path / "idx", vectors)
    held = [Collection.open(tmp_path / "idx", limits=BufferLimits(n_postings=1))]
    held[0].add(documents(40, 50), {"sparse": vectors})  # files that no commit names yet

    def act():
        try:
            held[0].commit()
        except StorageError as refusal:
            held[0].close()
            held.clear()
            return 7 if "belongs to the process that opened it" in str(refusal) else 8
        return 9

    assert in_child(act) == 7
    with pytest.raises(IndexLockedError):
        Collection.open(tmp_path / "idx")
    held[0].commit()
    held[0].close()
    assert Snapshot.open(tmp_path / "idx").n_docs == 80
    assert check_index(tmp_path / "idx") == []


def test_a_child_that_outlives_a_killed_writer_does_not_keep_its_lock(tmp_path, vectors):
    make_index(tmp_path / "idx", vectors)
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        Collection.open(tmp_path / "idx").__enter__()
        if os.fork() == 0:  # lives until the test closes the pipe
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(parent, 0)[1] == signal.SIGKILL
    try:
        Collection.open(tmp_path / "idx").close()
    finally:
        os.close(writer)
        os.close(reader)


def test_folders_that_were_made_for_an_index_that_was_never_committed_are_removed(tmp_path):
    (tmp_path / "mine").mkdir()
    with Collection.create(tmp_path / "mine" / "a" / "idx", SPARSE):
        assert (tmp_path / "mine" / "a" / "idx" / "write.lock").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="file is no folder: an index is a folder of its own"):
        Collection.create(tmp_path / "file", SPARSE)


def test_an_error_in_the_middle_of_a_change_ends_the_collection(tmp_path, vectors, monkeypatch):
    """Pending documents whose vectors are lost are never committed."""
    make_index(tmp_path / "idx", vectors)
    with Collection.open(tmp_path / "idx") as collection:
        with monkeypatch.context() as patch:
            patch.setattr(SparseWriter, "extend", interrupted)
            with pytest.raises(KeyboardInterrupt):
                collection.add(documents(40, 50), {"sparse": vectors})
        with pytest.raises(StorageError, match="failed in the middle of a change"):
            collection.commit()
    assert Snapshot.open(tmp_path / "idx").n_docs == 40


def interrupted(*_):
    raise KeyboardInterrupt


def test_what_cannot_be_removed_does_not_fail_the_commit(tmp_path, vectors, monkeypatch):
    from pathlib import Path

    make_index(tmp_path / "idx", vectors, deleted=(1,))
    with Collection.open(tmp_path / "idx") as collection:
        collection.delete(["d2"])
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", _refuse)
            patch.setattr(shutil, "rmtree", _refuse)
            collection.compact()
            collection.commit()
        assert collection.manifest.n_docs == 38
        assert len(list((tmp_path / "idx").glob("segment-*"))) == 2
    assert Snapshot.open(tmp_path / "idx").n_docs == 38
    Collection.open(tmp_path / "idx").close()
    assert len(list((tmp_path / "idx").glob("segment-*"))) == 1
    assert not list((tmp_path / "idx").glob("deletes-*"))


def _refuse(*_args, **_options):
    raise PermissionError("no")


def test_files_of_two_builds_have_different_names(tmp_path, vectors):
    """A reader of the first build must never find a file of the second by a name that it knows."""
    built = []
    for _ in range(2):
        make_index(tmp_path / "idx", vectors, cuts=(10,), deleted=(3,))
        names = {path.name for path in (tmp_path / "idx").iterdir()} - {"manifest.json", "write.lock"}
        built.append((Snapshot.open(tmp_path / "idx").manifest.build_id, names))
        shutil.rmtree(tmp_path / "idx")
    assert built[0][0] != built[1][0]
    assert not built[0][1] & built[1][1]


def test_the_search_expression_and_the_corpus_are_kept(tmp_path, vectors):
    corpus = {"id": "_id", "metadata": ["year"], "separator": None}
    with Collection.create(tmp_path / "idx", SPARSE, search="sparse", corpus=corpus) as collection:
        collection.add(documents(10), {"sparse": vectors.select(np.arange(10))})
        collection.commit()
    with Collection.open(tmp_path / "idx") as collection:
        assert (collection.search, collection.corpus) == ("sparse", corpus)
        collection.delete(["d1"])
        collection.compact()
        collection.commit()
    manifest = Snapshot.open(tmp_path / "idx").manifest
    assert (manifest.search, manifest.corpus) == ("sparse", corpus)
    with Collection.open(tmp_path / "idx") as collection:
        collection.search = "2*sparse"
        collection.commit()
    assert Snapshot.open(tmp_path / "idx").info()["search"] == "2*sparse"
