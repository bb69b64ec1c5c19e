"""Collections of token vectors: what is added is found, whatever happens between."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from corpora import documents, make_index, random_vectors
from token_vectors import TOKEN_ENCODER, make_token_index, token_vectors, unit

from lexmax import Collection, DuplicateDocumentError, IndexFormatError, RepresentationError
from lexmax.index.check import check_index
from lexmax.index.collection import BufferLimits, NewField
from lexmax.index.multivector import writer
from lexmax.index.representations.multivectors import MultiVectors
from lexmax.index.snapshot import Snapshot


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(1)
    return token_vectors(rng, [0, *rng.integers(0, 25, 58), 0])


def codec_file(snapshot):
    return snapshot.field("tokens").record.state["codec"]


def codec(snapshot):
    return snapshot.field("tokens").codec


def facts(snapshot):
    return snapshot.info()["fields"]["tokens"]


def drifts(snapshot):
    return [segment["fields"]["tokens"]["drift"] for segment in snapshot.info()["segments"]]


def same_tokens(snapshot, vectors, doc_ids, *, atol=0.04):
    """Every document is there with the tokens that it was given, but for 8 bits of rounding."""
    assert snapshot.n_docs == len(doc_ids)
    for doc_id in doc_ids:
        (number,) = snapshot.find([doc_id]).tolist()
        assert number >= 0, doc_id
        assert snapshot.get_many([number])[0].doc_id == doc_id
        found, expected = snapshot.field("tokens").document_tokens(number), vectors.row(int(doc_id[1:]))
        assert found.shape == expected.shape
        assert np.abs(found - expected).max(initial=0) < atol


def names(n, *but):
    return [f"d{i}" for i in range(n) if i not in but]


@pytest.mark.parametrize("cuts", [(), (20,), (1, 21, 22)])
def test_what_is_added_is_there(tmp_path, vectors, cuts):
    snapshot = make_token_index(tmp_path / "idx", vectors, cuts, n_centroids=16)
    assert len(snapshot.segments) == len(cuts) + 1
    same_tokens(snapshot, vectors, names(60))
    assert check_index(tmp_path / "idx") == []
    assert Snapshot.open(tmp_path / "idx", verify=True).info()["fields"]["tokens"]["n_tokens"] == vectors.n_tokens


def test_nothing_is_seen_before_the_commit_and_codecs_stay(tmp_path, vectors):
    snapshot = make_token_index(tmp_path / "idx", vectors.select(np.arange(30)))
    with Collection.open(tmp_path / "idx") as collection:
        collection.add(documents(30, 30), {"tokens": vectors.select(np.arange(30, 60))})
        collection.delete(["d3"])
        assert Snapshot.open(tmp_path / "idx").n_docs == 30
        collection.commit()
    assert snapshot.n_docs == 30
    newest = Snapshot.open(tmp_path / "idx")
    assert codec_file(newest) == codec_file(snapshot)
    same_tokens(newest, vectors, names(60, 3))


def test_full_buffers_become_segments(tmp_path, vectors):
    new = NewField(encoder=TOKEN_ENCODER, representation="tokens", options={"dim": 32})
    with Collection.create(tmp_path / "idx", {"tokens": new}, limits=BufferLimits(n_tokens=200)) as collection:
        for first in range(0, 60, 5):
            collection.add(documents(5, first), {"tokens": vectors.select(np.arange(first, first + 5))})
        collection.commit()
    snapshot = Snapshot.open(tmp_path / "idx")
    assert len(snapshot.segments) >= 3
    same_tokens(snapshot, vectors, names(60))


def test_deleted_and_replaced_documents(tmp_path, vectors):
    make_token_index(tmp_path / "idx", vectors, (20, 40))
    with Collection.open(tmp_path / "idx") as collection:
        assert collection.delete(["d1", "d45", "none"]) == ["none"]
        with pytest.raises(DuplicateDocumentError, match="'d2'"):
            collection.add(documents(1, 2), {"tokens": vectors.select(np.array([7]))})
        assert collection.add(documents(1, 2), {"tokens": vectors.select(np.array([7]))}, replace=True) == 1
        collection.commit()
    snapshot = Snapshot.open(tmp_path / "idx")
    assert snapshot.n_docs == 58
    number = int(snapshot.find(["d2"])[0])
    assert np.abs(snapshot.field("tokens").document_tokens(number) - vectors.row(7)).max() < 0.04
    same = Snapshot.open(tmp_path / "idx").find(["d1", "d45", "d59"]).tolist()
    assert same[:2] == [-1, -1]
    assert same[2] >= 0
    assert check_index(tmp_path / "idx") == []


def compact(path):
    with Collection.open(path) as collection:
        collection.compact()
        collection.commit()
    return Snapshot.open(path)


def test_compaction_keeps_codes_as_they_are(tmp_path, vectors):
    gone = (0, 8, 25, 59)
    old = make_token_index(tmp_path / "idx", vectors, (30, 45), gone)
    new = compact(tmp_path / "idx")
    assert len(new.segments) == 1
    assert codec_file(new) == codec_file(old)
    assert new.info()["n_deleted"] == 0
    for doc_id in names(60, *gone):
        before, after = (s.field("tokens").document_tokens(int(s.find([doc_id])[0])) for s in (old, new))
        assert np.array_equal(before, after)  # not decoded and encoded again
    same_tokens(new, vectors, names(60, *gone))
    assert check_index(tmp_path / "idx") == []
    assert len(list((tmp_path / "idx").glob("segment-*"))) == len(list((tmp_path / "idx").glob("field-*"))) == 1
    assert compact(tmp_path / "idx").segments[0].record.name == new.segments[0].record.name  # nothing left to do


def test_a_commit_clusters_a_small_field_again_that_outgrew_its_centroids(tmp_path):
    rng = np.random.default_rng(2)
    vectors = token_vectors(rng, rng.integers(20, 40, 200))
    first = make_token_index(tmp_path / "idx", vectors.select(np.arange(5)))
    with Collection.open(tmp_path / "idx") as collection:
        collection.add(documents(195, 5), {"tokens": vectors.select(np.arange(5, 200))})
        collection.commit()
    new = Snapshot.open(tmp_path / "idx", previous=first)
    assert codec(new).n_centroids >= 4 * codec(first).n_centroids
    assert not (tmp_path / "idx" / codec_file(first)).exists()
    same_tokens(new, vectors, names(200))
    assert check_index(tmp_path / "idx") == []
    assert codec_file(compact(tmp_path / "idx")) == codec_file(new)
    same_tokens(first, vectors, names(5))  # an older reader keeps its codec and its codes


def test_compaction_clusters_a_large_field_again_that_outgrew_its_centroids(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "RECLUSTERED_TOKENS", 100)
    vectors = token_vectors(np.random.default_rng(2), [30] * 200)
    old = make_token_index(tmp_path / "idx", vectors, (5,))
    assert len(old.segments) == 2  # too large for a commit to cluster it again
    new = compact(tmp_path / "idx")
    assert codec(new).n_centroids >= 4 * codec(old).n_centroids
    same_tokens(new, vectors, names(200))
    assert check_index(tmp_path / "idx") == []


def drifting(n=40):
    """First texts of two topics, then texts of quite other ones."""
    rng = np.random.default_rng(3)
    first = token_vectors(rng, [10] * n, n_topics=2, spread=0.3)
    later = unit(rng.standard_normal((10 * n, 32)))
    return MultiVectors.of([*(first.row(i) for i in range(n)), *np.split(later, n)], 32)


def test_a_codec_that_tokens_drifted_from_is_replaced_at_compaction(tmp_path):
    vectors = drifting()
    old = make_token_index(tmp_path / "idx", vectors, (40,), n_centroids=16)
    assert [drift > 0.15 for drift in drifts(old)] == [False, True]
    same_tokens(old, vectors, names(80), atol=0.08)
    new = compact(tmp_path / "idx")
    assert codec_file(new) != codec_file(old)
    assert codec(new).n_centroids == 16
    assert abs(drifts(new)[0]) < 0.15
    same_tokens(new, vectors, names(80), atol=0.08)
    assert codec_file(compact(tmp_path / "idx")) == codec_file(new)


def test_fewer_tokens_than_centroids_are_no_reason_to_cluster_again(tmp_path, vectors):
    old = make_token_index(tmp_path / "idx", vectors.select(np.arange(3)), (1,), (1,), n_centroids=1000)
    new = compact(tmp_path / "idx")
    assert codec(new).n_centroids <= vectors.n_tokens
    assert codec_file(compact(tmp_path / "idx")) == codec_file(new)
    assert old.n_docs == new.n_docs == 2


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("nbits", [1, 2, 4, 8])
def test_every_width(tmp_path, vectors, nbits, exact):
    snapshot = make_token_index(tmp_path / "idx", vectors, (30,), nbits=nbits, exact=exact)
    atol = 0.04 if exact else {1: 0.6, 2: 0.35, 4: 0.12, 8: 0.04}[nbits]
    same_tokens(snapshot, vectors, names(60), atol=atol)
    same_tokens(compact(tmp_path / "idx"), vectors, names(60), atol=atol)
    assert check_index(tmp_path / "idx") == []


def test_an_empty_index(tmp_path):
    nothing = MultiVectors.of([], 32)
    snapshot = make_token_index(tmp_path / "idx", nothing)
    assert (snapshot.n_docs, snapshot.segments, codec(snapshot)) == (0, [], None)
    assert facts(compact(tmp_path / "idx"))["n_tokens"] == 0
    assert check_index(tmp_path / "idx") == []


def test_documents_without_tokens_come_first(tmp_path, vectors):
    """There is nothing to cluster yet; later documents make the codec."""
    empty = [np.empty((0, 32), np.float32)] * 2
    mixed = MultiVectors.of([*empty, *(vectors.row(i) for i in range(1, 31))], 32)
    first = make_token_index(tmp_path / "idx", mixed.select(np.arange(2)))
    assert codec(first).n_centroids == 1
    with Collection.open(tmp_path / "idx") as collection:
        collection.add(documents(30, 2), {"tokens": mixed.select(np.arange(2, 32))})
        collection.commit()
    old = Snapshot.open(tmp_path / "idx")
    assert codec(old).n_centroids > 1
    same_tokens(old, mixed, names(32), atol=0.1)
    new = compact(tmp_path / "idx")
    same_tokens(new, mixed, names(32), atol=0.1)
    assert check_index(tmp_path / "idx") == []


def test_deleting_everything_forgets_the_codec(tmp_path):
    vectors = drifting(10)
    make_token_index(tmp_path / "idx", vectors.select(np.arange(20)), (10,), n_centroids=16)
    with Collection.open(tmp_path / "idx") as collection:
        collection.delete(names(20))
        collection.compact()
        collection.commit()
    snapshot = Snapshot.open(tmp_path / "idx")
    assert (snapshot.n_docs, snapshot.segments, codec(snapshot)) == (0, [], None)
    assert list((tmp_path / "idx").glob("codec-*")) == []
    with Collection.open(tmp_path / "idx") as collection:
        collection.add(documents(20), {"tokens": vectors})
        collection.commit()
    same_tokens(Snapshot.open(tmp_path / "idx"), vectors, names(20), atol=0.08)
    assert check_index(tmp_path / "idx") == []


def test_wrong_vectors_are_refused_and_nothing_is_added(tmp_path, vectors):
    sparse = random_vectors(np.random.default_rng(4), 3, 30, 8)
    make_token_index(tmp_path / "tokens", vectors)
    with Collection.open(tmp_path / "tokens") as collection:
        with pytest.raises(RepresentationError, match="holds token vectors, not SparseVectors"):
            collection.add(documents(3, 100), {"tokens": sparse})
        with pytest.raises(RepresentationError, match="dim 32, not 64"):
            collection.add(documents(1, 100), {"tokens": token_vectors(np.random.default_rng(5), [3], 64)})
        with pytest.raises(RepresentationError, match="2 documents with 1"):
            collection.add(documents(2, 100), {"tokens": vectors.select(np.array([3]))})
        collection.commit()
    assert Snapshot.open(tmp_path / "tokens").n_docs == 60
    make_index(tmp_path / "sparse", sparse)
    with (
        Collection.open(tmp_path / "sparse") as collection,
        pytest.raises(RepresentationError, match="holds sparse vectors, not MultiVectors"),
    ):
        collection.add(documents(3, 100), {"sparse": vectors.select(np.arange(3))})


def test_an_index_names_the_fields_that_it_has(tmp_path, vectors):
    tokens = make_token_index(tmp_path / "tokens", vectors)
    with pytest.raises(RepresentationError, match=r"no field 'sparse'; there are tokens .*lexmax field add"):
        tokens.field("sparse")
    assert tokens.field("tokens").representation == "tokens"
    assert tokens.manifest.fields["tokens"].encoder == TOKEN_ENCODER


def test_damage_to_any_file_is_found(tmp_path, vectors):
    path = tmp_path / "idx"
    make_token_index(path, vectors, (30,), (3,))
    files = [p for p in path.rglob("*") if p.is_file() and p.name != "write.lock"]
    assert {p.name.split("-")[0].split(".")[0] for p in files} == {
        "manifest", "codec", "multivector", "tokens", "documents", "doc_ids", "deletes",
    }  # fmt: skip
    for file in files:
        whole = file.read_bytes()
        middle = len(whole) // 2
        for damaged in (whole[:middle], whole[:middle] + bytes([whole[middle] ^ 4]) + whole[middle + 1 :], b""):
            file.write_bytes(damaged)
            problems = check_index(path)
            assert len(problems) == 1, file
            assert file.name in problems[0]
            with pytest.raises(IndexFormatError, match=file.name):
                Snapshot.open(path, verify=True)
        if file.name != "manifest.json":
            file.unlink()
            assert any(file.name in problem for problem in check_index(path)), file
            with pytest.raises(IndexFormatError, match=file.name):
                Snapshot.open(path)
        file.write_bytes(whole)
    assert check_index(path) == []


def test_compaction_over_a_damaged_segment_changes_nothing(tmp_path):
    """Clustering again must not leave the new codec with the old codes."""
    vectors = drifting()
    make_token_index(tmp_path / "idx", vectors, (40,), n_centroids=16)
    with Collection.open(tmp_path / "idx") as collection:
        file = max((tmp_path / "idx").glob("field-tokens-*")) / "multivector.lex"
        whole = bytearray(file.read_bytes())
        name = collection.snapshot().field("tokens").segments[1].part.file._entries["levels"]
        with file.open("r+b") as out:  # in place: it is mapped
            out.seek(name.offset)
            out.write(bytes([whole[name.offset] ^ 1]))
        with pytest.raises(IndexFormatError, match="levels"):
            collection.compact()
    file.write_bytes(whole)
    assert check_index(tmp_path / "idx") == []
    same_tokens(Snapshot.open(tmp_path / "idx"), vectors, names(80), atol=0.08)


CRASH = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
import numpy as np
from corpora import documents
from token_vectors import token_vectors
from lexmax import Collection
collection = Collection.open(sys.argv[1])
collection.add(documents(300, 1000), {"tokens": token_vectors(np.random.default_rng(9), [30] * 300)})
collection.delete(["d1"])
collection.compact()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_crash_before_the_commit_leaves_the_old_state(tmp_path, vectors):
    path = tmp_path / "idx"
    old = make_token_index(path, vectors, (30,))
    folder = str(Path(__file__).parents[2])
    run = subprocess.run([sys.executable, "-c", CRASH, str(path), folder], capture_output=True, text=True, check=False)
    assert run.returncode == -9, run.stderr
    assert len(list(path.glob("field-tokens-*"))) > 2
    assert check_index(path) == []
    assert Snapshot.open(path).manifest == old.manifest
    same_tokens(Snapshot.open(path), vectors, names(60))
    Collection.open(path).close()  # cleans up
    assert [p.name for p in path.glob("codec-*")] == [codec_file(old)]
    assert len(list(path.glob("segment-*"))) == 2
