"""PyTerrier: its test case, pipelines with other transformers, and artifacts."""

import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pyterrier as pt
import pytest

from lexmax import DatasetError, Retriever
from lexmax.retrieval.integrations.pyterrier import LexmaxIndex

DOCUMENTS = [
    {"docno": "a", "title": "Cats", "text": "cats purr and purr", "n": 1},
    {"docno": "b", "text": "dogs bark", "n": 2},
    {"docno": "c", "text": "cats and dogs", "n": 3},
]
QUERIES = pd.DataFrame([["1", "cats purr"], ["2", "dogs"], ["3", "nothing"]], columns=["qid", "query"])


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return LexmaxIndex(tmp_path_factory.mktemp("pyterrier") / "index").indexer(encoders=["bm25"]).index(DOCUMENTS)


@pytest.fixture(autouse=True)
def _for_test_cases(index, monkeypatch):
    monkeypatch.setenv("PT_TEST_TRANSFORMER_REPORTS", "0")
    monkeypatch.setattr(pt.documentation, "url_for_class", lambda _: None)  # which would look on the web


@pytest.mark.parametrize("part", ["retriever", "texts", "loader", "pipeline"])
@pytest.mark.parametrize("check", ["test_inspect_io", "test_schematic"])
def test_pyterriers_own_test_case(index, part, check):
    made = {
        "retriever": lambda: index.retriever(),
        "texts": lambda: index.retriever(texts=True),
        "loader": lambda: index.text_loader(),
        "pipeline": lambda: index.retriever() >> index.text_loader(),
    }
    case = pt.testing.transformer_test_class(made[part])(check)
    type(case).setUpClass()
    getattr(case, check)()
    if part != "pipeline":
        assert pt.inspect.transformer_inputs(case.transformer)


def test_it_answers_as_the_engine_does(index):
    found = index.retriever("bm25", num_results=2)(QUERIES)
    rows = [("1", "cats purr", *each) for each in Retriever.open(index.path).rank(["cats purr"], 2)[0]]
    first = found[found.qid == "1"]
    assert list(first[["qid", "query", "docno", "score"]].itertuples(index=False, name=None)) == rows
    assert list(first["rank"]) == [0, 1]
    assert set(found.qid) == {"1", "2"}
    assert list(index.retriever(filter="n > 2").search("dogs").docno) == ["c"]
    assert list(index.retriever()(QUERIES.head(0)).columns) == ["qid", "query", "docno", "score", "rank"]


def test_pipelines_and_experiments_need_no_java(index):
    texts = index.retriever() >> index.text_loader()
    assert list(texts.search("purr").title) == ["Cats"]
    assert texts.search("dogs").equals(index.retriever(texts=True).search("dogs")[texts.search("dogs").columns])
    qrels = pd.DataFrame([["1", "a", 1], ["2", "b", 1], ["2", "c", 1]], columns=["qid", "docno", "label"])
    both = index.retriever() + index.retriever("bm25")
    table = pt.Experiment([index.retriever(), both], QUERIES, qrels, ["ndcg_cut_10", "recip_rank"])
    assert list(table["ndcg_cut_10"]) == [1.0, 1.0]
    assert "jnius" not in sys.modules or not pt.java.started()


def test_an_artifact_is_packaged_and_loaded(index, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTERRIER_HOME", str(tmp_path))
    package = index.build_package(str(tmp_path / "index.tar.lz4"), verbose=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        again = LexmaxIndex.from_url(f"http://127.0.0.1:{server.server_port}/{Path(package).name}")
        server.shutdown()
    assert list(again.retriever().search("dogs").docno) == list(index.retriever().search("dogs").docno)
    assert LexmaxIndex.load(str(index.path)).engine.info()["n_docs"] == 3


def test_bad_input_is_refused(index, tmp_path):
    with pytest.raises(FileExistsError):
        index.indexer(encoders=["bm25"]).index(DOCUMENTS)
    with pytest.raises(DatasetError):
        LexmaxIndex(tmp_path / "new").indexer(encoders=["bm25"]).index([{"docno": "x", "text": 3}])
    with pytest.raises(pt.validate.InputValidationError):
        index.retriever()(pd.DataFrame([["1"]], columns=["qid"]))
    with pytest.raises(KeyError, match="no document 'x'"):
        index.text_loader()(pd.DataFrame([["x"]], columns=["docno"]))
