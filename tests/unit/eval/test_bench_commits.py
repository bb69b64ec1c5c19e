"""`lexmax bench commits`, small: a row per index, and generated documents that hold what they should."""

import json

import numpy as np
import pytest

from lexmax.__main__ import main
from lexmax.eval.bench import commits
from lexmax.eval.bench.commits import CommitBench, measure, run_commit_bench
from lexmax.index.snapshot import Snapshot

SMALL = CommitBench(sizes=(300,), n_added=10, n_commits=3, token_docs=0)


def test_generated_counts():
    vectors = commits._counts(50, np.random.default_rng(0))
    assert len(vectors) == 50
    assert vectors.weights.sum() == 50 * commits.TERMS_PER_DOC
    assert vectors.weights.min() >= 1
    for number in range(50):
        terms, _ = vectors.row(number)
        assert np.all(np.diff(terms) > 0)


@pytest.mark.parametrize("representation", ["sparse", "tokens"])
def test_a_row_and_the_index_that_it_measured(tmp_path, representation):
    row = measure(SMALL, representation, 200, tmp_path)
    assert (row["engine"], row["n_docs"]) == (f"lexmax-{representation}", 200)
    snapshot = Snapshot.open(tmp_path / "index")
    assert snapshot.n_docs == 200 + 2 * 3 * 10
    (part,) = (part for segment in snapshot.manifest.segments for part in segment.parts.values())
    assert row["n_units"] == (part.n_tokens or part.n_postings)
    assert 0 < row["p50_ms"] <= row["p99_ms"]
    assert row["n_segments"] >= 1


def test_the_command_measures_every_size_apart(capsys):
    sizes = ["--sizes", "200", "300", "--added", "5", "--commits", "2", "--token-docs", "0"]
    assert main(["bench", "commits", *sizes, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["n_docs"] for row in report["rows"]] == [200, 300]
    assert report["setup"]["commits"] == 2


def test_markdown_and_failures(monkeypatch):
    with pytest.raises(ValueError, match="at least 1"):
        CommitBench(sizes=())
    row = {"engine": "lexmax-sparse", "n_docs": 1000, "unit": "posting", "p50_ms": 1.0, "p99_ms": 2.0, "reopened_p50_ms": 3.0,
           "n_segments": 4, "n_descriptors": 5, "compact_s": 0.1,
           "merge_bytes_per_unit": None, "merge_private_bytes_per_unit": 2.0}  # fmt: skip
    monkeypatch.setattr(commits, "_measure_apart", lambda *_: row)
    lines = run_commit_bench(SMALL).to_markdown().splitlines()
    assert lines[2] == "| lexmax-sparse | 1,000 | 1.0 | 2.0 | 3.0 | 4 | 5 | 0.10 |  | 2.0 | posting |"
    monkeypatch.undo()
    monkeypatch.setattr(commits, "__name__", "lexmax.no_such_module")
    with pytest.raises(RuntimeError, match="commits into 300 documents could not be measured"):
        run_commit_bench(SMALL)
