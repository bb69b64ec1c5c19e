import gzip

import pytest

from lexmax.index.errors import DatasetError
from lexmax.retrieval.corpora.queries import Query, read_queries

TWO = [Query("1", "cats"), Query("2", "dogs")]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("q.jsonl", '{"_id": "1", "text": "cats"}\n\n{"_id": 2, "text": "dogs"}\n'),
        ("q.jsonl", '{"qid": 1, "query": "cats"}\n{"qid": 2, "query": "dogs"}\n'),
        ("q.json", '[{"id": 1, "query": "cats"}, {"id": 2, "query": "dogs"}]'),
        ("q.tsv", "1\tcats\n2\tdogs\n"),
        ("q.tsv", "query_id\ttext\n1\tcats\n2\tdogs\n"),
        ("q.csv", 'qid,query\n1,"cats"\n2,dogs\n'),
        ("q.txt", "cats\n\n  dogs \n"),
    ],
)
def test_formats(tmp_path, name, data):
    (tmp_path / name).write_text(data)
    assert read_queries(tmp_path / name) == TWO
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(data.encode()))
    assert read_queries(str(tmp_path / f"{name}.gz")) == TWO


@pytest.mark.parametrize(
    ("name", "data", "line", "reason"),
    [
        ("q.jsonl", '{"_id": "1", "text": "a"}\n{"_id": 1, "text": "b"}\n', 2, "on line 1 already"),
        ("q.jsonl", '{"_id": "1", "text": " "}\n', 1, "is empty"),
        ("q.jsonl", '{"_id": "1", "question": "a"}\n', 1, "no text"),
        ("q.jsonl", "{", 1, "not JSON"),
        ("q.tsv", "1\ta\n2\ta\tb\n", 2, "2 columns"),
        ("q.txt", "\n\n", 1, "no queries"),
        ("q.csv", "id,text\n", 1, "no queries"),
    ],
)
def test_malformed(tmp_path, name, data, line, reason):
    (tmp_path / name).write_text(data)
    with pytest.raises(DatasetError, match=reason) as caught:
        read_queries(tmp_path / name)
    assert caught.value.line == line


def test_missing_and_unknown_files(tmp_path):
    (tmp_path / "q.xml").write_text("x")
    for name, reason in (("none.tsv", "no such file"), ("q.xml", "unknown kind")):
        with pytest.raises(DatasetError, match=reason):
            read_queries(tmp_path / name)
