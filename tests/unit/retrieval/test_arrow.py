"""Documents and results as Arrow tables and pandas frames, and back."""

import numpy as np
import pyarrow as pa
import pytest
from several_fields import Fields

from lexmax import RepresentationError, Retriever, build_index, documents_table, results_table
from lexmax.index.collection import Collection

DOCUMENTS = [
    {"id": "a", "title": "Cats", "text": "cats purr", "metadata": {"n": 1, "tags": ["pet"], "more": {"x": 1}}},
    {"id": "b", "text": "dogs bark", "metadata": {"n": 2}},
    {"id": "c", "text": "cats and dogs", "metadata": {"n": None, "f": 0.5}},
]


@pytest.fixture
def index(tmp_path):
    build_index(documents=DOCUMENTS[:2], out=tmp_path / "index", encoders=["bm25"])
    with Retriever.open(tmp_path / "index") as retriever:
        retriever.add(DOCUMENTS[2:])
    return tmp_path / "index"


def test_documents_have_a_column_per_metadata_field(index):
    table = documents_table(index)
    assert table.to_pylist() == [
        {"doc_id": "a", "title": "Cats", "text": "cats purr", "n": 1, "tags": ["pet"], "more": '{"x": 1}', "f": None},
        {"doc_id": "b", "title": "", "text": "dogs bark", "n": 2, "tags": None, "more": None, "f": None},
        {"doc_id": "c", "title": "", "text": "cats and dogs", "n": None, "tags": None, "more": None, "f": 0.5},
    ]
    assert table.schema.field("n").type == pa.int64()
    assert documents_table(index, "n >= 2")["doc_id"].to_pylist() == ["b"]


def test_deleted_documents_are_left_out_and_an_empty_index_has_columns(index):
    with Retriever.open(index) as retriever:
        retriever.delete(["a", "c"])
        assert documents_table(retriever.snapshot)["doc_id"].to_pylist() == ["b"]
        retriever.delete(["b"])
    assert documents_table(index).num_rows == 0
    assert documents_table(index).column_names[:3] == ["doc_id", "title", "text"]


@pytest.mark.parametrize("form", ["arrow", "pandas"])
def test_a_table_makes_the_same_index_again(index, tmp_path, form):
    table = documents_table(index).drop_columns(["more"])
    build_index(documents=table if form == "arrow" else table.to_pandas(), out=tmp_path / "again", encoders=["bm25"])
    again = documents_table(tmp_path / "again")
    assert again.select(["doc_id", "title", "text", "n", "f"]).to_pylist() == table.select(
        ["doc_id", "title", "text", "n", "f"]
    ).to_pylist()  # fmt: skip
    one, other = Retriever.open(index), Retriever.open(tmp_path / "again")
    assert [each.doc_id for each in one.search("cats")] == [each.doc_id for each in other.search("cats")]


def test_vectors_are_columns(tmp_path):
    made, names = Fields(n=30), ["splade", "colbert", "dense"]
    with Collection.create(
        tmp_path / "index", {name: made.new[name] for name in [*names, "slim"]}, search="splade"
    ) as collection:
        collection.add(*made.batch(*range(30), names=[*names, "slim"]))
        collection.commit()
    rows = documents_table(tmp_path / "index", vectors=names).to_pylist()
    for number, row in enumerate(rows):
        sparse = made.vectors["splade"].select(np.array([number]))
        assert {int(term.removeprefix("#")) for term, _ in row["splade"]} == set(sparse.terms.tolist())
        assert row["dense"] == pytest.approx(made.vectors["dense"].row(number).tolist(), rel=2e-3, abs=2e-3)
        assert len(row["colbert"]) == len(made.vectors["colbert"].row(number))
    with pytest.raises(RepresentationError, match="there is no field"):
        documents_table(tmp_path / "index", vectors=["missing"])


def test_results_are_rows(index):
    with Retriever.open(index) as retriever:
        results = retriever.search_batch(["cats", "nothing", "dogs"], 2)
        table = results_table(results, ["q1", "q2", "q3"])
        assert table.num_rows == 4
        first = results[0][0]
        assert table.to_pylist()[0] == {
            "query_id": "q1", "rank": 1, "doc_id": first.doc_id, "score": first.score, "title": first.title, "text": first.text,
        }  # fmt: skip
        assert table["query_id"].to_pylist() == ["q1", "q1", "q3", "q3"]
        assert list(results_table(results).to_pandas().groupby("query_id")["rank"].max()) == [2, 2]
        assert results_table([]).num_rows == 0
        with pytest.raises(ValueError, match="3 queries with 1 query_ids"):
            results_table(results, ["q1"])


def test_a_name_that_comes_twice_is_refused(tmp_path):
    documents = [{"id": "a", "text": "cats", "metadata": {"title": "x", "bm25": 1}}]
    build_index(documents=documents, out=tmp_path / "index", encoders=["bm25"])
    with pytest.raises(RepresentationError, match="two columns would be called 'title'"):
        documents_table(tmp_path / "index")
