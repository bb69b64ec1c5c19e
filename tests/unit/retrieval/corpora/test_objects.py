from datetime import date
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from lexmax.index.documents import Document
from lexmax.index.errors import DatasetError
from lexmax.retrieval.corpora.objects import as_documents
from lexmax.retrieval.corpora.reading import Fields


def test_every_kind_of_item():
    items = [
        Document(doc_id="d", text="t"),
        "text",
        {"docid": 7, "contents": "c", "year": 1999},
        ("p", "pair"),
        SimpleNamespace(page_content="l", metadata={"title": "T", "source": "s"}, id=None),
        SimpleNamespace(id_="n", text="node", metadata={}),
    ]
    told = []
    assert list(as_documents(iter(items), notice=told.append)) == [
        Document(doc_id="d", text="t"),
        Document(doc_id="1", text="text"),
        Document(doc_id="7", text="c", metadata={"year": 1999}),
        Document(doc_id="p", text="pair"),
        Document(doc_id="4", title="T", text="l", metadata={"source": "s"}),
        Document(doc_id="n", text="node"),
    ]
    assert told == ["documents: id from 'docid', text from 'contents'"]


def test_values_of_python_become_what_they_are_in_a_column_or_are_told():
    item = {"id": 1, "text": "t", "day": date(2020, 1, 2), "price": Decimal("1.5"), "n": np.int64(3), "pair": ("a", "b")}
    told = []
    (document,) = as_documents([item | {"odd": object(), "vector": np.ones(2)}], notice=told.append)
    assert document.metadata == {"day": "2020-01-02", "price": 1.5, "n": 3, "pair": ["a", "b"]}
    assert "not kept as metadata, by type: 'odd', 'vector'" in told[1]


def test_fields_are_known_after_reading():
    documents = as_documents([{"pk": "a", "body": "b"}], Fields(id="pk"))
    assert next(documents).doc_id == "a"
    assert documents.fields == Fields(id="pk", title=("title",), text=("body",))


@pytest.mark.parametrize("wrong", ["text", Path("corpus.jsonl"), b"x", {"id": 1}, Document(doc_id="a", text="b"), 5])
def test_one_thing_instead_of_many(wrong):
    with pytest.raises(TypeError, match="documents"):
        as_documents(wrong)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"text": "x"}, r"documents\[1\]: no id|documents\[1\]: 'id' must"),
        ({"id": 1, "text": 5}, r"documents\[1\]: 'text' must be a string"),
        ({1: 2}, r"documents\[1\]: the key 1"),
        (("a", "b", "c"), r"documents\[1\]: a tuple must be"),
    ],
)
def test_malformed_items_are_named(item, reason):
    with pytest.raises(DatasetError, match=reason):
        list(as_documents(["x", item]))


def test_unknown_items():
    with pytest.raises(TypeError, match=r"documents\[1\] is of type float"):
        list(as_documents(["x", 1.5]))
    with pytest.raises(TypeError, match=r"documents\[0\] is of type list.* import_tokens"):
        list(as_documents([["cats", "purr"]]))


def test_arrow():
    table = pa.table({"id": [1, 2], "text": ["a", "b"], "n": [1.5, float("nan")], "d": [Decimal("1"), None], "v": [[1], [2]]})
    want = [Document(doc_id="1", text="a", metadata={"n": 1.5, "d": 1}), Document(doc_id="2", text="b")]
    told = []
    assert list(as_documents(table, notice=told.append)) == want
    assert "'v' (list" in told[-1] + told[0]
    assert list(as_documents(table.to_batches()[0])) == want
    assert list(as_documents(SimpleNamespace(to_arrow=lambda: table))) == want
    with pytest.raises(DatasetError, match="no id"):
        list(as_documents(pa.table({"x": [1]})))


def test_pandas():
    pandas = import_module("pandas")
    frame = pandas.DataFrame(
        {
            "id": ["a", "b"],
            "text": ["x", "y"],
            "year": pandas.array([1, None], dtype="Int64"),
            "score": [float("nan"), 0.5],
            "day": [pandas.Timestamp("2020-01-02"), pandas.NaT],
        }
    )
    assert list(as_documents(frame)) == [
        Document(doc_id="a", text="x", metadata={"year": 1, "day": "2020-01-02T00:00:00"}),
        Document(doc_id="b", text="y", metadata={"score": 0.5}),
    ]
