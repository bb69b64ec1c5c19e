import gzip
import sys
from importlib import import_module

import pytest

from lexmax.eval.datasets import COLLECTIONS, load_dataset
from lexmax.index.errors import DatasetError, MissingDependencyError
from lexmax.retrieval.corpora.reading import read_corpus

QUERIES = b"""{"_id": "q1", "text": "one"}
{"_id": 2, "text": "two", "metadata": {}}
{"_id": "q3", "text": "three"}
"""
HEADER = "query-id\tcorpus-id\tscore\n"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "tiny"
    (folder / "qrels").mkdir(parents=True)
    (folder / "queries.jsonl").write_bytes(QUERIES)
    (folder / "qrels" / "test.tsv").write_text(HEADER + "q1\td1\t2\r\nq1\td2\t0\n2\td1\t1\n\nq3\td1\t0\n")
    (folder / "qrels" / "dev.tsv").write_text("q3\td3\t1\n")
    return folder


def test_only_queries_with_a_positive_judgment(folder):
    dataset = load_dataset(folder)
    assert dataset.name == "tiny/test"
    assert dataset.queries == {"q1": "one", "2": "two"}
    assert dataset.qrels == {"q1": {"d1": 2, "d2": 0}, "2": {"d1": 1}}


def test_split_without_header_and_gzipped_queries(folder):
    (folder / "queries.jsonl").unlink()
    (folder / "queries.jsonl.gz").write_bytes(gzip.compress(QUERIES))
    dataset = load_dataset(str(folder), "dev")
    assert (dataset.queries, dataset.qrels) == ({"q3": "three"}, {"q3": {"d3": 1}})


@pytest.mark.parametrize("first", ["1001\t1\t+1", "1001\t1\t1", "1001\t1\t 1", "\ufeff1001\t1\t1", "1001 1 1", "\n1001\t1\t1"])
def test_a_first_line_with_a_number_is_no_header(folder, first):
    (folder / "queries.jsonl").write_bytes(QUERIES + b'{"_id": "1001", "text": "number"}\n')
    (folder / "qrels" / "test.tsv").write_text(first + "\nq1\td1\t+1\n", encoding="utf-8")
    assert load_dataset(folder).qrels == {"1001": {"1": 1}, "q1": {"d1": 1}}


@pytest.mark.parametrize("number", ["1.5", "x", "nan", "1_0", "١", ""])
def test_a_first_line_with_a_broken_number_is_an_error_and_no_header(folder, number):
    (folder / "qrels" / "test.tsv").write_text(f"q1\td1\t{number}\nq1\td2\t1\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=f"line 1: the relevance must be an integer, found '{number}'"):
        load_dataset(folder)


@pytest.mark.parametrize(
    "header", ["query-id\tcorpus-id\tscore", "\ufeffQuery_ID\tdoc\tn", "q\td\trelevance", "qid 0 docid rel"]
)
def test_headers_that_are_known_and_both_forms(folder, header):
    rows = "q1\td1\t2\nq1\td 2\t0\n" if header.count("\t") else "q1 0 d1 2\nq1\t0\td 2\t0\n"
    (folder / "qrels" / "test.tsv").write_text(f"{header}\n{rows}", encoding="utf-8")
    assert load_dataset(folder).qrels == {"q1": {"d1": 2, "d 2": 0}}


def test_missing_split_names_the_others(folder):
    with pytest.raises(DatasetError, match=r"no split 'train'.*there is: dev, test"):
        load_dataset(folder, "train")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("q1 d1", "3 columns are expected, found 2"),
        ("\td1\t1", "an id is empty"),
        ("q1\td1\tscore", "must be an integer"),
        ("q1\td1\t1.5", "must be an integer"),
        ("q1\td1\t1\t1", "found 4"),
        ("q9\td1\t1", "query 'q9' is not in queries.jsonl"),
        ("q1\td1\t1\nq1\td1\t2", "judged 2, and 1 before"),
        ("q1\t\udcff\t1", "not UTF-8"),
    ],
)
def test_malformed_qrels(folder, row, reason):
    text = (HEADER + row + "\n").encode("utf-8", "surrogateescape")
    (folder / "qrels" / "test.tsv").write_bytes(text)
    line = 1 + len(row.split("\n"))
    with pytest.raises(DatasetError, match=f"test.tsv, line {line}: .*{reason}"):
        load_dataset(folder)


def test_malformed_queries(folder):
    path = folder / "queries.jsonl"
    path.write_bytes(QUERIES + b'{"_id": "q4", "title": "no text"}\n')
    with pytest.raises(DatasetError, match=r"queries\.jsonl, line 4: no text"):
        load_dataset(folder)
    path.write_bytes(QUERIES + QUERIES)
    with pytest.raises(DatasetError, match=r"queries\.jsonl, line 4: query 'q1' is there twice"):
        load_dataset(folder)
    path.unlink()
    with pytest.raises(DatasetError, match=r"no queries\.jsonl"):
        load_dataset(folder)


def test_no_positive_judgment(folder):
    (folder / "qrels" / "test.tsv").write_text(HEADER + "q1\td1\t0\n")
    with pytest.raises(DatasetError, match="tiny/test: no query"):
        load_dataset(folder)


def test_a_file_is_no_dataset(folder):
    with pytest.raises(DatasetError, match="is a file"):
        load_dataset(folder / "queries.jsonl")


@pytest.fixture
def ir_collection(monkeypatch, tmp_path):
    ir_datasets = import_module("ir_datasets")
    (tmp_path / "docs.tsv").write_text("d1\tdocument\n")
    (tmp_path / "queries.tsv").write_text("q1\tone\nq2\ttwo\n")
    (tmp_path / "qrels.trec").write_text("q1 0 d1 1\nq2 0 d1 0\n")
    docs, queries = str(tmp_path / "docs.tsv"), str(tmp_path / "queries.tsv")
    made = {
        "made": ir_datasets.create_dataset(docs_tsv=docs, queries_tsv=queries),
        "made/test": ir_datasets.create_dataset(docs_tsv=docs, queries_tsv=queries, qrels_trec=str(tmp_path / "qrels.trec")),
    }
    monkeypatch.setattr(ir_datasets, "load", made.__getitem__)


@pytest.mark.parametrize("name", ["made", "made/test", "ir_datasets:made"])
def test_ir_datasets_id(ir_collection, name):
    dataset = load_dataset(name)
    assert dataset.name == "made/test"
    assert (dataset.queries, dataset.qrels) == ({"q1": "one"}, {"q1": {"d1": 1}})


def test_unknown_name(ir_collection):
    with pytest.raises(DatasetError, match="'made/train'"):
        load_dataset("made", "train")


def test_ir_datasets_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    with pytest.raises(MissingDependencyError, match="'no-such' is no folder"):
        load_dataset("no-such")


def n_judgments(dataset):
    return sum(map(len, dataset.qrels.values()))


def test_the_collection_in_the_repository():
    test, train = load_dataset("scifact"), load_dataset("scifact", "train")
    assert (len(test.queries), n_judgments(test)) == (300, 339)
    assert (len(train.queries), n_judgments(train)) == (809, 919)
    doc_ids = [document.doc_id for document in read_corpus([str(COLLECTIONS / "scifact")])]
    assert len(doc_ids) == len(set(doc_ids)) == 5183
    judged = {doc_id for dataset in (test, train) for row in dataset.qrels.values() for doc_id in row}
    assert judged <= set(doc_ids)
