import random
import subprocess
import sys
from importlib import import_module
from math import log2

import numpy as np
import pytest

from lexmax.eval.measures import evaluate, evaluate_queries, paired_randomisation, parse_measure
from lexmax.index.errors import MissingDependencyError

QRELS = {"q": {"a": 3, "b": 1, "c": 2, "zero": 0, "minus": -1}}
RUN = {"q": [("zero", 9.0), ("b", 8.0), ("minus", 7.0), ("x", 6.0), ("a", 5.0)]}
IDEAL = 3 / log2(2) + 2 / log2(3) + 1 / log2(4)


def value(measure, run=RUN, qrels=QRELS):
    return evaluate_queries(qrels, run, [measure])[measure]["q"]


def test_ndcg_has_linear_gain():
    assert value("nDCG@10") == pytest.approx((1 / log2(3) + 3 / log2(6)) / IDEAL)
    assert value("nDCG@3") == pytest.approx((1 / log2(3)) / IDEAL)
    assert value("nDCG@2") == pytest.approx((1 / log2(3)) / (3 / log2(2) + 2 / log2(3)))
    assert value("nDCG") == pytest.approx((1 / log2(3) + 3 / log2(6)) / IDEAL)


def test_mrr_takes_any_judgment_above_zero():
    assert value("MRR@10") == pytest.approx(1 / 2)
    assert value("MRR@1") == 0
    assert value("MRR@10", qrels={"q": {"a": 1, "x": 3}}) == pytest.approx(1 / 4)
    assert value("MRR@10", qrels={"q": {"a": 1}}) == pytest.approx(1 / 5)


def test_recall_precision_and_map():
    assert value("Recall@2") == pytest.approx(1 / 3)
    assert value("Recall@1000") == pytest.approx(2 / 3)
    assert value("P@2") == pytest.approx(1 / 2)
    assert value("P@20") == pytest.approx(2 / 20)
    assert value("MAP") == pytest.approx((1 / 2 + 2 / 5) / 3)
    assert value("MAP@3") == pytest.approx((1 / 2) / 3)


def test_the_order_given_counts_and_not_the_scores():
    tied = {"q": [(doc_id, 1.0) for doc_id in ("x", "y", "a", "z")]}
    assert value("MRR@10", run=tied) == pytest.approx(1 / 3)


def test_means_are_over_queries_with_a_positive_judgment():
    qrels = {"found": {"a": 1}, "missed": {"a": 1}, "absent": {"a": 1}, "none": {"a": 0}, "empty": {}}
    run = {"found": [("a", 1.0)], "missed": [("b", 1.0)], "none": [("a", 1.0)], "stray": [("a", 1.0)]}
    assert evaluate_queries(qrels, run, ["P@1"]) == {"P@1": {"found": 1, "missed": 0, "absent": 0}}
    assert evaluate(qrels, run, ["P@1", "mrr@10"]) == pytest.approx({"P@1": 1 / 3, "mrr@10": 1 / 3})


def test_nothing_found_for_any_query():
    assert evaluate(QRELS, {"q": []}) == {"nDCG@10": 0, "MRR@10": 0, "Recall@100": 0, "Recall@1000": 0}
    assert evaluate(QRELS, {}, ["MAP"]) == {"MAP": 0}


def test_what_cannot_be_evaluated():
    with pytest.raises(ValueError, match="twice for query 'q'"):
        evaluate(QRELS, {"q": [("a", 2.0), ("a", 1.0)]})
    with pytest.raises(ValueError, match="positive judgment"):
        evaluate({"q": {"a": 0}}, RUN)


@pytest.mark.parametrize("name", ["", "nDCG@", "nDCG@0", "nDCG@-1", "nDCG@1.5", "@10", "BLEU@4", "nDCG @10", "P@5@5"])
def test_unknown_measures(name):
    with pytest.raises(ValueError, match="unknown measure"):
        parse_measure(name)


def test_ranx_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ranx", None)
    monkeypatch.delitem(sys.modules, "ranx.metrics", raising=False)
    with pytest.raises(MissingDependencyError, match=r"lexmax\[eval\]"):
        evaluate(QRELS, RUN)


