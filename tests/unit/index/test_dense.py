"""Dense fields in an index: what is added is there, and what does not fit is refused."""

import numpy as np
import pytest
from corpora import documents
from dense_vectors import dense_vectors, make_dense_field, new_dense_field
from token_vectors import token_vectors

from lexmax import Collection, IndexFormatError, RepresentationError
from lexmax.__main__ import main
from lexmax.index.check import check_index
from lexmax.index.dense import writer
from lexmax.index.dense.config import DenseFieldConfig
from lexmax.index.representations.dense import DenseVectors
from lexmax.index.snapshot import Snapshot


@pytest.fixture
def vectors():
    return dense_vectors(np.random.default_rng(1), 60)


def same(snapshot, vectors, doc_ids, tolerance=2**-11):
    assert snapshot.n_docs == len(doc_ids)
    for number, doc_id in zip(snapshot.find(doc_ids).tolist(), doc_ids, strict=True):
        found, expected = snapshot.field("dense").document_vector(number), vectors.row(int(doc_id[1:]))
        assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize(("keep", "n_bytes"), [("float16", 2), ("float32", 4)])
def test_vectors_survive_commits_deletes_and_compaction(tmp_path, vectors, monkeypatch, keep, n_bytes):
    monkeypatch.setattr(writer, "BLOCK_ROWS", 7)
    field = make_dense_field(tmp_path / "idx", vectors, (20, 21), (3, 20, 59), keep=keep)
    kept = [f"d{i}" for i in range(60) if i not in (3, 20, 59)]
    tolerance = 2**-11 if keep == "float16" else 0
    same(Snapshot.open(tmp_path / "idx"), vectors, kept, tolerance)
    assert 0 <= field.n_bytes - 60 * 24 * n_bytes < 3 * 1000
    with Collection.open(tmp_path / "idx") as collection:
        collection.compact()
        collection.commit()
    snapshot = Snapshot.open(tmp_path / "idx", verify=True)
    assert len(snapshot.segments) == 1
    same(snapshot, vectors, kept, tolerance)
    assert check_index(tmp_path / "idx") == []
    facts = snapshot.info()["fields"]["dense"]
    assert (facts["dim"], facts["keep"], facts["structure"]) == (24, keep, "flat")


def test_info_on_the_command_line(tmp_path, vectors, capsys):
    make_dense_field(tmp_path / "idx", vectors, (20,))
    assert main(["info", str(tmp_path / "idx")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(None, 1)[1] for line in lines if line.startswith("  dense ")] == ["20 vectors", "40 vectors"]


def test_full_buffers_become_segments(tmp_path, vectors):
    from lexmax.index.collection import BufferLimits

    limits = BufferLimits(n_numbers=24 * 25)
    with Collection.create(tmp_path / "idx", {"dense": new_dense_field(24)}, limits=limits) as collection:
        for i in range(0, 60, 5):
            collection.add(documents(5, i), {"dense": vectors.select(np.arange(i, i + 5))})
        collection.commit()
    assert len(Snapshot.open(tmp_path / "idx").segments) == 3
    same(Snapshot.open(tmp_path / "idx"), vectors, [f"d{i}" for i in range(60)])


def test_vectors_that_do_not_fit_are_refused_and_nothing_is_added(tmp_path, vectors):
    make_dense_field(tmp_path / "idx", vectors)
    wrong = {
        "dim 24, not 8": dense_vectors(np.random.default_rng(2), 1, 8),
        "holds dense vectors, not MultiVectors": token_vectors(np.random.default_rng(2), [3]),
        "past float16: make the field with keep=float32": DenseVectors(np.full((1, 24), 1e5, np.float32)),
    }
    with Collection.open(tmp_path / "idx") as collection:
        for message, batch in wrong.items():
            with pytest.raises(RepresentationError, match=message):
                collection.add(documents(1, 60), {"dense": batch})
        with pytest.raises(ValueError, match="reordered by a sparse field"):
            collection.compact(reorder=True)
    same(Snapshot.open(tmp_path / "idx"), vectors, [f"d{i}" for i in range(60)])


@pytest.mark.parametrize("wrong", [np.zeros((2, 0), np.float32), np.zeros((2, 3)), np.zeros(3, np.float32)], ids=str)
def test_what_is_no_matrix_of_floats_is_refused(wrong):
    with pytest.raises(RepresentationError, match=r"float32 array of shape \(n, dim\)"):
        DenseVectors(wrong)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(wrong):
    matrix = np.zeros((3, 4), np.float32)
    matrix[1, 2] = wrong
    with pytest.raises(RepresentationError, match="vector 1 is not"):
        DenseVectors(matrix)


def test_settings_of_the_field_are_checked():
    with pytest.raises(ValueError, match="keep is 'int4': it must be float16 or float32"):
        DenseFieldConfig(dim=3, keep="int4")
    with pytest.raises(ValueError, match="dim is 0"):
        DenseFieldConfig(dim=0)


def test_a_header_that_this_faiss_does_not_write_is_refused(tmp_path, vectors, monkeypatch):
    field = make_dense_field(tmp_path / "idx", vectors)
    part = field.segments[0].part
    monkeypatch.setattr("lexmax.index.dense.flat._header", lambda n_docs, config: b"another")
    with pytest.raises(IndexFormatError, match="run lexmax compact"):
        _ = part.faiss_index
    assert "header of this faiss" in check_index(tmp_path / "idx")[0]
