"""Types of metadata: what is accepted can be read, filtered, merged and compacted; what is not says why."""

import itertools
import random

import numpy as np
import pyarrow as pa
import pytest
from corpora import ENCODER, random_vectors

from lexmax.index import document_buffer, documents, segments
from lexmax.index.collection import Collection, NewField
from lexmax.index.documents import Document
from lexmax.index.errors import DatasetError
from lexmax.index.metadata import MAX_FIELDS, extend_fields, from_row, to_struct
from lexmax.index.snapshot import Snapshot

SPARSE = {"sparse": NewField(encoder=ENCODER)}
VALUES = [
    None, [], [None], ["a"], ["a", None], [""], True, False, 0, 1, 2**53, 2**53 + 1, -(2**63), 0.5, 1e300, "x", "", {"a": 1},
    {}, [1, "a"], [[]], {"b": {"c": None}},
]  # fmt: skip


@pytest.fixture(scope="module")
def vectors():
    return random_vectors(np.random.default_rng(0), 1, 10, 3)


def add(collection, vectors, doc_id, metadata):
    collection.add([Document(doc_id=doc_id, text="t", metadata=metadata)], {"sparse": vectors})


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


def uninformative(value):
    return isinstance(value, list) and all(item is None for item in value)


@pytest.mark.parametrize("batch_rows", [1, 4096])
@pytest.mark.parametrize("commit", [False, True])
@pytest.mark.parametrize("later", [["sea"], ["a", None], ["sea", 1], {"a": 1}, "sea", 3])
def test_empty_lists_fix_no_type_and_are_kept(tmp_path, monkeypatch, vectors, later, commit, batch_rows):
    monkeypatch.setattr(documents, "BATCH_ROWS", batch_rows)
    rows = [{"tags": []}, {"tags": [None]}, {"tags": None}, {"tags": later}, {"tags": []}]
    with Collection.create(tmp_path / "idx", SPARSE) as collection:
        for i, row in enumerate(rows):
            add(collection, vectors, str(i), row)
            if commit:
                collection.commit()
        collection.compact()
        collection.commit()
    snapshot = Snapshot.open(tmp_path / "idx")
    kept = isinstance(later, list | dict)  # in a field of scalars an empty list is an absent value
    expected = [[], [None], None, later, []] if kept else [None, None, None, later, None]
    assert [document.metadata.get("tags") for document in snapshot.get_many(range(5))] == expected
    assert snapshot.masks("tags is None")[0].tolist() == [value is None for value in expected]
    if isinstance(later, list):
        holds = [value is not None and "sea" in value for value in expected]
        assert snapshot.masks("'sea' in tags")[0].tolist() == holds
        assert snapshot.masks("'sea' not in tags")[0].tolist() == [
            value is not None and not held for value, held in zip(expected, holds, strict=True)
        ]


def test_a_field_of_empty_lists_can_be_filtered(tmp_path, vectors):
    with Collection.create(tmp_path / "idx", SPARSE) as collection:
        add(collection, vectors, "0", {"tags": []})
        add(collection, vectors, "1", {})
        collection.commit()
    snapshot = Snapshot.open(tmp_path / "idx")
    assert snapshot.manifest.metadata == {"tags": "empty"}
    for expression, expected in [
        ("tags is None", [False, True]),
        ("'sea' in tags", [False, False]),
        ("'sea' not in tags", [True, False]),
        ("tags == 'sea' or tags in (1, 2) or not tags == 3", [False, False]),
        ("tags.key is None", [True, True]),
    ]:
        assert snapshot.masks(expression)[0].tolist() == expected, expression


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "nan, which JSON cannot hold: use null"),
        (float("-inf"), "-inf, which JSON cannot hold"),
        ({"a": [float("nan")]}, "nan, which JSON cannot hold"),
        (2**63, "an integer beyond 64 bits: write it as a string"),
        ({"a": {1: "b"}}, "an object with the key 1, which is no string"),
        ({"\ud800": 1}, "surrogate"),
        ({"n": 10**5000}, "an integer beyond 4096 bits"),
        ([1, "\ud800"], "surrogate"),
        (b"a", "a value of type bytes, which JSON cannot hold"),
        ([1, {2}], "a value of type set"),
        (nested(65), "more than 64 lists and objects"),
    ],
)
def test_what_json_cannot_hold_is_refused_when_it_is_added(tmp_path, vectors, value, reason):
    with Collection.create(tmp_path / "idx", SPARSE) as collection:
        with pytest.raises(DatasetError, match=f"document 'a': metadata field 'x' holds {reason}|{reason}"):
            add(collection, vectors, "a", {"x": value, "y": 1})
        add(collection, vectors, "b", {"x": "text"})
        collection.commit()
    (document,) = Snapshot.open(tmp_path / "idx").get_many([0])
    assert document.metadata == {"x": "text"}


def test_nested_values_come_back_exactly(tmp_path, vectors):
    value = {"deep": nested(63), "large": 10**400, "text": "ä\n", "number": 0.1, "none": None}
    with Collection.create(tmp_path / "idx", SPARSE) as collection:
        add(collection, vectors, "a", {"x": value})
        collection.commit()
    (document,) = Snapshot.open(tmp_path / "idx").get_many([0])
    assert document.metadata == {"x": value}


