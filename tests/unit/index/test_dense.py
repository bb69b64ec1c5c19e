"""Dense fields in an index: what is added is there, and what does not fit is refused."""

import re

import numpy as np
import pytest
from corpora import documents
from dense_vectors import dense_vectors, make_dense_field, new_dense_field
from token_vectors import token_vectors

from lexmax import Collection, IndexFormatError, RepresentationError
from lexmax.__main__ import main
from lexmax.index.array_files import _DTYPES, ArrayFile, ArrayFileWriter
from lexmax.index.check import check_index
from lexmax.index.dense import graph, lists, ordering, part, writer
from lexmax.index.dense.config import DenseFieldConfig
from lexmax.index.dense.quantiser import Quantiser
from lexmax.index.representations.dense import DenseVectors
from lexmax.index.snapshot import Snapshot


@pytest.fixture
def vectors():
    return dense_vectors(np.random.default_rng(1), 60)


def same(snapshot, vectors, doc_ids, tolerance=2**-11, n_docs=None):
    assert snapshot.n_docs == (n_docs or len(doc_ids))
    for number, doc_id in zip(snapshot.find(doc_ids).tolist(), doc_ids, strict=True):
        found, expected = snapshot.field("dense").document_vector(number), vectors.row(int(doc_id[1:]))
        assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize(("keep", "n_bytes"), [("float16", 2), ("float32", 4), ("int8", 1 + 4 / 24)])
def test_vectors_survive_commits_deletes_and_compaction(tmp_path, vectors, monkeypatch, keep, n_bytes):
    for module in (writer, part):
        monkeypatch.setattr(module, "block_rows", lambda dim: 7)
    field = make_dense_field(tmp_path / "idx", vectors, (20, 21), (3, 20, 59), keep=keep)
    kept = [f"d{i}" for i in range(60) if i not in (3, 20, 59)]
    tolerance = {"float16": 2**-11, "float32": 0, "int8": 0.51 / 127}[keep]
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
    assert (facts["dim"], facts["keep"], facts["structure"]) == (24, keep, "auto")
    assert re.fullmatch(
        r"exact: all vectors in 1 segments; auto: a scan reads [\d,]+ bytes, up to the 268,435,456 from which lists are made",
        facts["search"],
    )


