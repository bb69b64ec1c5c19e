"""Several vector fields over the same documents: written, merged, filled and dropped together."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from corpora import ENCODER, random_vectors

from lexmax import Collection, DuplicateDocumentError, IndexFormatError, RepresentationError
from lexmax.index import filling
from lexmax.index.check import check_index
from lexmax.index.collection import BufferLimits, NewField
from lexmax.index.snapshot import Snapshot


def made(path, several, cuts=(50,), *, names=None, n=120, **options):
    """An index of the fixture's documents, committed in parts."""
    names = list(several.new) if names is None else names
    ends = [*cuts, n]
    with Collection.create(path, {name: several.new[name] for name in names}, **options) as collection:
        for first, end in zip([0, *ends], ends, strict=False):
            collection.add(*several.batch(*range(first, end), names=names))
            collection.commit()
    return Snapshot.open(path)


@pytest.mark.parametrize("cuts", [(), (50,), (1, 2, 60)])
def test_what_is_added_is_there_in_every_field(tmp_path, several, cuts):
    snapshot = made(tmp_path / "idx", several, cuts)
    several.same(snapshot, range(120))
    assert list(snapshot.fields) == ["bm25", "splade", "colbert", "slim", "dense"]
    assert check_index(tmp_path / "idx") == []
    info = snapshot.info()
    assert set(info["fields"]) == set(several.new)
    assert info["complete"]
    for segment in info["segments"]:
        assert set(segment["fields"]) == set(several.new)
    assert info["n_bytes"] > sum(field["n_bytes"] for field in info["fields"].values())


@pytest.mark.parametrize("reorder", [False, True])
def test_delete_replace_and_compact_keep_fields_aligned(tmp_path, several, reorder):
    old = made(tmp_path / "idx", several, (40, 80))
    with Collection.open(tmp_path / "idx") as collection:
        assert collection.delete(["d3", "d45", "d119", "none"]) == ["none"]
        docs, vectors = several.batch(7, 90)
        _, others = several.batch(8, 9)
        with pytest.raises(DuplicateDocumentError, match="'d7'"):
            collection.add(docs, vectors)
        assert collection.add(docs, others, replace=True) == 2
        collection.commit()
        rows = [row for row in range(120) if row not in (3, 45, 119)]
        like = {7: 8, 90: 9}
        several.same(collection.snapshot(), rows, like=like)
        collection.compact(reorder=reorder)
        collection.commit()
    new = Snapshot.open(tmp_path / "idx")
    assert len(new.segments) == 1
    assert new.segments[0].record.reordered is reorder
    several.same(new, rows, like=like)
    several.same(old, range(120))  # an older reader is not disturbed
    assert new.info()["n_deleted"] == 0
    assert check_index(tmp_path / "idx") == []
    folders = [path.name for path in (tmp_path / "idx").iterdir() if path.is_dir()]
    assert len(folders) == 6


def test_one_full_field_flushes_all(tmp_path, several):
    with Collection.create(tmp_path / "idx", several.new, limits=BufferLimits(n_tokens=60)) as collection:
        for first in range(0, 120, 10):
            collection.add(*several.batch(*range(first, first + 10)))
        collection.commit()
    snapshot = Snapshot.open(tmp_path / "idx")
    assert len(snapshot.segments) > 2
    several.same(snapshot, range(120))
    assert check_index(tmp_path / "idx") == []


@pytest.mark.parametrize("names", [["bm25"], ["bm25", "splade", "colbert"], []])
def test_missing_fields_are_named_and_nothing_is_added(tmp_path, several, names):
    made(tmp_path / "idx", several, n=20, cuts=())
    with Collection.open(tmp_path / "idx") as collection:
        with pytest.raises(RepresentationError, match="the fields are bm25, splade, colbert, slim"):
            collection.add(*several.batch(30, 31, names=names))
        docs, vectors = several.batch(30, 31)
        with pytest.raises(RepresentationError, match=r"vectors for .*extra"):
            collection.add(docs, {**vectors, "extra": vectors["splade"]})
        with pytest.raises(RepresentationError, match="2 documents with 1 vectors for the field slim"):
            collection.add(docs, {**vectors, "slim": vectors["slim"].select(np.array([0]))})
        with pytest.raises(RepresentationError, match="colbert: the field holds token vectors"):
            collection.add(docs, {**vectors, "colbert": vectors["splade"]})
        collection.add(*several.batch(32))
        collection.commit()
    several.same(Snapshot.open(tmp_path / "idx"), [*range(20), 32])


