"""Keys that are recognised, and the formats beside JSON lines, TSV and Parquet without surprises."""

import datetime
import gzip
import json
from dataclasses import asdict
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lexmax.index.documents import Document
from lexmax.index.errors import DatasetError
from lexmax.retrieval.corpora import lines
from lexmax.retrieval.corpora.objects import as_documents
from lexmax.retrieval.corpora.reading import BadRecords, Fields, read_corpus


def read(path, data=None, **options):
    if data is not None:
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    told = []
    corpus = read_corpus(path, notice=told.append, **options)
    return list(corpus), [text.removeprefix(f"{path}: ") for text in told], corpus


def test_recognised_keys_are_told_and_remembered(tmp_path):
    documents, told, corpus = read(tmp_path / "c.jsonl", '{"docid": 1, "contents": "x"}\n{"docid": 2, "contents": "y"}\n')
    assert [(d.doc_id, d.text) for d in documents] == [("1", "x"), ("2", "y")]
    assert told == ["id from 'docid', text from 'contents'"]
    assert corpus.place == (str(tmp_path / "c.jsonl"), 2)
    assert Fields.from_dict(json.loads(json.dumps(asdict(corpus.fields)))) == corpus.fields
    assert corpus.fields == Fields(id="docid", title=("title",), text=("contents",))


def test_beir_keys_are_not_told(tmp_path):
    _, told, corpus = read(tmp_path / "c.jsonl", '{"_id": 1, "title": "t"}\n{"_id": 2, "title": "t", "text": "x"}\n')
    assert told == []
    assert corpus.fields == Fields(id="_id", title=("title",), text=("text",))


def test_preference_is_told(tmp_path):
    (document,), told, _ = read(tmp_path / "c.jsonl", '{"id": 1, "_id": 2, "body": "b", "text": "t"}\n')
    assert (document.doc_id, document.text, document.metadata) == ("2", "t", {"id": 1, "body": "b"})
    assert told == ["id from '_id' (not 'id'), text from 'text' (not 'body')"]


def test_a_title_without_text_leaves_the_text_open(tmp_path):
    documents, told, _ = read(tmp_path / "c.jsonl", '{"id": 1, "title": "t"}\n{"id": 2, "title": "t", "body": "b"}\n')
    assert [d.content for d in documents] == ["t", "t b"]
    assert told[-1] == "text from 'body'"


def test_dropped_values_are_told_and_lists_of_strings_kept(tmp_path):
    records = [
        {"_id": "a", "text": "t", "tags": ["x", None], "vector": [1], "o": {"p": [1]}},
        {"_id": "b", "text": "t", "vector": [2], "parts": [{}]},
        {"_id": "c", "text": "t", "vector": [3], "parts": [[]]},
    ]
    documents, told, _ = read(tmp_path / "c.jsonl", "\n".join(map(json.dumps, records)))
    assert [document.metadata for document in documents] == [{"tags": ["x", None], "o": {"p": [1]}}, {}, {}]
    assert [text.split(":")[1].split(";")[0] for text in told] == [" 'vector'", " 'parts'"]


def test_integer_beyond_64_bits_is_refused_with_its_line(tmp_path):
    with pytest.raises(DatasetError, match=r"line 1: metadata 'n' is an integer beyond 64 bits"):
        read(tmp_path / "c.jsonl", '{"_id": "a", "text": "t", "n": 9223372036854775808}')


def test_csv(tmp_path):
    data = '\ufeffid,title,text,year\r\n1,"A, B","two\r\nlines ""quoted""",1999\r\n\r\n2,,c,\r\n3,x\r\n'
    bad = BadRecords()
    documents, told, _ = read(tmp_path / "c.csv.gz", gzip.compress(data.encode()), bad=bad)
    assert documents == [
        Document(doc_id="1", title="A, B", text='two\r\nlines "quoted"', metadata={"year": "1999"}),
        Document(doc_id="2", text="c"),
    ]
    assert told == ["id from 'id', text from 'text'"]
    assert [(b.line, b.reason) for b in bad.examples] == [(6, "4 cells are expected, as in the header, found 2")]