def test_ranx_leaves_the_threading_layer_alone_and_comes_late():
    script = """
import sys
from lexmax.eval import evaluate, measures
assert "ranx" not in sys.modules and "pandas" not in sys.modules
import numba
numba.config.THREADING_LAYER = "forksafe"
n_threads = numba.get_num_threads()
measures._ranx_metrics()
assert "ranx" in sys.modules
assert numba.config.THREADING_LAYER == "forksafe", numba.config.THREADING_LAYER
assert numba.get_num_threads() == n_threads
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_against_trec_eval():
    pytrec_eval = import_module("pytrec_eval")
    draw = random.Random(7)
    doc_ids = [f"d{i}" for i in range(60)]
    qrels, run = {}, {}
    for q in range(40):
        judged = draw.sample(doc_ids, 12)
        qrels[f"q{q}"] = {doc_id: draw.choice([-1, 0, 1, 2, 3]) for doc_id in judged} | {judged[0]: 1}
        ranked = draw.sample(doc_ids, draw.randint(1, 50))
        run[f"q{q}"] = [(doc_id, float(-i)) for i, doc_id in enumerate(ranked)]
    names = {"nDCG@10": "ndcg_cut_10", "nDCG": "ndcg", "MAP": "map", "MRR": "recip_rank",
             "Recall@20": "recall_20", "P@5": "P_5", "MAP@10": "map_cut_10"}  # fmt: skip
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, set(names.values()))
    expected = evaluator.evaluate({q: dict(ranking) for q, ranking in run.items()})
    for ours, theirs in names.items():
        found = evaluate_queries(qrels, run, [ours])[ours]
        assert found == pytest.approx({q: row[theirs] for q, row in expected.items()}), ours


def test_randomisation_of_equal_and_of_different_runs():
    a = {f"q{i}": i / 10 for i in range(10)}
    assert paired_randomisation(a, a) == 1
    better = {q: v + 0.1 for q, v in a.items()}
    # Only all-plus and all-minus, 2 of 2^10 sign vectors, are as large.
    p = paired_randomisation(a, better, n_permutations=20_000)
    assert p == pytest.approx(2 / 2**10, rel=0.5)
    assert paired_randomisation(better, a, n_permutations=20_000) == p
    assert paired_randomisation(a, better, n_permutations=1, seed=3) in (1 / 2, 1)


def test_randomisation_of_one_difference_among_many():
    a = dict.fromkeys("abcdef", 0.5)
    assert paired_randomisation(a, a | {"a": 1.0}) == 1  # its sign does not change how large it is


def test_randomisation_needs_pairs():
    for a, b in (({}, {}), ({"q": 1.0}, {"p": 1.0}), ({"q": 1.0}, {"q": 1.0, "p": 1.0})):
        with pytest.raises(ValueError, match="same queries"):
            paired_randomisation(a, b)
    with pytest.raises(ValueError, match="n_permutations"):
        paired_randomisation({"q": 1.0}, {"q": 0.0}, n_permutations=0)


def test_queries_of_a_run_without_judgments_are_warned_about():
    pytest.importorskip("ranx")
    run = {"q": [("a", 1.0)], "typo": [("a", 1.0)]}
    with pytest.warns(UserWarning, match="1 queries of the run have no judgments, such as 'typo'"):
        assert evaluate_queries({"q": {"a": 1}}, run, ["P@1"]) == {"P@1": {"q": 1.0}}


def test_names_of_ir_measures_are_known_and_mean_the_same() -> None:
    import ir_measures

    random = np.random.default_rng(8)
    qrels = {f"q{q}": {f"d{d}": int(random.integers(0, 3)) for d in range(20)} for q in range(10)}
    run = {q: [(f"d{d}", 1.0 / (rank + 1)) for rank, d in enumerate(random.permutation(30)[:15])] for q in qrels}
    names = ["nDCG@10", "RR@10", "R@5", "R@10", "AP", "AP@10", "P@5"]
    theirs = ir_measures.calc_aggregate(
        [ir_measures.parse_measure(name) for name in names], qrels, {q: dict(ranking) for q, ranking in run.items()}
    )
    expected = {str(measure): value for measure, value in theirs.items()}
    assert evaluate(qrels, run, names) == pytest.approx({name: expected[name] for name in names})