def test_info_on_the_command_line(tmp_path, vectors, capsys):
    make_dense_field(tmp_path / "idx", vectors, (20,))
    assert main(["info", str(tmp_path / "idx")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(None, 1)[1] for line in lines if line.startswith("  dense ")] == ["20 vectors, flat", "40 vectors, flat"]


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
    with pytest.raises(ValueError, match="keep is 'int4': it must be float16, float32 or int8"):
        DenseFieldConfig(dim=3, keep="int4")
    with pytest.raises(ValueError, match="dim is 0"):
        DenseFieldConfig(dim=0)

    wrong = {
        "n_lists is 0: it must be 1 to 65536": {"n_lists": 0},
        "search_dim is 9: it must be 1 to 8": {"search_dim": 9},
        "coarse_dim is 5: it must be 1 to 4": {"search_dim": 4, "coarse_dim": 5},
        "pq_bytes has no use with structure=ivf and quantise=none": {"structure": "ivf", "pq_bytes": 4},
        "quantise has no use with structure=hnsw": {"structure": "hnsw", "quantise": "pq"},
        "order has no use with structure=flat": {"structure": "flat", "order": "random"},
        "structure is 'tree': it must be auto, flat, ivf or hnsw": {"structure": "tree"},
    }
    for message, given in wrong.items():
        with pytest.raises(ValueError, match=message):
            DenseFieldConfig(dim=8, **given)


def test_auto_makes_lists_of_fields_that_are_slow_to_scan():
    fields = [DenseFieldConfig(dim=384), DenseFieldConfig(dim=384, quantise="opq", pq_bytes=64)]
    assert [each.structure_of(300_000) for each in fields] == ["flat", "flat"]
    assert [each.structure_of(400_000) for each in fields] == ["ivf", "flat"]
    assert [each.structure_of(5_000_000) for each in fields] == ["ivf", "ivf"]
    assert fields[0].lists_of(400_000) == 2048
    assert [fields[1].lists_of(n) for n in (1000, 1024)] == [0, 1]


LISTED = {"structure": "ivf", "n_lists": 2}


def test_lists_are_made_once_there_are_enough_documents_and_again_when_there_are_many_more(tmp_path, vectors):
    path = tmp_path / "idx"
    make_dense_field(path, vectors, **LISTED)
    facts = Snapshot.open(path).info()["fields"]["dense"]
    assert (facts["n_lists"], facts["search"]) == (
        0, "exact: all vectors in 1 segments; ivf with codes none takes 64 documents in the field, "
        "and a commit or compaction since",
    )  # fmt: skip

    def add(first, n):
        with Collection.open(path) as collection:
            collection.add(documents(n, first), {"dense": dense_vectors(np.random.default_rng(first), n)})
            collection.commit()
        return Snapshot.open(path)

    snapshot = add(60, 10)
    field = snapshot.field("dense")
    assert [each.part.structure for each in field.segments] == ["ivf"]
    assert field.quantiser.n_trained == 70
    same(Snapshot.open(path, verify=True), vectors, [f"d{i}" for i in range(60)], n_docs=70)
    name = field.record.state["codec"]
    field = add(70, 5).field("dense")
    assert [each.part.structure for each in field.segments] == ["ivf", "ivf"]
    assert field.record.state["codec"] == name
    field = add(75, 300).field("dense")
    assert field.quantiser.n_trained == 375
    assert field.record.state["codec"] != name
    assert not (path / name).exists()
    assert check_index(path) == []
    with Collection.open(path) as collection:
        collection.delete([f"d{i}" for i in range(375)])
        collection.compact()
        collection.commit()
    assert Snapshot.open(path).field("dense").quantiser is None


@pytest.mark.parametrize("config", [LISTED, {"structure": "hnsw"}, {"structure": "flat", "quantise": "int8"}], ids=str)
def test_a_build_in_one_go_has_its_structure_at_once(tmp_path, monkeypatch, config):
    monkeypatch.setattr(writer, "GRAPH_VECTORS", 50)
    vectors = dense_vectors(np.random.default_rng(3), 100)
    field = make_dense_field(tmp_path / "idx", vectors, **config)
    assert field.segments[0].part.structure != "flat"
    assert field.info()["search"].startswith("approximate")
    assert check_index(tmp_path / "idx") == []


def damaged(path, name, array, change):
    """Write a file of a part again with one array changed; its checksums are right."""
    file = next(path.glob(f"field-*/{name}"))
    source = ArrayFile(file, {"dense.lex": part.KIND, "lists.lex": lists.KIND, "graph.lex": graph.KIND}[name])
    arrays = {each: np.array(source.unverified(each, list(_DTYPES), entry.shape)) for each, entry in source._entries.items()}
    arrays[array] = change(arrays[array])
    with ArrayFileWriter(file, source.kind) as out:
        for each, values in arrays.items():
            out.add(each, values)
    return file.parent


@pytest.mark.parametrize(("config", "name", "array", "change"), [
    (LISTED, "dense.lex", "documents", lambda a: np.full_like(a, 3)),
    (LISTED, "dense.lex", "documents", lambda a: a + 1),
    (LISTED, "dense.lex", "longest", lambda a: a * np.float32(np.nan)),
    (LISTED, "dense.lex", "longest", lambda a: a / 2),
    (LISTED, "dense.lex", "longest", lambda a: a * np.float32(1e30)),
    (LISTED, "lists.lex", "starts", lambda a: a[::-1]),
    (LISTED, "lists.lex", "starts", lambda a: a[1:]),
    ({"structure": "hnsw"}, "graph.lex", "entry", lambda a: a - 1000),
    ({"structure": "hnsw"}, "graph.lex", "links", lambda a: a + 100),
    ({"structure": "hnsw"}, "graph.lex", "upper", lambda a: a[1:]),
    ({"structure": "hnsw"}, "graph.lex", "upper", lambda a: np.where(a >= 0, (a + 1) % 100, a).astype(np.int32)),
    ({"structure": "hnsw"}, "graph.lex", "levels", lambda a: a + np.uint8(200)),
], ids=lambda each: each if isinstance(each, str) else "")  # fmt: skip
def test_values_that_index_memory_are_checked(tmp_path, monkeypatch, config, name, array, change):
    monkeypatch.setattr(writer, "GRAPH_VECTORS", 50)
    field = make_dense_field(tmp_path / "idx", dense_vectors(np.random.default_rng(3), 100), **config)
    folder = damaged(tmp_path / "idx", name, array, change)
    with pytest.raises(IndexFormatError):
        part.DensePart(folder, field.config, field.quantiser).check()


def test_a_quantiser_that_does_not_fit_is_refused(tmp_path):
    make_dense_field(tmp_path / "idx", dense_vectors(np.random.default_rng(3), 100), **LISTED)
    file = next((tmp_path / "idx").glob("codec-*.lex"))
    with pytest.raises(IndexFormatError, match="codebooks"):
        Quantiser.read(file, DenseFieldConfig(dim=24, quantise="pq"))
    with pytest.raises(IndexFormatError, match="centroids"):
        Quantiser.read(file, DenseFieldConfig(dim=24, structure="ivf", coarse_dim=8))
    Quantiser(np.full((2, 24), np.nan, np.float32), np.zeros(2, np.float32), 1).write(tmp_path / "codec.lex")
    with pytest.raises(IndexFormatError, match="finite"):
        Quantiser.read(tmp_path / "codec.lex", DenseFieldConfig(dim=24))


def test_vectors_whose_distances_overflow_have_a_list():
    quantiser = Quantiser(np.eye(3, 4, dtype=np.float32), np.ones(3, np.float32), 3)
    assert quantiser.assign(np.array([[0, 0, 1, 0], [1e30] * 4], np.float32)).tolist() == [2, 0]


def test_local_dimensionality_is_that_of_what_vectors_lie_on(tmp_path):
    """Points of a line and of a ten-dimensional ball, far apart."""
    rng = np.random.default_rng(4)
    line, ball = np.zeros((300, 24), np.float32), np.zeros((300, 24), np.float32)
    line[:, 0], line[:, 23] = rng.random(300), 100
    ball[:, :10] = rng.standard_normal((300, 10))
    field = make_dense_field(tmp_path / "idx", DenseVectors(np.concatenate([line, ball])), keep="float32")
    found = ordering.local_dimensionality(field.segments[0].part, 24)
    assert 0.8 < np.median(found[:300]) < 1.3
    assert 6 < np.median(found[300:]) < 13
    config = DenseFieldConfig(dim=24, structure="hnsw", order="lid_desc", keep="float32")
    order = ordering.insertion_order(field.segments[0].part, config)
    assert sorted(order.tolist()) == list(range(600))
    assert (order[:280] >= 300).mean() > 0.95
