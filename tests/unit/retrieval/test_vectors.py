"""Ready-made vectors: every form gives the same index, scores are dot products, and wrong input is refused."""

import gzip
import json
import re
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse
import torch
from sentence_transformers.util import semantic_search

from lexmax import (
    Collection,
    DatasetError,
    DuplicateDocumentError,
    EncoderMismatchError,
    RepresentationError,
    Retriever,
    SparseVectors,
    import_vectors,
    load_encoder,
    semantic_search_lexmax,
    to_sparse_vectors,
)
from lexmax.__main__ import main
from lexmax.index.check import check_index
from lexmax.index.collection import NewField
from lexmax.index.documents import Document
from lexmax.index.preludes import PRELUDE_BYTES
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.encoders.precomputed import VectorsEncoder
from lexmax.retrieval.exchange import vector_files

N_DOCS, N_TERMS = 60, 50


def matrix(n=N_DOCS, seed=0, share=0.15):
    """(n, N_TERMS) float32 with an empty first row."""
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((n, N_TERMS)) < share, rng.gamma(2, 0.5, (n, N_TERMS)) + 0.01, 0).astype(np.float32)
    dense[0] = 0
    return dense


DENSE = matrix()


def mappings(dense, key=int):
    """Rows as dicts, the last terms first."""
    return [{key(term): float(row[term]) for term in np.flatnonzero(row)[::-1]} for row in dense]


def with_duplicates(dense):
    """A COO matrix that names every entry twice, each with half of its weight."""
    rows, terms = np.nonzero(dense)
    return scipy.sparse.coo_array((np.tile(dense[rows, terms] / 2, 2), (np.tile(rows, 2), np.tile(terms, 2))), dense.shape)


def unsorted(dense):
    """A CSR matrix whose rows run backwards and hold an explicit zero."""
    rows = [np.flatnonzero(row)[::-1] for row in dense]
    rows[0] = np.array([3])
    indptr = np.cumsum([0, *map(len, rows)])
    owners = np.repeat(np.arange(len(rows)), np.diff(indptr))
    return scipy.sparse.csr_array((dense[owners, np.concatenate(rows)], np.concatenate(rows), indptr), dense.shape)


def torch_coo(dense):
    half = torch.tensor(dense) / 2
    indices = half.nonzero().T
    return torch.sparse_coo_tensor(indices.repeat(1, 2), half[tuple(indices)].repeat(2), dense.shape)


FORMS = {
    "SciPy CSR": scipy.sparse.csr_array,
    "SciPy CSR matrix": scipy.sparse.csr_matrix,
    "SciPy CSC": scipy.sparse.csc_array,
    "SciPy COO, entries twice": with_duplicates,
    "SciPy CSR, unsorted": unsorted,
    "numpy": np.array,
    "numpy, double": lambda dense: dense.astype(np.float64),
    "torch": torch.tensor,
    "torch, with gradients": lambda dense: torch.tensor(dense, requires_grad=True),
    "torch COO, entries twice": torch_coo,
    "torch CSR": lambda dense: torch.tensor(dense).to_sparse_csr(),
    "dicts": mappings,
    "dicts of numpy numbers": lambda dense: [{np.int32(t): np.float32(w) for t, w in row.items()} for row in mappings(dense)],
    "pairs": lambda dense: [list(row.items()) for row in mappings(dense)],
    "SparseVectors": lambda dense: SparseVectors.from_rows([(list(row), list(row.values())) for row in mappings(dense)]),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_in_memory_gives_the_same_vectors(form):
    expected = scipy.sparse.csr_array(DENSE)
    vectors = to_sparse_vectors(FORMS[form](DENSE))
    assert np.array_equal(vectors.indptr, expected.indptr)
    assert np.array_equal(vectors.terms, expected.indices)
    assert np.array_equal(vectors.weights, expected.data)
    assert vectors.vocabulary is None


@pytest.mark.parametrize("form", ["SciPy CSR", "numpy", "torch", "torch CSR", "torch COO, entries twice", "dicts"])
def test_no_rows(form):
    assert len(to_sparse_vectors(FORMS[form](DENSE[:0]))) == 0


@pytest.mark.parametrize("one", [DENSE[5], torch.tensor(DENSE[5]), torch.tensor(DENSE[5]).to_sparse(), [mappings(DENSE)[5]]])
def test_one_vector_is_a_row(one):
    vectors = to_sparse_vectors(one)
    assert np.array_equal(vectors.terms, np.flatnonzero(DENSE[5]))
    assert len(vectors) == 1


def test_term_strings_become_a_vocabulary():
    vectors = to_sparse_vectors([{"b": 1.0, "a": 0.5}, {}, [("a", 2), ("c", 0.0)]])
    assert vectors.vocabulary == ["b", "a", "c"]
    assert vectors.indptr.tolist() == [0, 2, 2, 3]
    assert vectors.terms.tolist() == [0, 1, 1]
    assert vectors.weights.tolist() == [1.0, 0.5, 2.0]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([{1: 1.0}, {2: float("nan")}], "row 1: term 2 has weight nan"),
        (np.array([[1.0, np.nan]]), "row 0: term 1 has weight nan"),
        (np.array([[1.0], [-0.5]]), "row 1: term 0 has weight -0.5"),
        (scipy.sparse.csr_array(np.array([[0.0, np.inf]])), "row 0: term 1 has weight inf"),
        (torch.tensor([[0.0], [-1.0]]).to_sparse(), "row 1: term 0 has weight -1"),
        ([{"cat": -1}], "row 0: term 'cat' has weight -1"),
        ([{0: 1e39}], "weight 1e[+]39"),
        ([{0: 10**400}], "weight inf"),
        ([{0: "1.0"}], "the weight '1.0' of term 0 is no number"),
        ([{0: 1.0}, {0: None}], "row 1: the weight None"),
        ([{0: True}], "no number"),
        ([{-1: 1.0}], "term -1 is not within"),
        ([{0: 1.0}, {1 << 40: 1.0}], "row 1: term 1099511627776 is not within .* give term strings"),
        ([{1 << 80: 1.0}], "is not within"),
        ([{0: 1.0}, {"a": 1.0}], "row 1: term 'a': terms are all strings or all whole numbers"),
        ([{1.5: 1.0}], r"term 1.5"),
        ([{"": 1.0}], "term ''"),
        ([{"ok": 1.0}, {"\ud800": 1.0}], "row 1: term .* is Unicode"),
        ([[("a", 1.0), ("a", 2.0)]], "row 0: a term comes twice"),
        ([[1.0, 2.0]], "row 0: expected a mapping"),
        (np.zeros((1, 2, 3)), "3-d"),
        (np.array(1.0), "0-d"),
        (torch.zeros(1, 2, 3).to_sparse(), "3-d"),
    ],
)
def test_bad_vectors_are_refused(x, message):
    with pytest.raises(RepresentationError, match=message):
        to_sparse_vectors(x)