def test_names_of_fields(tmp_path, several):
    for name in ("", "1a", "a b", "a+b", "ä", "a" * 65, "-a", "a\n"):
        with pytest.raises(ValueError, match="letters, digits"):
            Collection.create(tmp_path / "idx", {name: several.new["splade"]})
    assert not (tmp_path / "idx").exists()
    name = "a-b_1-000001-001-abcdef"  # as a generated file name ends
    with Collection.create(tmp_path / "idx", {name: several.new["splade"], "a": several.new["splade"]}) as collection:
        collection.add(
            [], {name: random_vectors(np.random.default_rng(1), 0, 5, 2), "a": several.vectors["splade"].select(np.arange(0))}
        )
        docs, vectors = several.batch(1, 2, names=["splade"])
        collection.add(docs, {name: vectors["splade"], "a": vectors["splade"]})
        collection.commit()
    assert check_index(tmp_path / "idx") == []
    Collection.open(tmp_path / "idx").close()
    assert check_index(tmp_path / "idx") == []


def test_check_names_the_field_and_file_of_damage(tmp_path, several):
    path = tmp_path / "idx"
    made(path, several)
    files = [each for each in path.rglob("*.lex") if each.parent.name.startswith("field-")]
    assert {each.name for each in files} == {"inverted.lex", "multivector.lex", "tokens.lex", "sparse_tokens.lex", "dense.lex"}
    for file in files:
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        problems = check_index(path)
        assert len(problems) == 1, file
        assert str(file) in problems[0]
        with pytest.raises(IndexFormatError, match=file.name):
            Snapshot.open(path)
        file.write_bytes(whole)
    assert check_index(path) == []


# --- adding a field ---


class KilledError(Exception):
    pass


def counting(encode, log, *, fail_at=None):
    """Note the texts that are encoded; raise when the ``fail_at``-th batch comes."""

    def counted(texts):
        if fail_at is not None and len(log) == fail_at:
            raise KilledError
        log.append(list(texts))
        return encode(texts)

    return counted


@pytest.mark.parametrize("name", ["bm25", "splade", "colbert", "slim", "dense"])
def test_a_field_is_filled_from_the_stored_texts(tmp_path, several, name, monkeypatch):
    monkeypatch.setattr(filling, "BATCH_DOCS", 16)
    others = [other for other in several.new if other != name]
    made(tmp_path / "idx", several, (50,), names=others)
    progress = []
    with Collection.open(tmp_path / "idx") as collection:
        collection.delete(["d5", "d60"])
        collection.add_field(name, several.new[name])
        collection.commit()
        unfilled = Snapshot.open(tmp_path / "idx")
        assert list(unfilled.fields) == others
        assert unfilled.info()["fields"][name] == {"complete": False}
        assert not unfilled.info()["complete"]
        with pytest.raises(RepresentationError, match=f"field '{name}' is not filled yet"):
            unfilled.field(name)
        assert collection.fill(name, several.encode(name), progress=progress.append) == 120
        assert collection.fill(name, several.encode(name)) == 0
    assert progress == sorted(progress)
    assert progress[-1] == 120
    rows = [row for row in range(120) if row not in (5, 60)]
    snapshot = Snapshot.open(tmp_path / "idx")
    several.same(snapshot, rows)
    several.same(unfilled, rows, names=others)
    assert check_index(tmp_path / "idx") == []
    with Collection.open(tmp_path / "idx") as collection:
        collection.compact(reorder=True)
        collection.commit()
        collection.add(*several.batch(5, 60))
        collection.commit()
    several.same(Snapshot.open(tmp_path / "idx"), range(120))
    assert check_index(tmp_path / "idx") == []


