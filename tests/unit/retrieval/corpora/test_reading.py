import datetime
import gzip
import io
import json
import random
import sys
import tracemalloc
from importlib import import_module
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexmax.index.documents import Document
from lexmax.index.errors import DatasetError, MissingDependencyError
from lexmax.retrieval.corpora import lines, tables
from lexmax.retrieval.corpora.objects import as_documents
from lexmax.retrieval.corpora.reading import BadRecord, BadRecords, Fields, read_corpus

GOOD = b'{"_id": "d1", "title": "Cats", "text": "Cats purr."}'


def from_lines(*lines: bytes, fields=None, bad=None) -> list[Document]:
    stdin = io.BytesIO(b"\n".join(lines))
    return list(read_corpus(["-"], fields=fields, bad=bad, stdin=stdin))


def test_beir_record_keeps_metadata_and_extra_scalars():
    line = (
        b'{"_id": 7, "title": "T", "text": "x", "metadata": {"year": 2020, "none": null, "deep": {"a": [1]}},'
        b' "url": "u", "score": 1.5, "open": true, "vector": [1, 2], "gone": null}'
    )
    (document,) = from_lines(line)
    assert document == Document(
        doc_id="7",
        title="T",
        text="x",
        metadata={"url": "u", "score": 1.5, "open": True, "year": 2020, "deep": {"a": [1]}},
    )


def test_chosen_fields():
    fields = Fields(id="pk", title=("head", "sub"), text=("abstract", "body"), metadata=("tags", "year"))
    line = (
        b'{"pk": "a", "head": "H", "sub": "S", "abstract": "A", "body": null, "tags": ["x"],'
        b' "metadata": {"year": 1999, "skip": 1}, "url": "u"}'
    )
    assert from_lines(line, fields=fields) == [
        Document(doc_id="a", title="H S", text="A", metadata={"tags": ["x"], "year": 1999})
    ]


def test_title_or_text_alone_and_empty_strings_are_records():
    documents = from_lines(b'{"_id": "a", "text": "x"}', b'{"_id": "b", "title": "t"}', b'{"_id": "c", "text": ""}')
    assert [(d.title, d.text) for d in documents] == [("", "x"), ("t", ""), ("", "")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"_id": "x", "text": ', "not JSON"),
        (b'["_id", "text"]', "object is expected"),
        (b'"text"', "object is expected"),
        (b'{"text": "x"}', "'_id' must be"),
        (b'{"_id": "", "text": "x"}', "'_id' must be"),
        (b'{"_id": true, "text": "x"}', "'_id' must be"),
        (b'{"_id": 1.5, "text": "x"}', "'_id' must be"),
        (b'{"_id": "x"}', "no text"),
        (b'{"_id": "x", "text": null}', "no text"),
        (b'{"_id": "x", "text": 5}', "'text' must be a string"),
        (b'{"_id": "x", "text": "t", "title": ["a"]}', "'title' must be a string"),
        (b'{"_id": "x", "text": "t", "metadata": [1]}', "'metadata' must be an object"),
        (b'{"_id": "x", "text": "t", "score": NaN}', "NaN"),
        (b'{"_id": "x", "text": "t", "score": 1e999}', "'score' is inf"),
        (b'{"_id": "x", "text": "\xff"}', "not UTF-8 at byte 23"),
        (b'{"_id": "x", "text": "\\ud800"}', "surrogate"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"_id": ' + b"1" * 5000 + b', "text": "x"}', "digits"),
    ],
)
def test_malformed_json_line_names_its_line_or_is_collected(line, reason):
    with pytest.raises(DatasetError, match=reason) as caught:
        from_lines(GOOD, b"", line)
    assert caught.value.line == 3
    assert "standard input, line 3: " in str(caught.value)

    bad = BadRecords()
    assert [d.doc_id for d in from_lines(GOOD, b"", line, GOOD, bad=bad)] == ["d1", "d1"]
    ((path, number, told),) = bad.examples
    assert (path, number, bad.n_records) == ("standard input", 3, 1)
    assert reason in told


def test_a_whole_surrogate_pair_is_a_character():
    (document,) = from_lines(b'{"_id": "x", "text": "\\ud83d\\ude00"}')
    assert document.text == "\N{GRINNING FACE}"


def test_bad_records_lists_the_first_twenty_and_counts_all():
    bad = BadRecords()
    assert from_lines(*[b"{"] * 30, GOOD, bad=bad) != []
    assert bad.n_records == 30
    assert [example.line for example in bad.examples] == list(range(1, 21))
    assert isinstance(bad.examples[0], BadRecord)


