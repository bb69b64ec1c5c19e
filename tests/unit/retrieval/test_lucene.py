"""BM25's parameters as Lucene's users have them, and Pyserini's folders of JSON vectors."""

import json

import pytest

from lexmax import DatasetError, Retriever, Snapshot, build_index, export_ciff
from lexmax.__main__ import main
from lexmax.retrieval.exchange.lucene import lucene_bm25

SETTINGS = {"settings": {"index": {"similarity": {"default": {"type": "BM25", "k1": "1.5", "b": 0.3}}}}}


def test_texts_and_settings_are_read(tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps(SETTINGS))
    assert lucene_bm25("BM25(k1=0.9,b=0.4)").k1 == lucene_bm25("msmarco.bm25(k1=0.9, b=0.4).txt").k1 == 0.9
    assert (lucene_bm25(str(tmp_path / "settings.json")).k1, lucene_bm25(json.dumps(SETTINGS)).b) == (1.5, 0.3)
    assert lucene_bm25('{"type": "BM25"}').k1 == 1.2


@pytest.mark.parametrize(
    "text", ["bm25", "BM25(k1=a,b=0.4)", "BM25(k1=-1,b=0.4)", '[{"type": "BM25"}, {"type": "BM25", "b": 0}]']
)
def test_other_texts_are_refused(text):
    with pytest.raises(DatasetError, match="expected BM25's parameters"):
        lucene_bm25(text)


def test_counts_of_a_ciff_file_are_weighed_so(tmp_path):
    build_index(documents=["cats purr", "dogs bark at cats"], out=tmp_path / "index", encoders=["bm25"])
    export_ciff(tmp_path / "index", tmp_path / "index.ciff")
    arguments = ["import", str(tmp_path / "index.ciff"), "--out", str(tmp_path / "again"), "--bm25", "BM25(k1=0.9,b=0.4)"]
    assert main(arguments) == 0
    assert Snapshot.open(tmp_path / "again").manifest.fields["vectors"].options == {"bm25": {"k1": 0.9, "b": 0.4}}
    assert main([*arguments[:-1], "k1=2"]) == 2


def test_a_folder_of_pyserinis_vectors_is_imported(tmp_path):
    (tmp_path / "collection").mkdir()
    for number, word in enumerate(["cat", "dog"]):
        record = {"id": f"d{number}", "content": f"the {word}", "vector": {word: 30, "animal": 10}}
        (tmp_path / "collection" / f"part{number}.jsonl").write_text(json.dumps(record) + "\n")
    assert main(["import", str(tmp_path / "collection"), "--out", str(tmp_path / "index")]) == 0
    found = Retriever.open(tmp_path / "index").search_vectors([{"dog": 1.0}], None, 5)[0]
    assert [(each.doc_id, each.text) for each in found] == [("d1", "the dog")]
