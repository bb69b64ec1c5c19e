"""Filters: expressions and trees, against the rows by hand and against an oracle in plain Python."""

import json
import random
import time
import unicodedata

import numpy as np
import pytest
from corpora import make_index, random_vectors
from filter_oracle import FIELDS, mutated, random_filter, random_rows, tree_holds

from lexmax.index.document_buffer import DocumentBuffer
from lexmax.index.documents import Document, DocumentStore
from lexmax.index.errors import DatasetError, FilterError, LexmaxError
from lexmax.index.filters import filter as filters
from lexmax.index.filters.expressions import MAX_CHARS
from lexmax.index.filters.filter import Filter
from lexmax.index.filters.plans import MAX_NESTING, MAX_PARTS
from lexmax.index.metadata import extend_fields

ROWS = [
    {"year": 2010, "lang": "en", "open": True, "tags": ["a", "b"], "price": 1.5, "a-name": 3},
    {"year": 2020, "lang": "de", "open": False, "tags": ["b"], "price": 2},
    {"lang": "en", "nested": {"x": [1], "y": {"z-z": "deep"}, "n": 1.5, "on": True}, "tags": [], "big": 2**53 + 1},
    {},
]


def store_of(folder, rows):
    """Documents of the rows, in batches of one: early batches lack late fields, as those of old segments do."""
    folder.mkdir(exist_ok=True)
    fields: dict[str, str] = {}
    buffer = DocumentBuffer(fields)
    for i, row in enumerate(rows):
        document = Document(doc_id=f"d{i}", text="t", title=f"T{i}", metadata=row)
        extend_fields(fields, document.doc_id, document.metadata)
        buffer.extend([document], dict(fields))
        buffer._pack()
    buffer.write(folder)
    return DocumentStore(folder)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return store_of(tmp_path_factory.mktemp("filters"), ROWS)


def matches(filter, store):
    return Filter(filter, store.fields).masks([store])[0].nonzero()[0].tolist()


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
        ("lang in ('de')", [1]),
        ("lang not in ('de', 'fr')", [0, 2]),
        ("lang in []", []),
        ("lang in ()", []),
        ("lang in {'en',}", [0, 2]),
        ("year in (2010.0, 2020.5, 1e300)", [0]),
        ("'b' in tags", [0, 1]),
        ("'a' not in tags", [1, 2]),
        ("open", [0]),
        ("(open)", [0]),
        ("not open", [1]),
        ("open == False", [1]),
        ("open and year == 2010", [0]),
        ("price > 1.6", [1]),
        ("price == 2", [1]),
        ("year == 2010.5", []),
        ("year != 2010.5", [0, 1]),
        ("year > 2010.5", [1]),
        ("year < 2010.5", [0]),
        ("year <= 2010.0", [0]),
        ("year < 1e999", [0, 1]),
        ("year > -1e999", [0, 1]),
        ("year > 1e30", []),
        ("year != 1e30", [0, 1]),
        ("big == 9007199254740993", [2]),
        ("big == 9007199254740992.0", []),
        ("big > 9007199254740992.0", [2]),
        ("year > -5", [0, 1]),
        ("year < +2_015", [0]),
        ("doc_id in ('d3', 'd1')", [1, 3]),
        ("title == 'T2'", [2]),
        ("text == 't'", [0, 1, 2, 3]),
        ("field('year') == 2020", [1]),
        ('field("a-name") == 3', [0]),
        ("2015 > year", [0]),
        ("(year) == ((2010))", [0]),
        ("year is None", [2, 3]),
        ("year is not None and lang == 'de'", [1]),
        ("not (year is None or lang == 'de')", [0]),
        ("tags is None", [3]),
        ("nested is None or year == 1", [0, 1, 3]),
        ("nested is not None", [2]),
        ("nested == 1", []),
        ("nested.n > 1", [2]),
        ("nested.n > 1 and nested.on", [2]),
        ("not nested.on", []),
        ("nested.n == 'a' or nested.n != 'a'", []),
        ("nested.n in (1.5, 'a')", [2]),
        ("nested.n not in (3, 4)", [2]),
        ("1 in nested.x", [2]),
        ("'a' not in nested.x", [2]),
        ("True in nested.x", []),
        ("field('nested.y.z-z') == 'deep'", [2]),
        ("nested.y.none is None", [0, 1, 2, 3]),
        ("nested.n is None", [0, 1, 3]),
        ("metadata.year == 2010", [0]),
        ("metadata.nested.n == 1.5", [2]),
        ("color == 'red'", []),
        ("not color == 3", []),
        ("color is None and year == 2010", [0]),
        ("color is not None", []),
        ("'red' in color or year == 2010", [0]),
        ("color in ('red', 3)", []),
        ("color not in ('red', 'blue')", []),
        ('{"year": {">": 2010}}', [1]),
        (' {"lang": "en", "tags": {"contains": "a"}}', [0]),
        (r"lang == '\u0065n' or lang == 'd\'e'", [0, 2]),
        ("\n  year\t==\n2010\n", [0]),
    ],
)
def test_expressions(store, expression, expected):
    assert matches(expression, store) == expected


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"year": 2010}, [0]),
        ({"year": {">=": 2010, "<": 2020}}, [0]),
        ({"year": {"$gte": 2010}, "lang": "de"}, [1]),
        ({"lang": {"in": ["de", "fr"]}}, [1]),
        ({"lang": {"$nin": ("de", "fr")}}, [0, 2]),
        ({"lang": {"in": []}}, []),
        ({"year": None}, [2, 3]),
        ({"year": {"!=": None}}, [0, 1]),
        ({"year": {"$ne": None, "$lt": 2015}}, [0]),
        ({"tags": {"contains": "b"}}, [0, 1]),
        ({"not": {"tags": {"$contains": "a"}}}, [1, 2]),
        ({"and": [{"lang": "en"}, {"year": {"$eq": 2010}}]}, [0]),
        ({"$or": [{"lang": "de"}, {"year": {"$lte": 2010}}]}, [0, 1]),
        ({"$not": {"$or": [{"lang": "de"}, {"open": True}]}}, []),
        ({"a-name": 3}, [0]),
        ({"open": False}, [1]),
        ({"doc_id": {"in": ["d3"]}}, [3]),
        ({"nested.y.z-z": {"!=": "x"}}, [2]),
        ({"nested.x": {"contains": 1}}, [2]),
        ({"color": "red"}, []),
        ({"color": None}, [0, 1, 2, 3]),
    ],
)
def test_trees(store, tree, expected):
    assert matches(tree, store) == expected


