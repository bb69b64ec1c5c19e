import json
from types import SimpleNamespace

import numpy as np
import pytest

from lexmax.eval.datasets import Dataset
from lexmax.eval.evaluate import evaluate_index
from lexmax.eval.measures import paired_randomisation
from lexmax.eval.runs import read_run, write_run

DATASET = Dataset(
    name="tiny/test",
    queries={"q1": "cats", "d2": "dogs"},
    qrels={"q1": {"d1": 1}, "d2": {"d1": 1}},
)


class FakeRetriever:
    """Answers each text from a table and writes down what it was asked."""

    fingerprint = "fake:0123456789abcdef"

    def __init__(self, doc_ids=("d1", "d2", "d3")):
        self.asked = []
        numbers = {doc_id: number for number, doc_id in enumerate(doc_ids)}
        self.snapshot = SimpleNamespace(find=lambda wanted: np.array([numbers.get(doc_id, -1) for doc_id in wanted]))

    def rank(self, texts, k, *, filter=None):
        self.asked.append((list(texts), k))
        answers = {"cats": [("d1", 2.0), ("d3", 1.0)], "dogs": [("d2", 9.0), ("d3", 2.0), ("d1", 1.0)]}
        return [answers[text][:k] for text in texts]

    def info(self):
        return {"n_documents": 3, "segments": [{"n_documents": 3}]}


def test_every_query_alone_after_a_warm_up_and_one_deeper():
    retriever, done = FakeRetriever(), []
    evaluate_index(retriever, DATASET, k=10, measures=["P@1"], progress=done.append)
    assert retriever.asked == [(["cats"], 11), (["cats"], 11), (["dogs"], 11)]
    assert done == [1, 2]


def test_a_query_does_not_find_itself():
    report = evaluate_index(FakeRetriever(), DATASET, k=1, measures=["MRR@1"])
    assert report.run == {"q1": [("d1", 2.0)], "d2": [("d3", 2.0)]}
    assert report.measures == {"MRR@1": (1 + 0) / 2}
    assert report.per_query == {"MRR@1": {"q1": 1, "d2": 0}}
    deeper = evaluate_index(FakeRetriever(), DATASET, k=2, measures=["MRR@2"])
    assert deeper.per_query == {"MRR@2": {"q1": 1, "d2": 1 / 2}}


def test_a_query_finds_itself_where_that_is_judged():
    dataset = Dataset(name="faq/test", queries=DATASET.queries, qrels={"q1": {"d1": 1}, "d2": {"d1": 1, "d2": 2}})
    assert evaluate_index(FakeRetriever(), dataset, k=1, measures=["MRR@1"]).run["d2"] == [("d2", 9.0)]


def test_report():
    report = evaluate_index(FakeRetriever(), DATASET)
    summary = json.loads(json.dumps(report.to_json()))
    assert list(summary) == ["dataset", "n_queries", "n_judged", "n_missing", "warning", "measures", "latency_ms", "index"]
    assert (summary["dataset"], summary["n_queries"]) == ("tiny/test", 2)
    assert list(summary["measures"]) == ["nDCG@10", "MRR@10", "Recall@100", "Recall@1000"]
    assert summary["measures"]["MRR@10"] == (1 + 1 / 2) / 2
    assert list(summary["latency_ms"]) == ["p50", "p95", "p99"]
    assert summary["index"]["n_documents"] == 3

    header, aligns, row, blank, *facts = report.to_markdown().splitlines()
    assert header.startswith("| dataset | queries | nDCG@10 | MRR@10 |")
    assert row.startswith("| tiny/test | 2 | ")
    assert " | 0.7500 | 1.0000 | 1.0000 | " in row
    assert header.count("|") == aligns.count("|") == row.count("|")
    assert (blank, facts) == ("", ["- n_documents: 3", "- encoder: fake:0123456789abcdef"])


def test_judged_documents_that_the_index_lacks_are_counted():
    dataset = Dataset(name="tiny/test", queries=DATASET.queries, qrels={"q1": {"d1": 1, "d9": 2, "d8": 0}, "d2": {"d1": 1}})
    whole, part, none = (evaluate_index(FakeRetriever(ids), dataset) for ids in (("d1", "d9"), ("d1",), ("x",)))
    assert (whole.n_judged, whole.n_missing, whole.warning) == (2, 0, None)
    assert part.n_missing == 1
    assert part.warning.startswith("1 of the 2 documents judged relevant in tiny/test are not in the index")
    assert none.warning.startswith("none of the 2 documents judged relevant in tiny/test is in the index")
    assert none.to_markdown().startswith("**Warning:** none of the 2 documents")
    assert (none.to_json()["warning"], whole.to_json()["warning"]) == (none.warning, None)
    assert "Warning" not in whole.to_markdown()


def test_the_run_goes_through_a_trec_file(tmp_path):
    report = evaluate_index(FakeRetriever(), DATASET, measures=["MAP"])
    write_run(tmp_path / "run.trec", report.run, tag=report.fingerprint)
    assert read_run(tmp_path / "run.trec") == report.run
    assert paired_randomisation(report.per_query["MAP"], report.per_query["MAP"]) == 1


def test_wrong_arguments_are_told_before_a_query_is_asked():
    retriever = FakeRetriever()
    for k, measures, reason in (
        (0, ["MAP"], "k must be at least 1"),
        (100, ["MAP", "Recall@1000"], "Recall@1000 looks deeper than the 100"),
        (10, ["BLEU"], "unknown measure"),
    ):
        with pytest.raises(ValueError, match=reason):
            evaluate_index(retriever, DATASET, k=k, measures=measures)
    with pytest.raises(ValueError, match="no queries"):
        evaluate_index(retriever, Dataset(name="none", queries={}, qrels={}))
    assert retriever.asked == []