@pytest.mark.parametrize(
    ("data", "line", "reason"),
    [
        (b"", 1, "empty"),
        (b"id;text\n1;x\n", 1, "separated by commas"),
        (b"id,id,text\n1,2,x\n", 1, "'id' twice"),
        (b"name,text\n1,x\n", 1, "no id.*--id-field"),
        (b"id,text\n1,x\n2,\xff\n", 3, "not UTF-8"),
        (b'id,text\n1,x\n2,"open\n3,y\n', 3, "not CSV"),
    ],
)
def test_malformed_csv(tmp_path, data, line, reason):
    with pytest.raises(DatasetError, match=reason) as caught:
        read(tmp_path / "c.csv", data)
    assert caught.value.line == line


def test_csv_cells_may_be_long_and_the_limit_of_the_module_stays(tmp_path):
    import csv

    before = csv.field_size_limit()
    (document,), _, _ = read(tmp_path / "c.csv", "id,text\n1," + "x" * 300_000 + "\n")
    assert len(document.text) == 300_000
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_json_array(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(lines, "CHUNK_BYTES", chunk)
    records = [{"_id": str(i), "text": f'é "{i}" \\ [', "n": -1.5e3} for i in range(20)]
    documents, _, corpus = read(tmp_path / "c.json", "\ufeff \n" + json.dumps(records, indent=1))
    assert [d.text for d in documents] == [r["text"] for r in records]
    assert corpus.place.line == 3 + 19 * 5
    assert read(tmp_path / "empty.json", "[ ]")[0] == []


def test_json_file_may_hold_lines(tmp_path):
    assert len(read(tmp_path / "c.json", '{"_id": 1, "text": "x"}\n{"_id": 2, "text": "x"}\n')[0]) == 2


@pytest.mark.parametrize(
    ("data", "line", "reason"),
    [
        ('[{"_id": 1, "text": "x"},\n {"_id": 2, "text" "x"}]', 2, "not JSON"),
        ('[{"_id": 1, "text": "x"}\n', 2, "',' is expected, found the end"),
        ('[{"_id": 1, "text": "x"},\n]', 2, "not JSON"),
        ('[{"_id": 1, "text": "x"}]\n1', 2, "after the end"),
        ('[{"_id": 1, "text": "x"},\n{"_id": 1, "text": NaN}]', 2, "NaN"),
        ('[{"_id": 1, "text": "x"},\n12]', 2, "object is expected"),
        ('[{"_id": 1, "text": "\\ud800"}]', 1, "surrogate"),
        ('[{"_id": 1, "text": "x"},\n{"_id": 2, "text": "open', 2, "not JSON"),
    ],
)
def test_malformed_json_array(tmp_path, data, line, reason):
    with pytest.raises(DatasetError, match=reason) as caught:
        read(tmp_path / "c.json", data)
    assert caught.value.line == line


def test_tsv_with_a_header(tmp_path):
    documents, told, _ = read(tmp_path / "c.tsv", "docid\tcontents\tlang\n1\tx\ten\n2\ty\tde\n")
    assert documents[1] == Document(doc_id="2", text="y", metadata={"lang": "de"})
    assert told == ["id from 'docid', text from 'contents'"]
    documents, _, _ = read(tmp_path / "d.tsv", "docno\ttext\n1\tx\n", fields=Fields(id="docno"))
    assert documents == [Document(doc_id="1", text="x")]
    for data in ("docno\ttext\n1\tx\n", "id\tparagraph\n1\tx\n", "ID\tText\n1\tx\n"):
        with pytest.raises(DatasetError, match=r"line 1: .*header.*--id-field"):
            read(tmp_path / "e.tsv", data)


def test_folder_of_texts(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.txt").write_text("no")
    (tmp_path / "z.txt").write_text("plain")
    (tmp_path / "b" / "a.md").write_text("# The title #\n\nBody.\n")
    (tmp_path / "b" / "c.md").write_text("```\n# code\n```\nIntro\n## Later\nx\n")
    (tmp_path / "b" / "d.pdf").write_bytes(b"%PDF")
    (tmp_path / "b" / "bad.txt").write_bytes(b"a\n\xff")
    bad = BadRecords()
    documents, told, _ = read(tmp_path, bad=bad)
    assert [(d.doc_id, d.title, d.text) for d in documents] == [
        ("b/a.md", "The title", "Body.\n"),
        ("b/c.md", "Later", "```\n# code\n```\nIntro\n## Later\nx\n"),
        ("z.txt", "z", "plain"),
    ]
    assert [(b.path, b.line) for b in bad.examples] == [(str(tmp_path / "b" / "bad.txt"), 2)]
    assert told == ["2 files or folders are left out, hidden or neither .txt nor .md: .git, b/d.pdf"]


def test_parquet_values_are_kept_as_json_has_them_or_told(tmp_path):
    table = pa.table(
        {
            "_id": ["a"],
            "text": ["x"],
            "struct": [{"n": Decimal("1.50"), "day": datetime.date(2020, 1, 2)}],
            "price": [Decimal("2.50")],
            "count": [Decimal("3")],
            "took": [datetime.timedelta(seconds=90)],
            "at": pa.array([1], pa.timestamp("ns")),
            "nan": [float("nan")],
            "tags": [["u", "v"]],
            "embedding": [[0.5]],
            "raw": [b"\xff"],
            "names": pa.array([["u", None]], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
            "pair": pa.array([["u", "v"]], pa.list_(pa.string(), 2)),
            "inner": pa.array(
                [{"at": 1001, "took": 2000}], pa.struct([("at", pa.timestamp("ns")), ("took", pa.duration("ns"))])
            ),
        }
    )
    pq.write_table(table, tmp_path / "c.parquet")
    (document,), told, _ = read(tmp_path / "c.parquet")
    assert document.metadata == {
        "struct": {"n": 1.5, "day": "2020-01-02"},
        "price": 2.5,
        "count": 3,
        "took": 90.0,
        "at": "1970-01-01T00:00:00",
        "tags": ["u", "v"],
        "names": ["u", None],
        "pair": ["u", "v"],
        "inner": {"at": "1970-01-01T00:00:00.000001", "took": 2e-06},
    }
    assert len(told) == 1
    assert "'embedding' (list<element: double>), 'raw' (binary)" in told[0]


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (pa.array([0, 10**15], pa.timestamp("s")), r"column 'c' \(timestamp\[m?s\]\) holds what cannot be read"),
        (pa.array([0, 10**9], pa.date32()), r"column 'c' \(date32\[day\]\) holds what cannot be read"),
        (pa.array([0, 2**62], pa.duration("s")), r"column 'c' \(duration\[s\]\) holds what cannot be read"),
        (pa.array([0, 2**64 - 1], pa.uint64()), "metadata 'c' is an integer beyond 64 bits"),
        (pa.array([Decimal(0), Decimal(10) ** 30], pa.decimal128(38, 0)), "metadata 'c' is an integer beyond 64 bits"),
        (pa.array([0.0, float("inf")]), "metadata 'c' is inf"),
    ],
)
def test_values_of_tables_that_json_cannot_hold_are_told_with_row_and_column(tmp_path, column, reason):
    table = pa.table({"_id": ["a", "b"], "text": ["x", "y"], "c": column})
    pq.write_table(table, tmp_path / "c.parquet")
    with pytest.raises(DatasetError, match=rf"c\.parquet, line 2: .*{reason}"):
        read(tmp_path / "c.parquet")
    with pytest.raises(DatasetError, match=rf"documents\[1\]: .*{reason}"):
        list(as_documents(table))
    bad = BadRecords()
    documents, _, _ = read(tmp_path / "c.parquet", bad=bad)
    assert [document.doc_id for document in documents] == ["a"]
    assert [each.line for each in bad.examples] == [2]


def test_two_columns_of_one_name_are_refused():
    table = pa.Table.from_arrays([pa.array(["1"])] * 3, names=["_id", "text", "text"])
    with pytest.raises(DatasetError, match="documents: two columns have the name 'text'"):
        list(as_documents(table))


def test_keys_that_are_left_out_are_told_by_name_up_to_a_limit(tmp_path):
    records = [{"_id": str(i), "text": "t", f"vector{i}": [1]} for i in range(100)]
    _, told, _ = read(tmp_path / "c.jsonl", "\n".join(map(json.dumps, records)))
    assert len(told) == 50
    assert "more keys of such types are left out" in told[-1]
