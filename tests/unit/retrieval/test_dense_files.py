"""Dense vectors from NumPy files: imported, searched with vectors, refused where they are wrong."""

import json

import numpy as np
import pytest
from dense_vectors import dense_vectors

from lexmax import DatasetError, DuplicateDocumentError, RepresentationError, Retriever
from lexmax.__main__ import main
from lexmax.index.check import check_index
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.encoders.precomputed import DenseVectorsEncoder
from lexmax.retrieval.exchange.dense_files import import_dense


@pytest.fixture
def matrix():
    return dense_vectors(np.random.default_rng(1), 50, 8).vectors


def saved(path, matrix):
    np.save(path, matrix)
    return path


def test_rows_become_documents_and_are_found_by_vectors(tmp_path, matrix):
    files = [
        saved(tmp_path / "a.npy", matrix[:20].astype(np.float16)),
        saved(tmp_path / "b.npy", matrix[20:].astype(np.float64)),
    ]
    report = import_dense(files, tmp_path / "idx", storage={"structure": "ivf", "n_lists": 1, "keep": "float32"})
    assert report.n_added == 50
    assert check_index(tmp_path / "idx") == []
    with Retriever.open(tmp_path / "idx") as retriever:
        results = retriever.search_vectors(matrix[[3, 30]], k=1)
    best = np.argmax(np.concatenate([matrix[:20].astype(np.float16), matrix[20:]]) @ matrix[[3, 30]].T, axis=0)
    assert [each[0].doc_id for each in results] == [str(number) for number in best.tolist()]
    with pytest.raises(RepresentationError, match="search it with a matrix"), Retriever.open(tmp_path / "idx") as retriever:
        retriever.search("a text")


def test_from_the_command_line_with_ids_and_documents(tmp_path, matrix, capsys):
    file, ids, corpus = saved(tmp_path / "a.npy", matrix), tmp_path / "ids.txt", tmp_path / "corpus.jsonl"
    ids.write_text("".join(f"d{i}\n" for i in range(50)))
    corpus.write_text("".join(json.dumps({"_id": f"d{i}", "text": f"text {i}"}) + "\n" for i in reversed(range(50))))
    arguments = ["import", str(file), "--ids", str(ids), "--documents", str(corpus), "--set", "structure=hnsw"]
    assert main([*arguments, "--out", str(tmp_path / "idx"), "--field", "own"]) == 0
    assert Snapshot.open(tmp_path / "idx").field("own").config.structure == "hnsw"
    capsys.readouterr()
    assert main(["search", str(tmp_path / "idx"), "--vector", json.dumps(matrix[7].tolist()), "-k", "1", "--json"]) == 0
    best = int(np.argmax(matrix @ matrix[7]))
    assert json.loads(capsys.readouterr().out)["doc_id"] == f"d{best}"
    for vector, message in (("[1, 2]", "matrix"), ('{"a": 1}', "a JSON list of numbers"), ("[true]", "a JSON list of numbers")):
        assert main(["search", str(tmp_path / "idx"), "--vector", vector]) == 2
        assert message in capsys.readouterr().err
    for wrong, message in (
        (["--term-numbers"], "have no terms"), (["--set", "keep=int3"], "int3"), (["--set", "kept=1"], "kept"),
        (["--encoder", "bm25"], "makes sparse vectors"),
    ):  # fmt: skip
        assert main(["import", str(file), "--out", str(tmp_path / "no"), *wrong]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_what_is_no_matrix_of_floats_is_refused(tmp_path, matrix):
    infinite = matrix.copy()
    infinite[9, 2] = np.inf
    text = tmp_path / "text.npy"
    text.write_text("no numbers")
    wrong = {
        "no such file": [tmp_path / "none.npy"],
        "not a NumPy file": [text],
        r"not int64 \(3, 2\)": [saved(tmp_path / "int.npy", np.zeros((3, 2), np.int64))],
        r"not float32 \(8,\)": [saved(tmp_path / "one.npy", matrix[0])],
        "there are no vectors": [saved(tmp_path / "empty.npy", matrix[:0])],
        "a vector of 5 numbers after a vector of 8 numbers": [
            saved(tmp_path / "a.npy", matrix),
            saved(tmp_path / "b.npy", matrix[:, :5]),
        ],
        "line 10: a number is not finite": [saved(tmp_path / "inf.npy", infinite)],
        "line 1: a number is not finite": [saved(tmp_path / "large.npy", matrix.astype(np.float64) * 1e60)],
    }
    for message, files in wrong.items():
        with pytest.raises(DatasetError, match=message):
            import_dense(files, tmp_path / "idx")
        assert not (tmp_path / "idx").exists()


def test_documents_of_several_vectors(tmp_path):
    """Arrays (n, m, dim): the best of a document's m vectors counts."""
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((30, 3, 8)).astype(np.float32)
    files = [saved(tmp_path / "a.npy", vectors[:20]), saved(tmp_path / "b.npy", vectors[20:])]
    import_dense(files, tmp_path / "idx", storage={"keep": "float32"})
    query = rng.standard_normal(8).astype(np.float32)
    (found,) = Retriever.open(tmp_path / "idx").search_vectors(query, k=5)
    scores = (vectors @ query).max(axis=1)
    assert [hit.doc_id for hit in found] == [str(i) for i in np.argsort(-scores)[:5]]
    flat = saved(tmp_path / "flat.npy", vectors[:, 0])
    with pytest.raises(DatasetError, match="a vector of 8 numbers after 3 vectors of 8 numbers"):
        import_dense([files[0], flat], tmp_path / "no")
    with pytest.raises(DatasetError, match="1 to 64 vectors, not 65"):
        import_dense([saved(tmp_path / "many.npy", np.zeros((2, 65, 3), np.float32))], tmp_path / "no")
    with pytest.raises(RepresentationError, match=r"the encoder makes a vector of 8 numbers, .* holds 3 vectors of 8 numbers"):
        import_dense(files, tmp_path / "no", encoder=DenseVectorsEncoder(dim=8))


def test_ids_and_rows_belong_together(tmp_path, matrix):
    file, ids = saved(tmp_path / "a.npy", matrix[:3]), tmp_path / "ids.txt"
    for text, kind, message in (
        ("a\nb\n", DatasetError, "line 3: there is no id for this row"),
        ("a\nb\nc\nd\n", DatasetError, "the id 'd' has no row"),
        ("a\nb\na\n", DuplicateDocumentError, "line 3"),
    ):  # fmt: skip
        ids.write_text(text)
        with pytest.raises(kind, match=message):
            import_dense([file], tmp_path / "idx", ids=ids)
        assert not (tmp_path / "idx").exists()
    with pytest.raises(RepresentationError, match="the encoder makes a vector of 4 numbers"):
        import_dense([file], tmp_path / "idx", encoder=DenseVectorsEncoder(dim=4))
