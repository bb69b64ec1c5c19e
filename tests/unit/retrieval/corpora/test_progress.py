import io

from lexmax.retrieval import progress
from lexmax.retrieval.progress import Bar, count_records


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
