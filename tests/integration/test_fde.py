"""End to end on a part of SciFact with the shipped ColBERT: built in one pass, added from stored vectors, searched."""

import gzip
import json
from pathlib import Path

import pytest

from lexmax import Retriever
from lexmax.__main__ import main
from lexmax.index.check import check_index

SCIFACT = Path(__file__).parents[2] / "eval" / "collections" / "scifact" / "corpus.jsonl.gz"
N_DOCS = 16
SETTINGS = "of=colbert,n_cells=8,n_samples=1000"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    with gzip.open(SCIFACT, "rt") as lines:
        records = [json.loads(next(lines)) for _ in range(N_DOCS)]
    path = tmp_path_factory.mktemp("scifact") / "corpus.jsonl"
    path.write_text("".join(json.dumps({**each, "text": each["text"][:300]}) + "\n" for each in records))
    return path, records


def test_encodings_of_a_trained_model(corpus, tmp_path, capsys):
    path, records = corpus
    index = str(tmp_path / "i")
    expression = "fde:8 > colbert"
    build = ["build", str(path), "--out", index, "--encoder", "colbert=lexmax-colbert,document_length=64"]
    assert main([*build, "--encoder", f"fde=muvera,{SETTINGS}", "--search", expression]) == 0
    assert main(["field", "add", index, f"added=muvera,{SETTINGS}"]) == 0
    assert f"{N_DOCS} documents were encoded" in capsys.readouterr().err
    assert main(["check", index]) == 0
    assert check_index(index) == []
    with Retriever.open(index) as retriever:
        titles = [each["title"] for each in records[:6]]
        for search in (None, "added:8 > colbert"):
            found = retriever.search_batch(titles, 1, search=search)
            assert [results[0].doc_id for results in found] == [each["_id"] for each in records[:6]]
        exact, estimated = (retriever.rank(titles, k, search=each) for k, each in ((1, "colbert"), (4, "fde")))
        for best, candidates in zip(exact, estimated, strict=True):
            assert best[0][0] in [doc_id for doc_id, _ in candidates]
        capsys.readouterr()
    assert main(["search", index, titles[2], "-k", "1", "--explain"]) == 0
    shown = capsys.readouterr().out
    assert "fde:8: rank" in shown
    assert "inner product of fixed dimensional encodings, an estimate of MaxSim" in shown