@pytest.mark.parametrize("name", ["bm25", "splade", "colbert", "slim", "dense"])
@pytest.mark.parametrize("fail_at", [0, 1, 3, 4, 5, 7])
def test_an_interrupted_filling_continues(tmp_path, several, name, fail_at, monkeypatch):
    """Pieces that were committed are not encoded again."""
    monkeypatch.setattr(filling, "BATCH_DOCS", 16)
    others = [other for other in several.new if other != name]
    made(tmp_path / "idx", several, (50,), names=others)
    log: list[list[str]] = []
    with Collection.open(tmp_path / "idx") as collection:
        collection.add_field(name, several.new[name])
        collection.commit()
        with pytest.raises(KilledError):
            collection.fill(name, counting(several.encode(name), log, fail_at=fail_at), commit_every_s=0)
    unfilled = Snapshot.open(tmp_path / "idx")
    assert list(unfilled.fields) == others
    several.same(unfilled, range(120), names=others)
    assert check_index(tmp_path / "idx") == []
    n_before = sum(map(len, log))
    with Collection.open(tmp_path / "idx") as collection:
        n_encoded = collection.fill(name, counting(several.encode(name), log), commit_every_s=0)
    assert n_encoded == 120 - n_before
    texts = [text for batch in log for text in batch]
    assert texts == [document.content for document in several.documents]
    snapshot = Snapshot.open(tmp_path / "idx", previous=unfilled)
    several.same(snapshot, range(120))
    assert check_index(tmp_path / "idx") == []
    assert snapshot.manifest.fields[name].pieces == []


def test_a_filling_that_fails_between_commits_loses_only_what_was_not_committed(tmp_path, several, monkeypatch):
    monkeypatch.setattr(filling, "BATCH_DOCS", 16)
    made(tmp_path / "idx", several, (50,), names=["splade", "slim"])
    with Collection.open(tmp_path / "idx") as collection:
        collection.add_field("bm25", several.new["bm25"])
        log: list[list[str]] = []
        with pytest.raises(KilledError):  # the same writer goes on after the error
            collection.fill("bm25", counting(several.encode("bm25"), log, fail_at=6), commit_every_s=1e9)
        assert collection.fill("bm25", several.encode("bm25")) >= 120 - 16 * 6
    several.same(Snapshot.open(tmp_path / "idx"), range(120), names=["bm25", "splade", "slim"])
    assert check_index(tmp_path / "idx") == []


def test_documents_added_and_deleted_while_a_field_is_being_filled(tmp_path, several, monkeypatch):
    monkeypatch.setattr(filling, "BATCH_DOCS", 16)
    others = ["bm25", "splade", "slim", "dense"]
    made(tmp_path / "idx", several, (50,), names=others, n=100)
    with Collection.open(tmp_path / "idx") as collection:
        collection.add_field("colbert", several.new["colbert"])
        collection.commit()
        with pytest.raises(KilledError):
            collection.fill("colbert", counting(several.encode("colbert"), [], fail_at=2), commit_every_s=0)
    with Collection.open(tmp_path / "idx") as collection:
        assert collection.fields == ("bm25", "splade", "slim", "dense")
        collection.delete(["d1", "d70"])
        with pytest.raises(RepresentationError, match="the fields are bm25, splade, slim"):
            collection.add(*several.batch(110))
        for row in range(100, 120):
            collection.add(*several.batch(row, names=others))
            collection.commit()
        with pytest.raises(ValueError, match="field colbert is being filled"):
            collection.compact()
        collection.add(*several.batch(2, names=others), replace=True)
        collection.fill("colbert", several.encode("colbert"), commit_every_s=0)
    rows = [row for row in range(120) if row not in (1, 70)]
    snapshot = Snapshot.open(tmp_path / "idx")
    several.same(snapshot, rows)
    assert check_index(tmp_path / "idx") == []
    assert len(snapshot.segments) < 22  # commits merge again once the field is complete


