import io

from lexmax.retrieval import progress
from lexmax.retrieval.progress import Bar, count_records, shown_rate


def test_counts(tmp_path):
    (tmp_path / "c.csv").write_text('id,text\n1,"a\nb"\n2,c')
    (tmp_path / "c.jsonl").write_text("{}\n{}")
    (tmp_path / "c.json").write_text(" [{}]")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("a")
    (tmp_path / "bad.parquet").write_text("a")
    counts = {name: count_records(tmp_path / name) for name in ("c.csv", "c.jsonl", "c.json", "notes", "bad.parquet")}
    assert counts == {"c.csv": 2, "c.jsonl": 2, "c.json": None, "notes": 1, "bad.parquet": None}
    assert count_records([tmp_path / "c.csv", str(tmp_path / "notes")]) == 3


def test_rate_begins_with_the_first_call(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    bar = Bar(stream, "documents", 20_000)
    now[0] = 110.0
    bar(4_096)
    assert "/s" not in stream.getvalue()
    now[0] = 112.0
    bar(8_096)
    assert "2,000/s  0:05 left" in stream.getvalue()


def test_a_slow_rate_is_not_zero():
    assert [shown_rate(rate) for rate in (20_000.4, 10.0, 9.96, 0.42, 0.0123)] == [
        "20,000/s",
        "10/s",
        "10/s",
        "0.42/s",
        "0.012/s",
    ]


def test_a_resumed_job_counts_what_it_did_itself(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = Bar(io.StringIO(), "documents", 1_000)
    bar(900)
    now[0] = 5.0
    bar(910)
    assert bar.line(910, 5.0).endswith("910 documents  2/s  0:45 left")