def test_words_of_trees_can_be_names_of_fields(tmp_path):
    store = store_of(tmp_path, [{"and": 1, "not": 2}, {"and": 2}])
    assert matches({"and": 1}, store) == [0]
    assert matches({"$and": [{"and": 1}, {"not": 2}]}, store) == [0]
    assert matches({"$not": {"and": 1}}, store) == [1]
    assert matches('field("and") == 2', store) == [1]


@pytest.mark.parametrize(
    ("filter", "message"),
    [
        ("year = 2010", "=="),
        ("color", "unknown field 'color'; this index has a-name, big.*known once a document has it"),
        ("yaer == 3", "unknown field 'yaer'; this index has a-name, .*did you mean 'year'"),
        ("Year == 3", "did you mean 'year'"),
        ("lang.code == 'x'", "'lang' is string and has no keys"),
        ("year == lang", "two fields"),
        ("lang == en", "a text in quotes"),
        (" or ".join(f"unseen{i} == 1" for i in range(30)), "more than 20 fields that no document has"),
        ("a." * 10_000 + "a", "unknown field"),
        ("year == 'x'", "int64"),
        ("lang > 3", "string"),
        ("open == 1", "bool"),
        ("year == True", "int64"),
        ("'a' in lang", "not a list"),
        ("3 in tags", "holds strings"),
        ("tags == 'a'", "VALUE in tags"),
        ("tags in []", "VALUE in tags"),
        ("year", "compare"),
        ("lang or open", "compare"),
        ("'a'", "not a comparison"),
        ("__import__('os')", "expected an operator"),
        ("year('os')", "expected an operator"),
        ("1 == 1", "no field"),
        ("year == price", "two fields"),
        ("lang in year", "write FIELD in"),
        ("'a' in ('a', 'b')", "write FIELD in"),
        ("lang in ('a' 'b')", r"expected , or \)"),
        ("lang in (year)", "a string in quotes"),
        ("(lambda: 1)()", "cannot parse"),
        ("year == 2**70", "cannot parse"),
        ("year == 10000000000000000000000", "64 bits"),
        ("year == " + "9" * 400, "64 bits"),
        ("year == " + "9" * 5000, "no number"),
        ("price == " + "9" * 400, "64-bit floats"),
        ("year == 1__0", "no number"),
        ("", "found the end"),
        ("  ", "found the end"),
        ("year ==", "found the end at character 8"),
        ("year == 1 year == 2", "and, or, or the end"),
        ("lang == 'en", "the string has no end"),
        (r"lang == '\d'", "unknown escape"),
        (r"lang == '\ud800'", "surrogate"),
        ("lang == '\ud800'", "surrogate"),
        ("\ud800 == 1", "surrogate"),
        ("year == None", "is None"),
        ("year is 3", "write FIELD is None"),
        ("year == 1 AND open", "write and in lower case"),
        ("NOT open", "write not in lower case"),
        ("open == true", "write True"),
        ("year == null", "write FIELD is None"),
        ("a-name == 3", "field"),
        ("nested . x == 3", "write field"),
        ('{"year": 3', "as JSON"),
        ('{"year": NaN}', "no number in JSON"),
        ('{"year": ' + "9" * 5000 + "}", "as JSON"),
        ('{"not": ' * 100_000, "too deep"),
        ("year == 1 && open", "write and"),
        ("year == 1 || open", "write or"),
        ("not " * 2400 + "open", "levels"),
        ("(" * 2400 + "open", "levels"),
        ("((" * 15 + "open" + "))" * 14, r"expected and, or, or \)"),
        ("x" * (MAX_CHARS + 1), "longer"),
        ("year in (" + "1," * MAX_PARTS + ")", "more than"),
        ({}, "an object"),
        ({"and": []}, "list of trees"),
        ({"or": {"year": 1}}, "list of trees"),
        ({"and": ["year == 1"]}, "an object"),
        ({"not": 3}, "an object"),
        ({"year": {}}, "operators"),
        ({"year": {"=": 3}}, "unknown operator '='; there are =="),
        ({"year": {3: 3}}, "unknown operator 3"),
        ({"year": {"in": 3}}, "takes a list"),
        ({"lang": {"in": "en"}}, "takes a list"),
        ({"year": {"in": [None]}}, "int64"),
        ({"year": {"<": None}}, "int64"),
        ({"year": [1]}, "int64"),
        ({"year": {"==": {"a": 1}}}, "int64"),
        ({"price": float("nan")}, "NaN"),
        ({"year": float("nan")}, "NaN"),
        ({3: 3}, "keys of a tree"),
        ({"\ud800": 3}, "surrogate"),
        ({"lang": "\ud800"}, "surrogate"),
        ({"color": [3]}, "'color' is unknown and cannot be compared with a value of type list"),
        ({"color": float("nan")}, "NaN"),
        ({"nested.n": {"<": None}}, "'nested.n' is json and cannot be compared with None"),
        ({"tags": "a"}, "contains"),
        (["year"], "an expression or a tree"),
        (3, "an expression or a tree"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_malformed_filters_are_refused_with_a_reason(store, filter, message):
    with pytest.raises(FilterError, match=message) as caught:
        Filter(filter, store.fields)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, LexmaxError)
    assert len(str(caught.value)) < 600


def test_deep_and_wide_trees_are_refused(store):
    tree = {"open": True}
    for _ in range(5000):
        tree = {"not": tree}
    with pytest.raises(ValueError, match=f"{MAX_NESTING} levels"):
        Filter(tree, store.fields)
    with pytest.raises(ValueError, match="more than"):
        Filter({"or": [{"year": 1}] * MAX_PARTS}, store.fields)


def test_the_deepest_filter_that_is_allowed_is_answered(store):
    expression = "(" * MAX_NESTING + "open" + ")" * MAX_NESTING
    assert matches(expression, store) == [0]
    assert matches("not " * MAX_NESTING + "open", store) == [0]


def test_lists_of_a_hundred_thousand_values(store):
    ids = [f"d{i}" for i in range(1, 100_001)]
    started = time.monotonic()
    assert matches({"doc_id": {"in": ids}}, store) == [1, 2, 3]
    assert matches(f"doc_id in {tuple(ids)!r}", store) == [1, 2, 3]
    assert matches(f"doc_id not in {ids!r}", store) == [0]
    assert matches({"year": {"in": list(range(2000, 102_000))}}, store) == [0, 1]
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("name", ["text", "nested.x"])
def test_many_comparisons_of_large_columns_are_refused_before_they_are_made(tmp_path, monkeypatch, name):
    store = store_of(tmp_path, [{"nested": {"x": "a"}}])
    many = " or ".join(f"{name} == '{i}'" for i in range(800))
    assert matches(many, store) == []
    monkeypatch.setattr(filters, "MAX_READ_BYTES", 800 << 16)
    with pytest.raises(FilterError, match=r"800 comparisons would read .* in a list of values"):
        matches(many, store)
    assert matches(f"{name} in {[*map(str, range(800))]}", store) == []
    assert matches(f"{name} in ['a', 't']", store) == [0]
    with pytest.raises(FilterError, match="more than 10000 comparisons"):
        matches(" or ".join([f"{name} == 't'"] * 10_001), store)


def test_names_with_combining_marks(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "größe") for form in ("NFC", "NFD"))
    assert composed != decomposed
    for name in (composed, decomposed):
        store = store_of(tmp_path / ascii(name), [{name: 1}, {name: 2}])
        for spelled in (composed, decomposed):
            assert matches(f"{spelled} == 2", store) == [1]
            assert matches(f'field("{spelled}") == 2', store) == [1]
            assert matches({spelled: 2}, store) == [1]
    both = store_of(tmp_path / "both", [{composed: 1, decomposed: 2}])
    assert matches(f"{composed} == 1 and {decomposed} == 2", both) == [0]


def test_filters_of_a_snapshot_are_not_mixed_up(tmp_path):
    snapshot = make_index(tmp_path / "idx", random_vectors(np.random.default_rng(0), 6, 10, 4), cuts=(3,), deleted=(1,))
    tree = {"number": {"in": [1, 2, 5]}}
    expected = [[False, False, True], [False, False, True]]
    for _ in range(2):
        assert [mask.tolist() for mask in snapshot.masks(tree)] == expected
        assert [mask.tolist() for mask in snapshot.masks("number in (1, 2, 5)")] == expected
        assert [mask.tolist() for mask in snapshot.masks('{"number": {"in": [1, 2, 5]}}')] == expected
    with pytest.raises(ValueError, match="int64"):
        snapshot.masks({"number": {"in": ["1"]}})
    with pytest.raises(ValueError, match="JSON"):
        snapshot.masks({"number": {"==": object()}})
    deep = {"number": 1}
    for _ in range(5000):
        deep = {"not": deep}
    with pytest.raises(ValueError, match="too deep"):
        snapshot.masks(deep)


# --- an oracle in plain Python ---


def test_random_filters_are_those_of_an_oracle(tmp_path):
    rng = random.Random(1)
    rows = random_rows(rng)
    store = store_of(tmp_path, rows)
    assert store.fields == FIELDS
    for _ in range(1500):
        text, tree, oracle = random_filter(rng)
        expected = [i for i, row in enumerate(rows) if oracle(row) is True]
        assert matches(text, store) == expected, text
        assert matches(tree, store) == expected, tree
        assert [i for i, row in enumerate(rows) if tree_holds(tree, row) is True] == expected, tree
        if "Infinity" not in (written := json.dumps(tree)):
            assert matches(written, store) == expected, tree


def test_every_mutated_filter_is_answered_or_refused(tmp_path):
    rng = random.Random(2)
    store = store_of(tmp_path, random_rows(rng))
    n_answered, refusals = 0, set()
    for _ in range(5000):
        filter = mutated(rng, *random_filter(rng)[:2])
        try:
            (mask,) = Filter(filter, store.fields).masks([store])
        except FilterError as problem:
            refusals.add(str(problem).encode()[:8])
        else:
            n_answered += 1
            assert mask.shape == (len(store),)
    assert refusals == {b"filter: "}
    assert 250 < n_answered < 4750


# --- metadata ---


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


@pytest.mark.parametrize("values", [(2**53 + 1, 1.5), (1.5, 2**53 + 1), (3, 2**60, 0.5)])
def test_integers_that_floats_cannot_hold_and_floats_do_not_share_a_field(values):
    fields: dict[str, str] = {}
    for value in values[:-1]:
        extend_fields(fields, "d", {"n": value})
    with pytest.raises(DatasetError, match=r"document 'd': metadata field 'n' is .*an integer above 2\^53"):
        extend_fields(fields, "d", {"n": values[-1]})
