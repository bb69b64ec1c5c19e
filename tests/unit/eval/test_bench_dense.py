"""`lexmax bench dense`, small: both engines find what the oracle finds."""

import json

import pytest

from lexmax.__main__ import main
from lexmax.eval.bench.dense import DenseBench, run_dense_bench


@pytest.mark.parametrize("keep", ["float16", "float32"])
def test_both_engines_answer_from_the_same_vectors(keep):
    report = run_dense_bench(DenseBench(n_docs=3000, dim=16, n_queries=4, ks=(5, 20), n_passes=1, storage={"keep": keep}))
    assert [(row["engine"], row["k"]) for row in report.rows] == [(name, k) for k in (5, 20) for name in ("lexmax", "faiss")]
    for row in report.rows:
        assert row["recall@10"] >= (1 if row["engine"] == "lexmax" else 0.95)
        assert row["recall@k"] >= (1 if row["engine"] == "lexmax" else 0.95)
        assert row["p99_us"] >= row["p50_us"] > 0
        assert (row["ratio_to_faiss"] is None) == (row["engine"] == "faiss")
    assert "| 5 | lexmax |" in report.to_markdown()


def test_from_the_command_line(capsys):
    arguments = ["bench", "dense", "--docs", "50", "--dim", "4", "--queries", "2", "--k", "3", "--passes", "1", "--json"]
    assert main(arguments) == 0
    assert {row["engine"] for row in json.loads(capsys.readouterr().out)["rows"]} == {"lexmax", "faiss"}
    assert main(["bench", "dense", "--docs", "0"]) == 2
    assert "at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("storage", [
    {"structure": "ivf", "n_lists": 16}, {"structure": "ivf", "n_lists": 8, "quantise": "int8"},
    {"quantise": "pq", "pq_bytes": 8}, {"structure": "hnsw"},
], ids=str)  # fmt: skip
def test_both_engines_have_the_same_structure_and_codes(storage):
    report = run_dense_bench(DenseBench(n_docs=3000, dim=16, n_queries=4, ks=(5,), n_passes=1, storage=storage))
    assert [row["engine"] for row in report.rows] == ["lexmax", "faiss"]
    assert min(row["recall@k"] for row in report.rows) >= 0.5
    assert storage.items() <= report.setup.items()


def test_settings_from_the_command_line(capsys):
    arguments = ["bench", "dense", "--docs", "200", "--dim", "4", "--queries", "2", "--k", "3", "--passes", "1"]
    assert main([*arguments, "--field", "structure=ivf", "--field", "n_lists=2", "--option", "n_probe=1"]) == 0
    assert "- n_probe: 1" in capsys.readouterr().out
    assert main([*arguments, "--field", "structures=ivf"]) == 2
    assert "structures" in capsys.readouterr().err