def test_more_than_a_thousand_fields_are_refused_with_advice(tmp_path, vectors):
    with Collection.create(tmp_path / "idx", SPARSE) as collection:
        add(collection, vectors, "a", {f"key{i}": i for i in range(MAX_FIELDS)})
        with pytest.raises(DatasetError, match=r"document 'b': with 'other' there are more than 1000 .*: put keys"):
            add(collection, vectors, "b", {"key0": 0.5, "other": 1})
        add(collection, vectors, "c", {"key999": 3})
        add(collection, vectors, "d", {"key1": 0.5})
        collection.commit()
    snapshot = Snapshot.open(tmp_path / "idx")
    assert snapshot.masks("key999 == 3")[0].tolist() == [False, True, False]
    assert snapshot.get_many([1])[0].metadata == {"key999": 3}


def test_three_thousand_keys_fit_into_one_object(tmp_path, vectors):
    with Collection.create(tmp_path / "idx", SPARSE) as collection:
        for i in range(3000):
            add(collection, vectors, str(i), {"attributes": {f"key{i}": i}})
        collection.commit()
    snapshot = Snapshot.open(tmp_path / "idx")
    assert np.concatenate(snapshot.masks("attributes.key2999 == 2999")).nonzero()[0].tolist() == [2999]
    assert sum(path.stat().st_size for path in (tmp_path / "idx").rglob("documents.lex")) < 1_000_000


def test_rows_become_columns_and_rows_again():
    rows = [{"a": 1, "b": None}, {}, {"a": 2.5, "c": [], "d": {"x": [1]}}]
    fields: dict[str, str] = {}
    for row in rows:
        extend_fields(fields, "d", row)
    assert fields == {"a": "float64", "c": "empty", "d": "json"}
    column = to_struct(fields, rows)
    assert [from_row(fields, row) for row in column.to_pylist()] == [{"a": 1}, {}, {"a": 2.5, "c": [], "d": {"x": [1]}}]


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_accepted_is_read_filtered_and_compacted(tmp_path, vectors, seed):
    """Values of all types in three fields, added in random commits: refused at once, or right for ever after."""
    rng = random.Random(seed)
    accepted, n_refused = [], 0
    with Collection.create(tmp_path / "idx", SPARSE) as collection:
        for i in range(60):
            row = {name: rng.choice(VALUES) for name in ("x", "y", "z") if rng.random() < 0.5}
            try:
                add(collection, vectors, str(i), row)
                accepted.append(row)
            except DatasetError:
                n_refused += 1
            if rng.random() < 0.2:
                collection.commit()
                check(Snapshot.open(tmp_path / "idx"), accepted)
        collection.commit()
        check(Snapshot.open(tmp_path / "idx"), accepted)
        collection.compact()
        collection.commit()
    check(Snapshot.open(tmp_path / "idx"), accepted)
    assert n_refused
    assert len(accepted) > 10


def check(snapshot, rows):
    got = snapshot.get_many(range(snapshot.n_docs))
    assert len(got) == len(rows)
    types = snapshot.manifest.metadata
    for name in types:
        values = [row.get(name) for row in rows]
        scalars = types[name] not in ("list<string>", "json", "empty")
        for document, value in zip(got, values, strict=True):
            found = document.metadata.get(name)
            assert found == value or (scalars and uninformative(value) and found is None), (name, types[name], found, value)
        absent = [value is None or (scalars and uninformative(value)) for value in values]
        assert list(itertools.chain(*(mask.tolist() for mask in snapshot.masks({name: None})))) == absent
        for wanted in {str(value): value for value in values if isinstance(value, str | int | float)}.values():
            equal = [
                type(value) is not type(None) and not isinstance(value, list | dict) and value == wanted for value in values
            ]
            assert list(itertools.chain(*(mask.tolist() for mask in snapshot.masks({name: wanted})))) == equal


def test_documents_are_reordered_without_putting_their_strings_into_one_small_array(tmp_path, monkeypatch, vectors):
    """All strings of a column may have more bytes than 32-bit offsets reach; batches are cut to what they reach."""
    rows = [{"s": f"text {i}", "l": [f"{i}", None], "o": {"a": i}, "n": i} for i in range(40)]
    table = pa.Table.from_batches([documents_batch(rows[:25]), documents_batch(rows[25:])])
    order = np.random.default_rng(0).permutation(40).astype(np.int32)
    monkeypatch.setattr(segments, "MAX_BATCH_BYTES", 500)
    batches = list(segments._reordered(table, order))
    assert len(batches) > 4
    assert all(batch.schema == table.schema for batch in batches)
    assert pa.Table.from_batches(batches).to_pylist() == [table.to_pylist()[i] for i in order]


def documents_batch(rows):
    fields = {"s": "string", "l": "list<string>", "o": "json", "n": "int64"}
    return pa.RecordBatch.from_arrays([pa.array(["t"] * len(rows)), to_struct(fields, rows)], names=["title", "metadata"])


def test_the_buffer_counts_metadata_and_packs_before_strings_are_too_many(tmp_path, monkeypatch):
    monkeypatch.setattr(document_buffer, "BATCH_CHARS", 1000)
    buffer = document_buffer.DocumentBuffer({})
    rows = [Document(doc_id=str(i), text="", metadata={"s": "x" * 300, "o": {"y": "z" * 300}}) for i in range(5)]
    buffer.extend(rows, {"s": "string", "o": "json"})
    assert buffer.n_bytes > 3000
    buffer.write(tmp_path)
    store = documents.DocumentStore(tmp_path)
    assert [batch.num_rows for batch in store.batches()] == [2, 2, 1]
    assert store.get_many(range(5)) == rows