def test_a_field_added_to_an_empty_index_is_there_at_once(tmp_path, several):
    with Collection.create(tmp_path / "idx", {"splade": several.new["splade"]}) as collection:
        collection.commit()
        collection.add_field("bm25", several.new["bm25"])
        assert collection.fields == ("splade", "bm25")
        assert collection.fill("bm25", several.encode("bm25")) == 0
        collection.add(*several.batch(*range(30), names=["splade", "bm25"]))
        collection.commit()
    several.same(Snapshot.open(tmp_path / "idx"), range(30), names=["splade", "bm25"])


def test_two_fields_are_filled_one_after_the_other(tmp_path, several):
    made(tmp_path / "idx", several, (50,), names=["splade", "slim", "dense"])
    with Collection.open(tmp_path / "idx") as collection:
        collection.add_field("bm25", several.new["bm25"])
        collection.add_field("colbert", several.new["colbert"])
        collection.commit()
        assert collection.fill("colbert", several.encode("colbert")) == 120
        assert list(Snapshot.open(tmp_path / "idx").fields) == ["splade", "slim", "dense", "colbert"]
        assert collection.fill("bm25", several.encode("bm25")) == 120
    several.same(Snapshot.open(tmp_path / "idx"), range(120))
    assert check_index(tmp_path / "idx") == []


def test_vectors_of_another_kind_end_the_filling(tmp_path, several):
    made(tmp_path / "idx", several, (50,), names=["splade"])
    with Collection.open(tmp_path / "idx") as collection:
        collection.add_field("colbert", several.new["colbert"])
        with pytest.raises(RepresentationError, match="colbert: the field holds token vectors"):
            collection.fill("colbert", several.encode("splade"))
        with pytest.raises(RepresentationError, match="returned 49 vectors for 50 texts"):
            collection.fill("colbert", lambda texts: several.encode("colbert")(texts[1:]))
        assert collection.fill("colbert", several.encode("colbert")) == 120
    several.same(Snapshot.open(tmp_path / "idx"), range(120), names=["splade", "colbert"])


def test_a_filled_field_is_what_a_built_one_is(tmp_path, several):
    """BM25's average length is that of all documents, and centroids are made for all tokens."""
    built = made(tmp_path / "built", several, (), names=["splade", "bm25"])
    made(tmp_path / "filled", several, (50,), names=["splade"])
    with Collection.open(tmp_path / "filled") as collection:
        collection.add_field("bm25", several.new["bm25"])
        collection.fill("bm25", several.encode("bm25"), commit_every_s=0)
    filled = Snapshot.open(tmp_path / "filled")
    for row in range(120):
        rows = [s.field("bm25").document_row(int(s.find([f"d{row}"])[0])) for s in (built, filled)]
        assert rows[0].weights.tolist() == rows[1].weights.tolist()


def test_fields_are_dropped_with_their_files(tmp_path, several):
    path = tmp_path / "idx"
    old = made(path, several)
    with Collection.open(path) as collection:
        collection.drop_field("colbert")
        assert list(Snapshot.open(path).fields) == list(several.new)
        collection.commit()
        rest = [name for name in several.new if name != "colbert"]
        several.same(Snapshot.open(path, previous=old), range(120), names=rest)
        assert not [each.name for each in path.iterdir() if each.name.startswith(("field-colbert", "codec"))]
        several.same(old, range(120))
        with pytest.raises(ValueError, match="no field 'colbert'; there are bm25, splade, slim"):
            collection.drop_field("colbert")
        collection.add_field("colbert", several.new["colbert"])
        collection.fill("colbert", several.encode("colbert"))
        for name in rest:
            collection.drop_field(name)
        with pytest.raises(ValueError, match="the only field"):
            collection.drop_field("colbert")
        collection.commit()
    several.same(Snapshot.open(path), range(120), names=["colbert"])
    assert check_index(path) == []


def test_a_field_that_is_being_filled_can_be_dropped(tmp_path, several, monkeypatch):
    monkeypatch.setattr(filling, "BATCH_DOCS", 16)
    path = tmp_path / "idx"
    made(path, several, names=["splade"])
    with Collection.open(path) as collection:
        collection.add_field("colbert", several.new["colbert"])
        with pytest.raises(KilledError):
            collection.fill("colbert", counting(several.encode("colbert"), [], fail_at=2), commit_every_s=0)
        collection.drop_field("colbert")
        collection.commit()
        collection.compact()
        collection.commit()
    assert not list(path.glob("field-colbert*"))
    several.same(Snapshot.open(path), range(120), names=["splade"])
    assert check_index(path) == []


