"""The comparison of reranking from disk with the same from memory."""

from dataclasses import replace

import pytest

from lexmax import StorageError
from lexmax.eval.bench.memory_cap import memory_cap
from lexmax.eval.bench.ssd import SsdBench, plot_ssd, run_ssd_bench


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
    with pytest.raises(ValueError, match="name another folder"):
        run_ssd_bench(replace(bench, n_docs=500))
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


def test_a_memory_cap_holds_for_what_reads_or_the_report_is_refused(tmp_path):
    cap = 900_000_000
    try:
        with memory_cap(cap) as group:
            assert cap - 4096 < int(next(group.glob("memory.limit_in_bytes"), group / "memory.max").read_text()) <= cap
    except StorageError as failure:
        pytest.skip(f"{failure}")
    assert not group.exists()
    bench = SsdBench(
        n_docs=300, n_queries=2, widths=(4, 9), dim=32, n_candidates=(20,), places=["pread"], n_clients=(1,), n_passes=1,
        memory_cap=cap, work=str(tmp_path),
    )  # fmt: skip
    report = run_ssd_bench(bench)
    assert report.setup["memory cap"].startswith("900,000,000 bytes")
    picture = tmp_path / "ssd.png"
    plot_ssd(report, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_cap_that_cannot_be_made_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr("lexmax.eval.bench.memory_cap._GROUPS", tmp_path / "none")
    with pytest.raises(StorageError, match="no memory group can be made"), memory_cap(1 << 30):
        pass
    with memory_cap(None) as group:
        assert group is None


def test_a_process_that_the_cap_ends_is_told(tmp_path):
    tokens = SsdBench(n_docs=300, n_queries=1, widths=(4, 9), dim=32, n_candidates=(20,), places=["pread"], n_clients=(1,))
    run_ssd_bench(replace(tokens, work=str(tmp_path)))
    try:
        with memory_cap(1 << 30):
            pass
    except StorageError as failure:
        pytest.skip(f"{failure}")
    with pytest.raises(StorageError, match="the memory cap is too low"):
        run_ssd_bench(replace(tokens, work=str(tmp_path), memory_cap=20_000_000))
