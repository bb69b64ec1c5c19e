"""The models that come with lexmax: there, small, loadable, and of use."""

import json
from pathlib import Path

import numpy as np
import pytest

from lexmax import Retriever, load_encoder
from lexmax.__main__ import main
from lexmax.retrieval.encoders.dense import load_dense_encoder
from lexmax.retrieval.models import DEFAULT_MODEL, SHIPPED, shipped_folder, shipped_names

DOCUMENTS = {
    "heart": "Low levels of 25-hydroxyvitamin D were associated with a higher risk of cardiovascular mortality.",
    "python": "def read_rows(path): with open(path) as f: return list(csv.reader(f))",
    "coral": "Bleaching of reefs follows when the sea warms and polyps expel their algae.",
    "wing": "The boundary layer over a swept aerofoil becomes turbulent at high Reynolds numbers.",
    "moon": "Apollo 11 landed the first humans on the lunar surface in July 1969.",
}
QUERIES = {
    "does sunshine vitamin protect the heart": "heart",
    "load a csv file in python": "python",
    "why do corals lose their colour": "coral",
    "air flow over the wings of a plane": "wing",
    "who walked on the moon first": "moon",
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "c.jsonl"
    path.write_text("".join(json.dumps({"_id": i, "title": "", "text": text}) + "\n" for i, text in DOCUMENTS.items()))
    return path


def test_what_is_named_is_there_and_small():
    assert DEFAULT_MODEL in shipped_names()
    assert set(shipped_names()) == set(SHIPPED)
    folder = shipped_folder(DEFAULT_MODEL).parent
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 60e6
    for name in shipped_names():
        assert (shipped_folder(name) / "README.md").is_file()


@pytest.mark.parametrize("model", ["lexmax-splade", "lexmax-inference-free", "lexmax-colbert"])
def test_a_shipped_model_finds_what_is_meant(corpus, tmp_path, model):
    assert main(["build", str(corpus), "--out", str(tmp_path / "i"), "--model", model]) == 0
    with Retriever.open(tmp_path / "i") as retriever:
        assert {
            query: hits[0].doc_id for query, hits in zip(QUERIES, retriever.search_batch(list(QUERIES), k=3), strict=True)
        } == QUERIES


def test_the_shipped_dense_baseline_finds_what_is_meant():
    encoder = load_dense_encoder("lexmax-dense")
    scores = encoder.encode_queries(list(QUERIES)) @ encoder.encode_documents(list(DOCUMENTS.values())).T
    assert [list(DOCUMENTS)[best] for best in scores.argmax(1)] == list(QUERIES.values())


def test_documents_of_the_two_sparse_models_are_the_same():
    one, other = (
        load_encoder(model=name).encode_documents(list(DOCUMENTS.values()))
        for name in ("lexmax-splade", "lexmax-inference-free")
    )
    assert np.array_equal(one.terms, other.terms)
    assert np.array_equal(one.weights, other.weights)


def test_build_takes_the_default_and_says_so(corpus, tmp_path, capsys):
    assert main(["build", str(corpus), "--out", str(tmp_path / "i")]) == 0
    assert f"encoding with {DEFAULT_MODEL}" in capsys.readouterr().err
    assert main(["info", str(tmp_path / "i"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["encoder"]["settings"]["model"] == DEFAULT_MODEL