def test_fields_are_not_added_twice(tmp_path, several):
    made(tmp_path / "idx", several, (), names=["splade"], n=10)
    with Collection.open(tmp_path / "idx") as collection:
        with pytest.raises(ValueError, match="there is a field 'splade' already"):
            collection.add_field("splade", NewField(encoder=ENCODER))
        with pytest.raises(ValueError, match="no field 'bm25'"):
            collection.fill("bm25", several.encode("bm25"))
        with pytest.raises(ValueError, match="k1"):
            collection.add_field("bm25", NewField(encoder=ENCODER, options={"bm25": {"k1": -1, "b": 0}}))
        assert collection.fields == ("splade",)
        collection.commit()
    assert list(Snapshot.open(tmp_path / "idx").manifest.fields) == ["splade"]


CRASH = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from several_fields import Fields
from lexmax import Collection
from lexmax.index import filling
filling.BATCH_DOCS = 16
several, seen = Fields(), []
encode = several.encode("colbert")
def killing(texts):
    if len(seen) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    seen.append(texts)
    return encode(texts)
collection = Collection.open(sys.argv[1])
collection.add_field("colbert", several.new["colbert"])
collection.fill("colbert", killing, commit_every_s=0)
"""


def test_a_crash_while_filling_leaves_an_index_that_continues(tmp_path, several):
    path = tmp_path / "idx"
    made(path, several, (50,), names=["bm25", "splade", "slim", "dense"])
    folder = str(Path(__file__).parents[2])
    run = subprocess.run(
        [sys.executable, "-c", CRASH, str(path), folder], capture_output=True, text=True, check=False, env=os.environ
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert check_index(path) == []
    log: list[list[str]] = []
    with Collection.open(path) as collection:
        collection.fill("colbert", counting(several.encode("colbert"), log))
    assert sum(map(len, log)) <= 120 - 4 * 16
    several.same(Snapshot.open(path), range(120))
    assert check_index(path) == []


# --- snapshots that share ---


def test_a_later_snapshot_takes_over_what_did_not_change(tmp_path, several):
    path = tmp_path / "idx"
    first = made(path, several, (100,))
    with Collection.open(path) as collection:
        collection.delete(["d7"])
        collection.commit()
    second = Snapshot.open(path, previous=first)
    fresh = Snapshot.open(path)
    for number in range(2):
        assert second.segments[number].documents is first.segments[number].documents
        assert fresh.segments[number].documents is not first.segments[number].documents
        for name in several.new:
            if name != "bm25":  # few documents, whose average length has changed: it is weighed again
                assert second.field(name).segments[number].part is first.field(name).segments[number].part
    assert second.field("bm25").vocabulary is first.field("bm25").vocabulary
    assert second.field("colbert").codec is first.field("colbert").codec
    assert second.manifest == fresh.manifest
    assert second.info() == fresh.info()
    rows = [row for row in range(120) if row != 7]
    several.same(second, rows)
    several.same(first, range(120))
    for name in several.new:
        assert [None if m is None else m.tolist() for m in second.field(name).masks()] == [
            None if m is None else m.tolist() for m in fresh.field(name).masks()
        ]
    with Collection.open(path) as collection:
        collection.compact()
        collection.commit()
    several.same(Snapshot.open(path, previous=second), rows)


def test_a_snapshot_of_another_build_is_not_used(tmp_path, several):
    import shutil

    path = tmp_path / "idx"
    first = made(path, several, (), names=["splade"])
    shutil.rmtree(path)
    made(path, several, (), names=["splade"])
    second = Snapshot.open(path, previous=first)
    assert second.segments[0].documents is not first.segments[0].documents
    assert second.field("splade").segments[0].part is not first.field("splade").segments[0].part
