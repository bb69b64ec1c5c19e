"""The comparison of reranking from disk with the same from memory."""

import pytest

from lexmax.eval.bench.ssd import SsdBench, run_ssd_bench


@pytest.mark.parametrize("nbits", [8, 2])
def test_rows_and_table(tmp_path, nbits):
    said = []
    bench = SsdBench(
        n_docs=400, n_queries=3, widths=(4, 14), dim=32, nbits=nbits, n_candidates=(50,), places=["pread"], n_clients=(2,),
        n_passes=1, work=str(tmp_path),
    )  # fmt: skip
    for _ in range(2):
        report = run_ssd_bench(bench, said.append)
    assert "taking the index from" in said[-2]
    assert [row["place"] for row in report.rows] == ["memory", "pread"]
    memory, pread = report.rows
    assert memory["ratio"] == 1
    assert memory["reads_per_candidate"] == memory["bytes_ratio"] == 0
    assert 0 < pread["reads_per_candidate"] <= 1 <= pread["bytes_ratio"]
    assert 0 < pread["p50_ms"] <= pread["p90_ms"] <= pread["p99_ms"]
    assert pread["queries_per_s"]["2"] > 0
    text = report.to_markdown()
    assert "| 50 | pread |" in text
    assert "directory: 16." in text


@pytest.mark.parametrize(
    ("given", "message"), [({"n_queries": 0}, "at least 1"), ({"places": ["tape"]}, "unknown place 'tape'")]
)
def test_wrong_settings_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        SsdBench(**given)
