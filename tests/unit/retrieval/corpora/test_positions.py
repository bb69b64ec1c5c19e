"""A corpus is read on from a position: the same documents, whatever the kind of file and the keys that were recognised."""

import gzip
import json

import pytest

from lexmax.retrieval.corpora.reading import BadRecords, read_corpus

FIRST = {"docid": "a0", "name": "not a title key", "contents": "text zero", "year": 1}
RECORDS = [FIRST, *({"docid": f"a{i}", "title": f"title {i}", "contents": f"text {i}", "text": "other"} for i in range(1, 6))]


def write_all(folder):
    """One source of each kind; in the first records keys are missing that later ones have."""
    lines = "\n\n".join(map(json.dumps, RECORDS)) + "\n"
    (folder / "a.jsonl").write_text(lines)
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines.replace("a", "b").replace("docid", "id").encode()))
    (folder / "c.json").write_text(json.dumps([{"_id": f"c{i}", "text": f"array {i}"} for i in range(4)], indent=1))
    (folder / "d.csv").write_text('id,title,text\nd0,one,"two\nlines"\nd1,,three\nd2,four,five\n')
    (folder / "e.tsv").write_text("e0\ttitle\ttext\ne1\ttitle\tmore text\n")
    (folder / "f.tsv").write_text("docid\tcontents\nf0\ttext\nf1\tmore\n")
    (folder / "texts").mkdir()
    for i in range(3):
        (folder / "texts" / f"{i}.md").write_text(f"# heading {i}\nbody")
    return [folder / name for name in ("a.jsonl", "b.jsonl.gz", "c.json", "d.csv", "e.tsv", "f.tsv", "texts")]


def test_reading_goes_on_after_any_document(tmp_path):
    sources = write_all(tmp_path)
    corpus, documents, positions = read_corpus(sources), [], [None]
    for document in corpus:
        documents.append(document)
        positions.append(corpus.position)
    assert len(documents) == 26
    for n_before, position in enumerate(positions):
        assert list(read_corpus(sources, after=position)) == documents[n_before:], position


def test_sources_and_lines_before_are_not_read(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": "a", "text": "x"}\n')
    (tmp_path / "b.jsonl").write_text('{"id": "b", "text": "x"}\nno json\n{"id": "c", "text": "y"}\n{"id": "d", "text": "z"}\n')
    sources, bad = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"], BadRecords()
    corpus = read_corpus(sources, bad=bad)
    for document in corpus:
        if document.doc_id == "c":
            position = corpus.position
    (tmp_path / "a.jsonl").write_text("no json any more")
    assert [each.doc_id for each in read_corpus(sources, after=position)] == ["d"]
    assert bad.n_records == 1


@pytest.mark.parametrize("key", ["title", "other"])
def test_keys_of_later_records_are_taken_as_in_one_reading(tmp_path, key):
    (tmp_path / "a.jsonl").write_text(
        '{"id": "a", "text": "x"}\n{"id": "b", "text": "x"}\n' + json.dumps({"id": "c", "text": "y", key: "t"})
    )
    whole = list(read_corpus(tmp_path / "a.jsonl"))
    corpus = read_corpus(tmp_path / "a.jsonl")
    next(corpus)
    assert list(read_corpus(tmp_path / "a.jsonl", after=corpus.position)) == whole[1:]
