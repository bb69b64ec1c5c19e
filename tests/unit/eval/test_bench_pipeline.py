"""`lexmax bench pipeline`, small: rows, stages of nested expressions, and the candidates that a scoring is timed on."""

import json

import numpy as np
import pytest

from lexmax.__main__ import main
from lexmax.eval.bench import pipeline as bench
from lexmax.eval.bench.pipeline import PipelineBench, run_pipeline_bench
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.build import build_index
from lexmax.retrieval.pipelines.expression import parse
from lexmax.retrieval.pipelines.pipeline import Pipeline
from lexmax.retrieval.searchers.registry import field_searcher


@pytest.mark.parametrize(
    ("search", "stages"),
    [
        ("a", [("a", 10)]),
        ("a:5", [("a", 5)]),
        ("a + b", [("a", 100), ("b", 100)]),
        ("(a + b:50) > b", [("a", 100), ("b", 50)]),
        ("(a > b):20 + b", [("a", 100), ("b", 100)]),
    ],
)
def test_first_stages_have_the_depths_of_the_executor(search, stages):
    assert bench._first_stages(parse(search), 10, top=True) == stages


@pytest.mark.parametrize(
    ("search", "n_candidates"),
    [("a:150 > b", [150]), ("(a + b):30 > a", [30]), ("a > b:20 > 0.5*a + 0.5*b", [20, 20]), ("a > b", [100])],
)
def test_scorings_are_timed_on_what_the_executor_scores(tmp_path, monkeypatch, search, n_candidates):
    generated = PipelineBench(n_docs=2000, n_queries=2)
    asked = bench._generate(generated, tmp_path / "index")
    snapshot, scored = Snapshot.open(tmp_path / "index"), []
    searchers = {name: field_searcher(snapshot.field(name), None) for name in "ab"}
    queries = bench._each({name: searchers[name].vectors(asked[name]) for name in "ab"})
    pipeline = Pipeline(parse(search), searchers)
    stages = {name: asked for name, (_, asked) in bench._stages(pipeline, queries, 10).items() if name.startswith(">")}
    for name, searcher in searchers.items():
        real = searcher.score

        def score(vectors, doc_nums, *, real=real, name=name, **keywords):
            scored.append((name, doc_nums[0]))
            return real(vectors, doc_nums, **keywords)

        monkeypatch.setattr(searcher, "score", score)
    pipeline.run(queries[0], 10)
    assert [name.split()[1] for name in stages] == [name for name, _ in scored]
    for (_, found), timed in zip(scored, stages.values(), strict=True):
        np.testing.assert_array_equal(timed[0][1][0], found)
    sizes = [len(found) for _, found in scored]
    assert sorted(set(sizes)) == sorted(set(n_candidates))


def test_rows_of_a_generated_index():
    report = run_pipeline_bench(PipelineBench(n_docs=500, n_queries=5, ks=(5, 20), n_passes=1))
    assert [row["engine"] for row in report.rows if row["k"] == 5] == [
        "lexmax", "lexmax-stages", "lexmax-a:100", "lexmax-b:100", "lexmax-> a (1)", "lexmax-> b (1)",
    ]  # fmt: skip
    assert {row["k"] for row in report.rows} == {5, 20}
    assert [row["overhead_p50_us"] is not None for row in report.rows[:3]] == [True, False, False]
    assert "| sum of stages |" in report.to_markdown()


def test_an_index_and_a_file_of_queries(tmp_path, capsys):
    build_index(documents=["cats purr", "dogs bark", "cats and dogs"], out=tmp_path / "index", encoders=["bm25"])
    (tmp_path / "queries.txt").write_text("cats\n\nloud dogs\n")
    asked = ["--index", str(tmp_path / "index"), "--queries", str(tmp_path / "queries.txt"), "--passes", "1", "--json"]
    assert main(["bench", "pipeline", *asked]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {"engine", "k", "p50_us", "p99_us", "recall@10"} <= set(report["rows"][0])
    assert (report["setup"]["queries"], report["setup"]["search"]) == (2, "bm25")
    (tmp_path / "queries.txt").write_text("\n")
    assert main(["bench", "pipeline", *asked]) == 2
    assert "there is no query" in capsys.readouterr().err


def test_wrong_settings():
    with pytest.raises(ValueError, match="at least 1"):
        PipelineBench(n_passes=0)
    with pytest.raises(ValueError, match="needs a file of queries"):
        PipelineBench(index="idx")