def test_overlong_line_is_one_bad_record(monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", len(GOOD) + 1)
    bad = BadRecords()
    overlong = b'{"_id": "d2", "text": "' + b"x" * 500 + b'"}'
    assert [d.doc_id for d in from_lines(GOOD, overlong, GOOD, bad=bad)] == ["d1", "d1"]
    assert [(b.line, "longer than" in b.reason) for b in bad.examples] == [(2, True)]


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    line = json.dumps({"_id": "x", "text": "word " * 200}) + "\n"
    path.write_text(line * 20_000)
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_corpus([str(path)])) == 20_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size / 20


def test_files_folders_and_gzip_read_alike(tmp_path):
    text = b"\xef\xbb\xbf" + GOOD + b"\r\n\r\n" + GOOD.replace(b"d1", b"d2") + b"\n\n"
    (tmp_path / "beir").mkdir()
    (tmp_path / "beir" / "corpus.jsonl.gz").write_bytes(gzip.compress(text))
    (tmp_path / "plain.jsonl").write_bytes(text)
    sources = [str(tmp_path / "beir"), str(tmp_path / "plain.jsonl")]
    documents = list(read_corpus(sources))
    assert [d.doc_id for d in documents] == ["d1", "d2", "d1", "d2"]
    assert documents[:2] == documents[2:]


def test_tsv_of_two_and_of_three_columns(tmp_path):
    two, three = tmp_path / "two.tsv", tmp_path / "three.tsv.gz"
    two.write_bytes(b'1\tCats "purr".\r\n\n2\tDogs.\n')
    three.write_bytes(gzip.compress("1\tÉlan\t\n".encode()))
    assert list(read_corpus([str(two), str(three)])) == [
        Document(doc_id="1", text='Cats "purr".'),
        Document(doc_id="2", text="Dogs."),
        Document(doc_id="1", title="Élan", text=""),
    ]


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (b"2\ttitle\ttext", "2 columns are expected, found 3"),
        (b"only", "found 1"),
        (b"\ttext", "id .first column. is empty"),
        (b"2\t\xff", "not UTF-8"),
    ],
)
def test_malformed_tsv_line(tmp_path, second, reason):
    path = tmp_path / "corpus.tsv"
    path.write_bytes(b"1\ttext\n" + second + b"\n3\ttext\n")
    with pytest.raises(DatasetError, match=f"line 2: .*{reason}"):
        list(read_corpus([str(path)]))
    bad = BadRecords()
    assert [d.doc_id for d in read_corpus([str(path)], bad=bad)] == ["1", "3"]
    assert bad.n_records == 1


def write_parquet(path, columns, **options):
    pq.write_table(pa.table(columns), path, **options)
    return str(path)


def test_parquet_reads_wanted_columns_over_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "PARQUET_BATCH_ROWS", 2)
    columns = {
        "_id": [1, 2, 3, 4, 5],
        "text": ["a", "b", None, "d", "e"],
        "title": [None, None, "C", None, None],
        "year": [2001, None, 2003, 2004, 2005],
        "day": [datetime.date(2020, 1, 2)] * 5,
        "embedding": [[0.5]] * 5,
    }
    source = write_parquet(tmp_path / "c.parquet", columns, row_group_size=3)
    documents = list(read_corpus([source], fields=Fields(metadata=("year", "day"))))
    assert [(d.doc_id, d.title, d.text) for d in documents] == [
        ("1", "", "a"), ("2", "", "b"), ("3", "C", ""), ("4", "", "d"), ("5", "", "e")
    ]  # fmt: skip
    assert documents[0].metadata == {"year": 2001, "day": "2020-01-02"}
    assert documents[1].metadata == {"day": "2020-01-02"}
    assert list(read_corpus([source])) == documents
    columns_read = tables.wanted_columns(pq.read_schema(source), Fields(), "c.parquet")
    assert columns_read == ["_id", "text", "title", "year", "day"]


def test_parquet_memory_is_far_below_a_row_group(tmp_path):
    draw = random.Random(5)
    text = [draw.randbytes(1000).hex() for _ in range(10_000)]
    columns = {"_id": [str(i) for i in range(len(text))], "text": text}
    source = write_parquet(tmp_path / "c.parquet", columns, compression="none", use_dictionary=False)
    assert pq.ParquetFile(source).num_row_groups == 1
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - before for _ in read_corpus([source])]
    assert len(held) == len(text)
    assert max(held) < 8 << 20 < sum(map(len, text))