@pytest.mark.parametrize("x", [None, "text", 3, {1: 1.0}, np.array(["a"]), np.array([[1j]]), scipy.sparse.csr_array([[1j]])])
def test_other_types_are_refused(x):
    with pytest.raises(TypeError):
        to_sparse_vectors(x)


def test_torch_is_not_imported_for_numpy():
    code = (
        "import sys, numpy, lexmax; lexmax.to_sparse_vectors(numpy.eye(3)); "
        "print([m for m in ('torch', 'scipy.sparse', 'transformers') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


# --- files ---

IDS = [f"d{row}" for row in range(N_DOCS)]
NAMES = [f"term{number}" for number in range(N_TERMS)]


def write_json(path, key=str, ids=IDS, dense=DENSE):
    lines = [json.dumps({"id": i, "vector": row}) + "\n" for i, row in zip(ids, mappings(dense, key), strict=True)]
    content = "\n".join(lines).encode()  # with blank lines between
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def write_lists(path, key=int, kind=pa.int32, large=False):
    rows = mappings(DENSE, key)
    make = pa.large_list if large else pa.list_
    table = pa.table({
        "_id": IDS,
        "embedding": [[0.5]] * N_DOCS,
        "indices": pa.array([list(row) for row in rows], make(kind())),
        "values": pa.array([list(row.values()) for row in rows], make(pa.float32())),
    })  # fmt: skip
    pq.write_table(table, path, row_group_size=17)
    return path


def write_map(path, key=int, kind=pa.int64):
    rows = [list(row.items()) for row in mappings(DENSE, key)]
    pq.write_table(pa.table({"id": IDS, "vector": pa.array(rows, pa.map_(kind(), pa.float64()))}), path)
    return path


def write_npz(path, compressed=True):
    scipy.sparse.save_npz(path, scipy.sparse.csr_array(DENSE), compressed=compressed)
    (path.parent / "ids.txt").write_text("".join(f"{i}\n" for i in IDS))
    return path


def name_of(number):
    return NAMES[number]


FILES = {
    "JSON lines": lambda p: ([write_json(p / "v.jsonl")], {"term_numbers": True}),
    "JSON lines, gzip": lambda p: ([write_json(p / "v.jsonl.gz")], {"term_numbers": True}),
    "JSON lines of strings": lambda p: ([write_json(p / "v.ndjson", name_of)], {}),
    "two files": lambda p: (
        [write_json(p / "1.jsonl", ids=IDS[:20], dense=DENSE[:20]), write_json(p / "2.jsonl", ids=IDS[20:], dense=DENSE[20:])],
        {"term_numbers": True},
    ),
    "Parquet lists": lambda p: ([write_lists(p / "v.parquet")], {}),
    "Parquet large lists": lambda p: ([write_lists(p / "v.parquet", large=True)], {}),
    "Parquet lists of strings": lambda p: ([write_lists(p / "v.parquet", name_of, pa.string)], {}),
    "Parquet map": lambda p: ([write_map(p / "v.parquet")], {}),
    "Parquet map of strings": lambda p: ([write_map(p / "v.parquet", name_of, pa.string)], {}),
    "NPZ": lambda p: ([write_npz(p / "v.npz")], {"ids": p / "ids.txt"}),
    "NPZ, not compressed": lambda p: ([write_npz(p / "v.npz", compressed=False)], {"ids": p / "ids.txt"}),
}


@pytest.mark.parametrize("batch", [7, 4096])
@pytest.mark.parametrize("form", FILES)
def test_every_file_gives_the_same_index(tmp_path, monkeypatch, form, batch):
    """Byte for byte what Collection.add makes of the matrix, with the vocabulary in a file."""
    monkeypatch.setattr(vector_files, "BATCH_ROWS", batch)
    monkeypatch.setattr(vector_files, "BATCH_POSTINGS", batch * 10)
    monkeypatch.setattr(vector_files, "PARQUET_BATCH_ROWS", batch)
    (tmp_path / "vocabulary.txt").write_text("\n".join(NAMES) + "\n")
    sources, options = FILES[form](tmp_path)
    done = []
    report = import_vectors(
        sources, tmp_path / "i", vocabulary=tmp_path / "vocabulary.txt", progress=done.append, reorder=False, **options
    )
    assert report.n_added == done[-1] == N_DOCS
    assert check_index(tmp_path / "i") == []
    record = Snapshot.open(tmp_path / "i").field("vectors").record.encoder
    with Collection.create(tmp_path / "j", {"vectors": NewField(encoder=record, vocabulary=NAMES)}) as collection:
        collection.add([Document(doc_id=i, text="") for i in IDS], {"vectors": to_sparse_vectors(DENSE)})
        collection.commit()
    assert file_bytes(tmp_path / "i") == file_bytes(tmp_path / "j")


def file_bytes(index):
    """The content of every file of an index but its manifest, by kind; preludes hold random ids."""
    files = {re.sub(r"-\d+-\d+-[0-9a-f]{6}", "", str(p.relative_to(index))): p for p in index.rglob("*.lex")}
    return {name: path.read_bytes()[PRELUDE_BYTES:] for name, path in files.items()}


@pytest.mark.parametrize("form", FILES)
def test_without_a_vocabulary_term_strings_are_collected(tmp_path, monkeypatch, form):
    monkeypatch.setattr(vector_files, "BATCH_ROWS", 7)
    sources, options = FILES[form](tmp_path)
    import_vectors(sources, tmp_path / "i", **options)
    strings = "strings" in form
    query = {NAMES[7] if strings else 7: 2.0, NAMES[11] if strings else 11: 1.0}
    with Retriever.open(tmp_path / "i") as retriever:
        assert retriever.info()["fields"]["vectors"]["n_terms"] == (int((DENSE > 0).any(0).sum()) if strings else 0)
        (hits,) = retriever.search_vectors(to_sparse_vectors([query]), [""], k=N_DOCS)
        exact = DENSE @ np.array([{7: 2.0, 11: 1.0}.get(t, 0.0) for t in range(N_TERMS)])
        assert {hit.doc_id for hit in hits} == {IDS[row] for row in np.flatnonzero(exact)}
        assert [hit.score for hit in hits] == pytest.approx([exact[int(hit.doc_id[1:])] for hit in hits], abs=0.03)
        if not strings:
            with pytest.raises(RepresentationError, match="no vocabulary: search it by term numbers"):
                retriever.search_vectors(to_sparse_vectors([{"term7": 1.0}]), [""])


def test_scores_are_dot_products_within_quantisation(tmp_path):
    """An impact is at most half a step of 1 / 255 of the largest weight off, or one below the least; query weights likewise."""
    scipy.sparse.save_npz(tmp_path / "v.npz", scipy.sparse.csr_array(matrix(500, 1)))
    import_vectors([tmp_path / "v.npz"], tmp_path / "i")
    documents, queries = matrix(500, 1).astype(np.float64), matrix(20, 2).astype(np.float64)
    with Retriever.open(tmp_path / "i") as retriever:
        answers = retriever.search_vectors(to_sparse_vectors(queries), [""] * 20, k=500)
    step = documents.max() / 255
    for query, hits in zip(queries, answers, strict=True):
        query_step = query.max() / 32  # at the least: queries of few terms have 255 levels
        rows = [int(hit.doc_id) for hit in hits]
        assert set(rows) == set(np.flatnonzero(documents @ query).tolist())
        shared = (documents[rows] > 0) & (query > 0)
        bound = shared @ (query * step) + (shared * documents[rows]).sum(1) * query_step + shared.sum(1) * step * query_step
        errors = np.abs(documents[rows] @ query - [hit.score for hit in hits])
        assert np.all(errors <= bound)
        assert errors.sum() <= 0.2 * bound.sum()  # errors of both signs cancel


def test_titles_texts_and_metadata_come_with_the_records(tmp_path):
    record = {"id": 5, "title": "T", "contents": "body", "metadata": {"year": 2001}, "vector": {"a": 1}}
    (tmp_path / "v.jsonl").write_text(json.dumps(record))
    import_vectors([tmp_path / "v.jsonl"], tmp_path / "i")
    expected = Document(doc_id="5", title="T", text="body", metadata={"year": 2001})
    columns = {name: [value] for name, value in record.items() if name != "vector"}
    vector = pa.array([[("a", 1.0)]], pa.map_(pa.string(), pa.float32()))
    pq.write_table(pa.table({**columns, "vector": vector}), tmp_path / "v.parquet")
    import_vectors([tmp_path / "v.parquet"], tmp_path / "j")
    for index in ("i", "j"):
        with Retriever.open(tmp_path / index) as retriever:
            assert retriever.document("5") == expected


@pytest.mark.parametrize("order", [IDS, IDS[::-1], [*IDS[30:], "extra", *IDS[:30]]])
def test_documents_are_found_by_id(tmp_path, order):
    write_json(tmp_path / "v.jsonl")
    lines = [json.dumps({"_id": i, "title": "t", "text": f"text of {i}"}) for i in order]
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    import_vectors([tmp_path / "v.jsonl"], tmp_path / "i", documents=[str(tmp_path / "c.jsonl")])
    with Retriever.open(tmp_path / "i") as retriever:
        assert len(retriever) == N_DOCS
        assert [retriever.document(i).content for i in IDS] == [f"t text of {i}" for i in IDS]


def test_documents_in_order_are_read_as_far_as_needed(tmp_path):
    write_json(tmp_path / "v.jsonl", ids=IDS[:2], dense=DENSE[:2])
    (tmp_path / "c.jsonl").write_text('{"_id": "d0", "text": "a"}\n{"_id": "d1", "text": "b"}\nnot JSON\n')
    import_vectors([tmp_path / "v.jsonl"], tmp_path / "i", documents=[str(tmp_path / "c.jsonl")])
    assert Snapshot.open(tmp_path / "i").n_docs == 2


def test_reading_is_lazy(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_files, "BATCH_ROWS", 2)
    (tmp_path / "v.jsonl").write_text('{"id": "a", "vector": {"x": 1}}\n{"id": "b", "vector": {"y": 1}}\nnot JSON\n')
    batches = vector_files.read_vectors(tmp_path / "v.jsonl")
    documents, vectors = next(batches)
    assert [document.doc_id for document in documents] == ["a", "b"]
    assert vectors.vocabulary == ["x", "y"]
    with pytest.raises(DatasetError, match=r"v\.jsonl, line 3: not JSON"):
        next(batches)


def saved(**arrays):
    def make(path):
        np.savez(path / "v.npz", **arrays)
        return path / "v.npz"

    return make


def csr(**changes):
    return saved(**{"format": b"csr", "shape": [2, 3], "indptr": [0, 1, 2], "indices": [0, 2], "data": [1.0, 2.0], **changes})


def lines(*texts):
    def make(path):
        (path / "v.jsonl").write_bytes(b"\n".join(t if isinstance(t, bytes) else t.encode() for t in texts))
        return path / "v.jsonl"

    return make


def table(**columns):
    def make(path):
        pq.write_table(pa.table(columns), path / "v.parquet")
        return path / "v.parquet"

    return make


def damaged(path):
    data = bytearray(write_npz(path / "v.npz").read_bytes())
    data[len(data) // 2] ^= 255
    (path / "v.npz").write_bytes(data)
    return path / "v.npz"


def cut_gzip(path):
    data = write_json(path / "v.jsonl.gz").read_bytes()
    (path / "v.jsonl.gz").write_bytes(data[:-20])
    return path / "v.jsonl.gz"


GOOD = '{"id": "a", "vector": {"x": 1}}'


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "none.jsonl", "none.jsonl: no such file"),
        (lambda p: p, ": no such file"),
        (lambda p: write_json(p / "v.txt"), "unknown kind of vectors"),
        (lines(""), "no vectors"),
        (lines(GOOD, "", '{"id": "b", "vector": {"x": NaN}}'), "line 3: term 'x' has weight nan"),
        (lines(GOOD, '{"id": "b", "vector": {"x": -1}}'), "line 2: term 'x' has weight -1.0"),
        (lines(GOOD, '{"id": "b", "vector": {"x": "1"}}'), "line 2: the weight '1' of term 'x' is no number"),
        (lines(GOOD, '{"id": "b", "vector": [1, 2]}'), "line 2: expected an object with a 'vector'"),
        (lines(GOOD, "[]"), "line 2: expected an object"),
        (lines('{"vector": {"x": 1}}'), "line 1: 'id' must be a string or an integer, found None"),
        (lines('{"id": true, "vector": {"x": 1}}'), "line 1: 'id' must be"),
        (lines('{"id": "a", "text": 3, "vector": {"x": 1}}'), "line 1: 'title' and 'text' must be strings"),
        (lines('{"id": "a", "vector": {"\\ud800": 1}}'), "line 1: term"),
        (lines(GOOD, b"\xff"), "line 2: not JSON"),
        (lines("[" * 100_000), "line 1: nested too deeply"),
        (cut_gzip, "cannot be read on"),
        (csr(data=[1.0, np.nan]), "line 2: term 2 has weight nan"),
        (csr(data=[-1.0, 1.0]), "line 1: term 0 has weight -1.0"),
        (
            csr(data=np.array([1.0, "x"], object)),
            "v.npz: not an NPZ file of a SciPy CSR matrix: 'data' is a 1-d array of object",
        ),
        (csr(indices=np.array([1, 2], object)), "'indices' is a 1-d array of object"),
        (csr(indptr=np.array([0, 1, 2], object)), "Object arrays cannot be loaded"),
        (csr(shape=np.array([2, 3], object)), "Object arrays cannot be loaded"),
        (csr(format=np.array("csr", object)), "Object arrays cannot be loaded"),
        (csr(format=b"csc"), "convert it with .tocsr()"),
        (csr(shape=[3, 3]), "over 3 rows"),
        (csr(indptr=[0, 2, 1]), "does not rise"),
        (csr(indptr=[1, 1, 2]), "does not rise"),
        (csr(indptr=[0, 1, 3]), "2 indices and 2 values, but indptr ends at 3"),
        (csr(data=[1.0]), "2 indices and 1 values"),
        (csr(data=[[1.0, 2.0]]), "2-d array"),
        (csr(indices=[0, 3]), "term 3 in a matrix of 3 columns"),
        (csr(indices=[0, -1]), "line 2: term -1"),
        (csr(indptr=[0, 2, 2], indices=[1, 1]), "line 1: term 1 comes twice"),
        (saved(data=[1.0]), "is not a file in the archive"),
        (damaged, "v.npz"),
        (lambda p: write_json(p / "v.npz"), "not a zip file"),
        (table(id=["a"], indices=[[1]]), "expected the columns id, indices, values or id, vector"),
        (table(id=["a", "b"], indices=[[1], [1, 2]], values=[[1.0], [1.0]]), "line 2: 'indices' and 'values' have different"),
        (table(id=["a", "b"], indices=[[1], None], values=[[1.0], [1.0]]), "line 2: 'indices' is null"),
        (table(id=["a", "b"], indices=[[1], [2]], values=[[1.0], [None]]), "line 2: null in the vector"),
        (table(id=["a", None], indices=[[1], [2]], values=[[1.0], [1.0]]), "line 2: 'id' must be"),
        (table(id=["a", "b"], indices=[[1], [2]], values=[[1.0], [float("nan")]]), "line 2: term 2 has weight nan"),
        (table(id=["a", "b"], indices=[[1], [-2]], values=[[1.0], [1.0]]), "line 2: term -2"),
        (table(id=["a"], indices=[[1.5]], values=[[1.0]]), "a vector holds double"),
        (table(id=["a"], indices=[[1]], values=[["x"]]), "a vector holds string"),
        (table(id=["a"], indices=[1], values=[[1.0]]), "column 'indices' is of type int64, not a list"),
        (table(id=["a"], vector=[[1.0]]), "column 'vector' is of type list<element: double>, not a map"),
        (lambda p: write_json(p / "v.parquet"), "not a readable Parquet file"),
    ],
)
def test_malformed_files_are_refused_and_nothing_is_built(tmp_path, make, message):
    path = make(tmp_path)
    with pytest.raises(DatasetError, match=re.escape(message)) as refused:
        import_vectors([path], tmp_path / "i")
    assert str(path) in str(refused.value)
    with pytest.raises(Exception, match="no index at"):
        Snapshot.open(tmp_path / "i")


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ('{"id": "a", "vector": {"x": 1, "q": 2}}', {"vocabulary": "v.txt"}, "line 1: term 'q' is not in the vocabulary"),
        ('{"id": "a", "vector": {"3": 1}}', {"vocabulary": "v.txt", "term_numbers": True}, "term '3' is not in the vocabulary"),
        ('{"id": "a", "vector": {"x": 1}}', {"term_numbers": True}, "line 1: term 'x' is no term number"),
        ('{"id": "a", "vector": {"-1": 1}}', {"term_numbers": True}, "line 1: term '-1' is no term number"),
        ('{"id": "a", "vector": {"1": 1, "01": 1}}', {"term_numbers": True}, "line 1: term 1 comes twice"),
        ('{"id": "a", "vector": {"x": 1}}', {"vocabulary": "twice.txt"}, "twice.txt, line 3: the term 'x' comes twice"),
        ('{"id": "a", "vector": {"x": 1}}', {"vocabulary": "gap.json"}, "the 2 term numbers are not 0, 1, 2, ..."),
        ('{"id": "a", "vector": {"x": 1}}', {"vocabulary": "none.txt"}, "none.txt: no vocabulary"),
        ('{"id": "a", "vector": {"x": 1}}', {"documents": ["c.jsonl"]}, "no document for the vector 'a'"),
    ],
)
def test_terms_and_documents_that_are_not_there(tmp_path, monkeypatch, content, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v.txt").write_text("x\ny\nz\n")
    (tmp_path / "twice.txt").write_text("x\ny\nx\n")
    (tmp_path / "gap.json").write_text('{"x": 0, "y": 2}')
    (tmp_path / "c.jsonl").write_text('{"_id": "b", "text": "t"}\n')
    (tmp_path / "v.jsonl").write_text(content)
    with pytest.raises(DatasetError, match=re.escape(message)):
        import_vectors(["v.jsonl"], "i", **options)


def test_a_vocabulary_in_json(tmp_path):
    (tmp_path / "vocab.json").write_text('{"y": 1, "x": 0}')
    (tmp_path / "v.jsonl").write_text('{"id": "a", "vector": {"y": 1}}')
    import_vectors([tmp_path / "v.jsonl"], tmp_path / "i", vocabulary=tmp_path / "vocab.json")
    assert Snapshot.open(tmp_path / "i").field("vectors").vocabulary.strings(np.arange(2, dtype=np.int32)) == ["x", "y"]


@pytest.mark.parametrize(("ids", "message"), [(IDS[:-1], "no id for row 60"), ([*IDS, "more"], "'more' has no row")])
def test_as_many_ids_as_rows(tmp_path, ids, message):
    path = write_npz(tmp_path / "v.npz")
    (tmp_path / "ids.txt").write_text("\n".join(ids))
    with pytest.raises(DatasetError, match=message):
        import_vectors([path], tmp_path / "i", ids=tmp_path / "ids.txt")
    with pytest.raises(ValueError, match="ids are for NPZ"):
        import_vectors([write_json(tmp_path / "v.jsonl")], tmp_path / "i", ids=tmp_path / "ids.txt")


def test_an_id_that_comes_twice(tmp_path):
    (tmp_path / "v.jsonl").write_text(GOOD + "\n" + GOOD)
    with pytest.raises(DuplicateDocumentError, match=r"v\.jsonl, line 2: already in the index: 'a'"):
        import_vectors([tmp_path / "v.jsonl"], tmp_path / "i")
    (tmp_path / "v.jsonl").write_text(GOOD)
    (tmp_path / "w.jsonl").write_text("\n" + GOOD)
    with pytest.raises(DuplicateDocumentError, match=r"w\.jsonl, line 2: already in the index: 'a'"):
        import_vectors([tmp_path / "v.jsonl", tmp_path / "w.jsonl"], tmp_path / "i")
    (tmp_path / "d.jsonl").write_text('{"id": "b", "text": "x"}\n' * 2 + '{"id": "a", "text": "x"}\n')
    with pytest.raises(DuplicateDocumentError, match=r"d\.jsonl, line 2: already in the index: 'b'"):
        import_vectors([tmp_path / "v.jsonl"], tmp_path / "i", documents=[str(tmp_path / "d.jsonl")])


def test_metadata_of_two_types_are_told_with_file_and_line(tmp_path):
    lines = [{"id": "a", "vector": {"x": 1}, "metadata": {"n": 1}}, {"id": "b", "vector": {"x": 1}, "metadata": {"n": "one"}}]
    (tmp_path / "v.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(DatasetError, match=r"v\.jsonl, line 2: document 'b': metadata field 'n' is string here and int64"):
        import_vectors([tmp_path / "v.jsonl"], tmp_path / "i")
    (tmp_path / "d.jsonl").write_text('{"id": "a", "text": "x", "n": 1}\n{"id": "b", "text": "x", "n": "one"}\n')
    with pytest.raises(DatasetError, match=r"d\.jsonl, line 2: document 'b': metadata field 'n' is string here and int64"):
        import_vectors([tmp_path / "v.jsonl"], tmp_path / "i", documents=[str(tmp_path / "d.jsonl")])


def test_rows_are_numbered_through_all_files_and_an_index_is_never_replaced(tmp_path):
    path = write_npz(tmp_path / "v.npz")
    import_vectors([path, path], tmp_path / "i")
    with Retriever.open(tmp_path / "i") as retriever:
        assert retriever.document(str(2 * N_DOCS - 1)) is not None
    with pytest.raises(FileExistsError, match="holds an index"):
        import_vectors([path], tmp_path / "i")


def test_strings_and_numbers_do_not_mix(tmp_path):
    with pytest.raises(RepresentationError, match="numbered terms, not of strings"):
        import_vectors([write_npz(tmp_path / "v.npz"), write_json(tmp_path / "v.jsonl")], tmp_path / "i")


# --- an index without an encoder ---


@pytest.fixture
def index(tmp_path):
    (tmp_path / "v.jsonl").write_text(
        '{"id": "a", "text": "Cats purr", "vector": {"cat": 2, "pet": 1}}\n'
        '{"id": "b", "text": "dogs", "vector": {"dog": 1.5}}\n'
    )
    import_vectors([tmp_path / "v.jsonl"], tmp_path / "idx", name="mine")
    return tmp_path / "idx"


def test_texts_are_refused_and_vectors_are_answered(index):
    with Retriever.open(index) as retriever:
        with pytest.raises(RepresentationError, match=r"the index has no encoder.*search it with vectors"):
            retriever.search("cats")
        with pytest.raises(RepresentationError, match=r"documents must bring their vectors"):
            retriever.encoders()["vectors"].encode_documents(["x"])
        (hits, nothing) = retriever.search_vectors(to_sparse_vectors([{"cat": 1, "new": 9}, {"new": 1}]), ["purr", ""])
        assert [(hit.doc_id, hit.text, round(hit.score, 2)) for hit in hits] == [("a", "Cats purr", 2.0)]
        assert nothing == []
        ((explained,),) = retriever.search_vectors(to_sparse_vectors([{"cat": 1.0}]), ["CAT?"], explain=True)
        (match,) = explained.explanation.stages[0].fields[0].terms
        assert (match.term, match.query_expanded, match.document_expanded) == ("cat", False, True)


def test_the_name_is_the_fingerprint(index):
    with Retriever.open(index, encoders={"vectors": VectorsEncoder(name="mine")}) as retriever:
        assert retriever.fingerprint == load_encoder("vectors", name="mine", terms="strings").fingerprint
    with pytest.raises(EncoderMismatchError):
        Retriever.open(index, encoders={"vectors": VectorsEncoder()})
    with pytest.raises(ValueError, match="takes no model"):
        Retriever.open(index, models={"vectors": "folder"})
    with pytest.raises(ValueError, match="name"):
        VectorsEncoder(name="")
    with pytest.raises(ValueError, match="numbers or strings"):
        VectorsEncoder(terms="words")


def test_vectors_are_added_later(index):
    with Collection.open(index) as collection:
        collection.add([Document(doc_id="c", text="")], {"vectors": to_sparse_vectors([{"bird": 1.0, "pet": 0.5}])})
        collection.commit()
    with Retriever.open(index) as retriever:
        (hits,) = retriever.search_vectors(to_sparse_vectors([{"pet": 1.0}]), [""])
        assert [hit.doc_id for hit in hits] == ["a", "c"]


def test_term_numbers_are_refused_where_bm25_counts_words(tmp_path):
    (tmp_path / "c.jsonl").write_text('{"_id": "a", "text": "cats"}')
    assert main(["build", "--encoder", "bm25", str(tmp_path / "c.jsonl"), "--out", str(tmp_path / "i")]) == 0
    with (
        Retriever.open(tmp_path / "i") as retriever,
        pytest.raises(RepresentationError, match="term strings, not by term numbers"),
    ):
        retriever.search_vectors(to_sparse_vectors([{1: 1.0}]), [""])
    with Collection.open(tmp_path / "i") as collection, pytest.raises(RepresentationError, match="term counts"):
        collection.add([Document(doc_id="b", text="")], {"bm25": to_sparse_vectors([{0: 1.0}])})


def test_from_the_command_line(tmp_path, capsys):
    index = str(tmp_path / "i")
    (tmp_path / "v.jsonl").write_text('{"id": "a", "vector": {"cat": 2}}\n{"id": "b", "vector": {"cat": 1}}\n')
    (tmp_path / "c.jsonl").write_text('{"_id": "a", "text": "A cat"}\n{"_id": "b", "text": "Cats"}\n')
    assert main(["import", str(tmp_path / "v.jsonl"), "--out", index, "--documents", str(tmp_path / "c.jsonl")]) == 0
    assert "2 documents" in capsys.readouterr().err
    assert main(["search", index, "--vector", '{"cat": 1}', "--json", "-k", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "A cat"
    for arguments, message in [
        (["search", index, "cat"], "the index has no encoder"),
        (["search", index], "a QUERY, --vector or --queries"),
        (["search", index, "--vector", "cat"], "--vector takes a JSON object"),
        (["search", index, "--vector", "[1]"], "--vector takes a JSON object"),
        (["search", index, "--vector", '{"cat": -1}'], "weight -1"),
        (["import", "a.ciff", "b.ciff", "--out", index], "imported alone"),
        (["import", str(tmp_path / "v.jsonl"), "--out", index], "holds an index already"),
    ]:
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    ciff = str(tmp_path / "i.ciff")
    assert main(["export", index, ciff]) == 0
    assert main(["import", ciff, "--out", str(tmp_path / "j")]) == 0
    assert main(["search", str(tmp_path / "j"), "--vector", '{"cat": 1}']) == 0
    assert capsys.readouterr().out.split()[:3] == ["1.", "255.0000", "a"]
    np.savez(tmp_path / "m.npz", indptr=[0, 1], indices=[7], data=[1.5], shape=[1, 9])
    assert main(["import", str(tmp_path / "m.npz"), "--out", str(tmp_path / "k")]) == 0
    assert main(["search", str(tmp_path / "k"), "--vector", '{"7": 2}']) == 0
    assert "3.0000  0" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["import", "export"])
def test_commands_have_help_with_an_example(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert f"example:\n  lexmax {command} " in capsys.readouterr().out


# --- beside sentence-transformers ---


@pytest.mark.parametrize("form", ["torch COO, entries twice", "SciPy CSR", "numpy", "dicts"])
def test_semantic_search_agrees_with_sentence_transformers(form):
    documents, queries = matrix(300, 3), matrix(15, 4)
    theirs = semantic_search(torch.tensor(queries), torch.tensor(documents), top_k=10, score_function=lambda a, b: a @ b.T)
    results, seconds = semantic_search_lexmax(FORMS[form](queries), FORMS[form](documents), top_k=10)
    assert isinstance(seconds, float)
    assert results[0] == []  # an empty query
    for query, ours, expected in zip(queries[1:], results[1:], theirs[1:], strict=True):
        assert {type(hit["corpus_id"]) for hit in ours} == {int}
        assert {type(hit["score"]) for hit in ours} == {float}
        assert [set(hit) for hit in ours] == [{"corpus_id", "score"}] * 10
        assert [hit["score"] for hit in ours] == pytest.approx([hit["score"] for hit in expected], rel=0.05)
        exact = [float(documents[hit["corpus_id"]] @ query) for hit in ours]
        assert [hit["score"] for hit in ours] == pytest.approx(exact, rel=0.05)


def test_semantic_search_with_decoded_embeddings_and_an_index(tmp_path):
    documents = [[("cat", 2.0), ("pet", 1.0)], [], [("dog", 1.0), ("pet", 1.5)]]
    results, _, index = semantic_search_lexmax([[("pet", 1.0)]], documents, output_index=True)
    assert [hit["corpus_id"] for hit in results[0]] == [2, 0]
    again, _ = semantic_search_lexmax([[("pet", 1.0)], [("cat", 1.0)]], corpus_index=index, top_k=1)
    assert [[hit["corpus_id"] for hit in hits] for hits in again] == [[2], [0]]
    assert again[0] == results[0][:1]
    folder = index.snapshot.path
    assert semantic_search_lexmax([[("pet", 1.0)]], corpus_index=folder)[0] == results
    del index
    assert not folder.exists()


def test_semantic_search_refuses(index):
    with pytest.raises(ValueError, match="corpus_embeddings or corpus_index"):
        semantic_search_lexmax(DENSE)
    with pytest.raises(ValueError, match="k must"):
        semantic_search_lexmax(DENSE, DENSE, top_k=0)
    with pytest.raises(RepresentationError, match="doc_id 'a'"):
        semantic_search_lexmax([{"cat": 1.0}], corpus_index=index)
    with pytest.raises(RepresentationError, match="no vocabulary"):
        semantic_search_lexmax([{"cat": 1.0}], DENSE)
