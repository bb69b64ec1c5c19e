"""`lexmax bench encode`, small: which rows there are, and what the shared pass is compared with."""

import json

import pytest

from lexmax.__main__ import main
from lexmax.eval.bench.encoding import EncodeBench, run_encode_bench
from lexmax.index.errors import DatasetError


@pytest.fixture
def folder(tmp_path):
    for name in ("corpus", "queries"):
        lines = [json.dumps({"_id": str(i), "text": f"a short text about number {i}"}) for i in range(4)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    return tmp_path


def test_rows_are_encoders_alone_and_all_in_one_pass(folder):
    encoders = ("bm25", "lexmax-splade", "tokens=lexmax-colbert")
    report = run_encode_bench(EncodeBench(encoders=encoders, precisions=("int8",), folder=folder, n_queries=2, n_rounds=1))
    rows = {row["engine"]: row for row in report.to_json()["rows"]}
    assert list(rows) == ["lexmax bm25", "lexmax splade, int8", "lexmax tokens, int8", "lexmax one pass, int8"]
    assert (report.setup["passages"], report.setup["queries"]) == (4, 2)
    together = rows.pop("lexmax one pass, int8")
    assert all(row["ratio_to_dearest"] is None and row["p99_us"] >= row["p50_us"] > 0 for row in rows.values())
    slowest = min(row["passages_per_s"] for row in rows.values())
    assert together["ratio_to_dearest"] == pytest.approx(slowest / together["passages_per_s"], rel=0.2)  # rates are rounded
    assert "one pass | int8" in report.to_markdown()


def test_without_models_there_is_nothing_to_share(folder, capsys):
    assert main(["bench", "encode", "--encoder", "bm25", "--dataset", str(folder), "--rounds", "1", "--json"]) == 0
    assert [row["engine"] for row in json.loads(capsys.readouterr().out)["rows"]] == ["lexmax bm25"]


def test_what_cannot_be_timed_is_refused(folder, tmp_path, capsys):
    with pytest.raises(ValueError, match="one name"):
        run_encode_bench(EncodeBench(encoders=("bm25", "bm25"), folder=folder))
    with pytest.raises(DatasetError, match="--dataset"):
        run_encode_bench(EncodeBench(folder=tmp_path / "nothing"))
    with pytest.raises(ValueError, match="at least 1"):
        EncodeBench(n_rounds=0)
    assert main(["bench", "encode", "--dataset", str(tmp_path / "nothing")]) == 2
    assert "no such folder" in capsys.readouterr().err