def test_malformed_parquet_row_is_named(tmp_path):
    ids = pa.array(["1", "2", "3", "4"])
    text = pa.array([b"a", b"\xff", b"c", None]).cast(pa.string(), safe=False)
    source = write_parquet(tmp_path / "c.parquet", {"_id": ids, "text": text})
    with pytest.raises(DatasetError, match=r"c\.parquet, line 2: column 'text': a string is not UTF-8"):
        list(read_corpus([source]))
    bad = BadRecords()
    assert [d.doc_id for d in read_corpus([source], bad=bad)] == ["1", "3"]
    assert [b.line for b in bad.examples] == [2, 4]


def test_parquet_without_the_id_column(tmp_path):
    source = write_parquet(tmp_path / "c.parquet", {"docno": ["1"], "text": ["a"]})
    with pytest.raises(DatasetError, match=r"no id.*'docno'.*--id-field"):
        list(read_corpus([source]))
    assert [d.doc_id for d in read_corpus([source], fields=Fields(id="docno"))] == ["1"]


def test_damaged_files(tmp_path):
    packed = gzip.compress(b"\n".join([GOOD] * 1000))
    (tmp_path / "short.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "plain.jsonl.gz").write_bytes(GOOD)
    (tmp_path / "foreign.parquet").write_bytes(b"PAR1 not really")
    for name in ("short.jsonl.gz", "plain.jsonl.gz", "foreign.parquet"):
        with pytest.raises(DatasetError, match=name):
            list(read_corpus([str(tmp_path / name)], bad=BadRecords()))
    with pytest.raises(DatasetError, match="line 1: cannot be read on"):
        list(read_corpus([str(tmp_path / "plain.jsonl.gz")]))


def test_wrong_sources_are_told_before_anything_is_read(tmp_path):
    (tmp_path / "good.jsonl").write_bytes(GOOD)
    (tmp_path / "corpus.xml").write_text("<text>")
    (tmp_path / "empty").mkdir()
    for name, reason in (
        ("none.jsonl", "no such file"),
        ("corpus.xml", "unknown kind"),
        ("empty", "no corpus.jsonl"),
    ):
        with pytest.raises(DatasetError, match=reason):
            read_corpus([str(tmp_path / "good.jsonl"), str(tmp_path / name)])
    with pytest.raises(DatasetError, match="empty"):
        read_corpus("")
    assert [d.doc_id for d in read_corpus(tmp_path / "good.jsonl")] == ["d1"]


class StubDoc(NamedTuple):
    doc_id: str
    title: str
    body: str

    def default_text(self) -> str:
        return f"{self.title} {self.body}"


class StubText(NamedTuple):
    doc_id: str
    title: str
    text: str
    url: str


class StubCollection:
    def __init__(self, docs):
        self.docs = docs

    def has_docs(self):
        return bool(self.docs)

    def docs_iter(self):
        return iter(self.docs)


class StubPackage:
    collections = {  # noqa: RUF012
        "bodies": StubCollection([StubDoc("1", "T", "B")]),
        "texts": StubCollection([StubText("1", "T", "B", "u")]),
        "empty": StubCollection([]),
    }

    @classmethod
    def load(cls, name):
        return cls.collections[name]


def test_ir_datasets(monkeypatch):
    monkeypatch.setitem(sys.modules, "ir_datasets", StubPackage)
    assert list(read_corpus(["ir_datasets:bodies"])) == [Document(doc_id="1", text="T B")]
    assert list(read_corpus(["ir_datasets:texts"])) == [Document(doc_id="1", title="T", text="B")]
    assert next(read_corpus(["ir_datasets:texts"], fields=Fields())).metadata == {}
    with_url = Fields(metadata=("url",))
    assert next(read_corpus(["ir_datasets:texts"], fields=with_url)).metadata == {"url": "u"}
    bodies = Fields(text=("body",))
    assert next(read_corpus(["ir_datasets:bodies"], fields=bodies)).content == "T B"
    for name in ("ir_datasets:unknown", "ir_datasets:empty"):
        with pytest.raises(DatasetError):
            read_corpus([name])


def test_real_ir_datasets_record(monkeypatch, tmp_path):
    ir_datasets = import_module("ir_datasets")
    (tmp_path / "docs.tsv").write_text("1\tCats purr.\n")
    made = ir_datasets.create_dataset(docs_tsv=str(tmp_path / "docs.tsv"))
    monkeypatch.setattr(ir_datasets, "load", lambda name: made)
    assert list(read_corpus(["ir_datasets:made"])) == [Document(doc_id="1", text="Cats purr.")]


def test_ir_datasets_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    with pytest.raises(MissingDependencyError, match=r"lexmax\[eval\]"):
        read_corpus(["ir_datasets:any"])


@given(st.lists(st.binary(max_size=40)))
def test_any_bytes_give_documents_or_bad_records(lines):
    lines = [line.replace(b"\n", b" ") for line in lines]
    bad = BadRecords()
    documents = from_lines(*lines, GOOD, bad=bad)
    assert documents[-1].doc_id == "d1"
    assert len(documents) + bad.n_records <= len(lines) + 1


@given(st.text(min_size=1), st.text(), st.text())
def test_any_text_comes_back(doc_id, title, text):
    line = json.dumps({"_id": doc_id, "title": title, "text": text}).encode()
    assert from_lines(line) == [Document(doc_id=doc_id, title=title, text=text)]


MIXED = [
    *(b'{"_id": "a%d", "title": "T", "text": "some words %d"}' % (i, i) for i in range(40)),
    b'{"_id": 7, "text": "a number as id"}',
    b"",
    b'{"_id": "m", "text": "x", "metadata": {"year": 2020}}',
    b"no json",
    b'{"_id": "k", "text": "x", "tag": "kept"}',
    b'{"_id": "n", "title": null, "text": "no title"}',
    b'{"_id": "t", "title": "no text"}',
    b'{"_id": "", "text": "no id"}',
    b'{"_id": "z", "title": 0, "text": "a number as title"}',
    *(b'{"_id": "b%d", "text": "more words %d"}' % (i, i) for i in range(40)),
]


@pytest.mark.parametrize("n_docs", [1, 7, 1000])
@pytest.mark.parametrize("n_before", [0, 3])
def test_batches_have_the_documents_and_places_that_reading_one_by_one_has(tmp_path, n_docs, n_before):
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(b"\n".join(MIXED))
    sources = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    one_by_one, together = BadRecords(), BadRecords()
    corpus = read_corpus(sources, bad=one_by_one)
    expected = [(document, tuple(corpus.place)) for document in corpus]
    corpus = read_corpus(sources, bad=together)
    before = [next(corpus) for _ in range(n_before)]
    batches = list(corpus.batches(n_docs, 1 << 20))
    assert before + [document for columns, _ in batches for document in columns] == [document for document, _ in expected]
    assert [place for _, places in batches for place in places] == [place for _, place in expected][n_before:]
    assert max(len(columns) for columns, _ in batches) <= n_docs
    assert together == one_by_one
    assert together.n_records == 6
    assert corpus.fields == Fields(id="_id", title=("title",), text=("text",))


def test_batches_end_where_texts_are_long(tmp_path):
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps({"_id": str(i), "text": "x" * 1000}) + "\n" for i in range(500)))
    sizes = [len(columns) for columns, _ in read_corpus(path).batches(1000, 50_000)]
    assert sum(sizes) == 500
    assert all(50 < size < 110 for size in sizes[:-1])


def test_a_stream_that_breaks_off_is_told_with_its_line_by_batches_too(tmp_path):
    path = tmp_path / "c.jsonl.gz"
    whole = gzip.compress(b"".join(b'{"_id": "%d", "text": "%d"}\n' % (i, random.getrandbits(64)) for i in range(50_000)))
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match="cannot be read on") as one_by_one:
        list(read_corpus(path))
    with pytest.raises(DatasetError, match="cannot be read on") as together:
        list(read_corpus(path).batches(1000, 1 << 20))
    assert str(together.value) == str(one_by_one.value)


def test_batches_of_documents_and_of_what_else_is_no_record(tmp_path):
    path = tmp_path / "c.tsv"
    path.write_text("".join(f"d{i}\ttitle\ttext {i}\n" for i in range(30)))
    documents = list(read_corpus(path))
    ((columns, places),) = read_corpus(path).batches(100, 1 << 20)
    assert list(columns) == documents
    assert places == [(str(path), i + 1) for i in range(30)]
    mixed = [*documents, "a string", {"id": "x", "text": "a dict"}, *documents[:1]]
    batches = list(as_documents(mixed).batches(20, 1 << 20))
    assert [document for columns, _ in batches for document in columns] == list(as_documents(mixed))
