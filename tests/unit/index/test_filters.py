import pytest

from lexmax.index.documents import Document, DocumentBuffer, DocumentStore
from lexmax.index.errors import DatasetError
from lexmax.index.filters import Filter
from lexmax.index.metadata import extend_fields

ROWS = [
    {"year": 2010, "lang": "en", "open": True, "tags": ["a", "b"], "price": 1.5},
    {"year": 2020, "lang": "de", "open": False, "tags": ["b"], "price": 2},
    {"lang": "en", "nested": {"x": [1]}},
    {},
]


@pytest.fixture
def store(tmp_path):
    fields: dict[str, str] = {}
    docs = [Document(doc_id=f"d{i}", text="t", title=f"T{i}", metadata=row) for i, row in enumerate(ROWS)]
    buffer = DocumentBuffer(fields)
    for document in docs:  # fields grow between batches, so early batches lack late fields
        extend_fields(fields, document.doc_id, document.metadata)
        buffer.extend([document], dict(fields))
        buffer._pack()
    buffer.write(tmp_path)
    return DocumentStore(tmp_path, fields)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("year == 2010", [0]),
        ("year != 2010", [1]),
        ("not year == 2010", [1]),
        ("2010 < year <= 2020", [1]),
        ("year >= 2010 and lang == 'en'", [0]),
        ("year > 2015 or lang == 'en'", [0, 1, 2]),
        ("lang in ('de', 'fr')", [1]),
        ("lang not in ('de', 'fr')", [0, 2]),
        ("lang in []", []),
        ("'b' in tags", [0, 1]),
        ("'a' not in tags", [1]),
        ("open", [0]),
        ("not open", [1]),
        ("open == False", [1]),
        ("price > 1.6", [1]),
        ("price == 2", [1]),
        ("year == 2010.5", []),
        ("year > -5", [0, 1]),
        ("doc_id in ('d3', 'd1')", [1, 3]),
        ("title == 'T2'", [2]),
        ("text == 't'", [0, 1, 2, 3]),
        ("field('year') == 2020", [1]),
        ("2015 > year", [0]),
    ],
)
def test_expressions(store, expression, expected):
    mask = Filter(expression, store.fields).mask(store)
    assert mask.nonzero()[0].tolist() == expected


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("year = 2010", "=="),
        ("color == 'red'", "unknown field 'color'"),
        ("year == 'x'", "int64"),
        ("lang > 3", "string"),
        ("nested == 1", "nested"),
        ("'a' in lang", "not a list"),
        ("year", "compare"),
        ("__import__('os')", "not a comparison"),
        ("1 == 1", "no field"),
        ("lang in year", "list"),
        ("(lambda: 1)()", "not a comparison"),
        ("year == 2**70", "not a string"),
        ("year == 10000000000000000000000", "64 bits"),
        ("", "parse"),
        ("x" * 20_000, "longer"),
        ("(" * 300, "parse"),
    ],
)
def test_malformed_expressions_say_what_is_wrong(store, expression, message):
    with pytest.raises(ValueError, match=message):
        Filter(expression, store.fields)


def test_documents_come_back_as_they_were(store):
    got = store.get_many([3, 0, 2])
    assert [document.doc_id for document in got] == ["d3", "d0", "d2"]
    assert got[1].metadata == ROWS[0]
    assert got[2].metadata == ROWS[2]


def test_types_widen_or_are_refused():
    fields = {"a": "int64", "b": "string"}
    extend_fields(fields, "d", {"a": 1.5, "c": None, "e": [1, 2], "f": ["x"]})
    assert fields == {"a": "float64", "b": "string", "e": "json", "f": "list<string>"}
    with pytest.raises(DatasetError, match="'b' is int64 here and string"):
        extend_fields(fields, "d", {"b": 3, "z": 1})
    assert "z" not in fields
    with pytest.raises(DatasetError, match="64 bits"):
        extend_fields(fields, "d", {"y": 2**64})
