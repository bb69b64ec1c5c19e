"""The command ``feedback``, and ``search --feedback``."""

import json

import pytest

from lexmax.__main__ import main
from lexmax.retrieval.feedback.log import ClickLog

EVENTS = [
    {"query": "red", "shown": ["2", "0"], "clicked": ["2"]},
    {"query": "red", "shown": ["2"], "first_rank": 11},
    {"query": "blue", "shown": ["0", "2"], "clicked": ["0", "2"]},
]


@pytest.fixture
def place(tmp_path, capsys):
    """A folder with an index, impressions and their log."""
    corpus, events = tmp_path / "c.jsonl", tmp_path / "e.jsonl"
    texts = ["red apple", "green pear", "blue plum", "red cherry"]
    corpus.write_text("".join(json.dumps({"_id": str(i), "text": text}) + "\n" for i, text in enumerate(texts)))
    events.write_text("".join(json.dumps(each) + "\n" for each in EVENTS))
    assert main(["build", str(corpus), "--out", str(tmp_path / "i"), "--encoder", "bm25"]) == 0
    assert main(["feedback", "add", str(tmp_path / "clicks.log"), str(events)]) == 0
    assert "logged 3 impressions" in capsys.readouterr().err
    return tmp_path


def test_searches_are_moved(place, capsys):
    index, log = str(place / "i"), str(place / "clicks.log")
    assert main(["search", index, "red", "--feedback", log, "--json", "--explain"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {each["doc_id"] for each in found} == {"0", "2", "3"}
    assert found[0]["explanation"]["stages"][0]["fields"][0]["measure"] == "query moved by 1 clicks on it"
    assert main(["search", index, "red", "--feedback", log, "--rocchio", "alpha=0", "--rocchio", "eta=0.5", "--explain"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split()[2] == "2"
    assert "query moved by 1 clicks on it" in out
    queries = place / "q.txt"
    queries.write_text("red\n")
    assert main(["search", index, "--queries", str(queries), "--feedback", log, "--rocchio", "alpha=0"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["doc_id"] == "2"


def test_what_a_log_holds(place, capsys):
    log = str(place / "clicks.log")
    assert main(["feedback", "info", log, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    n_bytes = (place / "clicks.log").stat().st_size
    assert facts == {
        "n_queries": 2, "n_impressions": 3, "n_clicks": 3, "clicks_by_rank": {"1": 1.0, "2": 0.5, "11": 0.0}, "n_bytes": n_bytes
    }  # fmt: skip
    assert main(["feedback", "info", log]) == 0
    assert "n_impressions                  3\n" in capsys.readouterr().out
    assert main(["feedback", "export", log]) == 0
    exported = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert exported[0]["query"] == "red"
    assert exported[0]["n_times"] == 2
    assert {"doc_id": "2", "rank": 11, "shown": 1, "clicked": 0} in exported[0]["documents"]
    before = {query: record.counts for query, record in ClickLog(log).read().queries.items()}
    assert main(["feedback", "compact", log]) == 0
    assert "compacted" in capsys.readouterr().err
    assert {query: record.counts for query, record in ClickLog(log).read().queries.items()} == before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"query": "q"}', "e.jsonl, line 2: no 'shown'"),
        ('{"query": "q", "shown": ["a"], "click": []}', "line 2: an unknown key 'click': there are query, shown, clicked"),
        ('{"query": "q", "shown": ["a"], "clicked": ["b"]}', "line 2: a click on 'b', which was not shown"),
        ('{"query": "q", "shown": "a"}', "line 2: shown are a sequence of strings"),
        ("[]", "line 2"),
        ("{", "line 2"),
    ],
)
def test_a_wrong_impression_is_named_and_nothing_is_logged(line, message, tmp_path, capsys):
    events = tmp_path / "e.jsonl"
    events.write_text(json.dumps(EVENTS[0]) + "\n" + line + "\n")
    assert main(["feedback", "add", str(tmp_path / "clicks.log"), str(events)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "clicks.log").exists()


def test_wrong_usage_is_told_in_one_line(place, capsys):
    index, log, other = str(place / "i"), str(place / "clicks.log"), str(place / "no.log")
    for arguments, message in (
        (["feedback", "add", log], "write `lexmax feedback add LOG FILE...`"),
        (["feedback", "info", log, "x"], "write `lexmax feedback add LOG FILE...`"),
        (["feedback", "compact", log, "--json"], "write `lexmax feedback add LOG FILE...`"),
        (["feedback", "info", other], "there is no click log here: `lexmax feedback add LOG FILE`"),
        (["feedback", "info", str(place / "c.jsonl")], "expected a click log, found another file"),
        (["feedback", "add", log, str(place / "none.jsonl")], "no such file"),
        (["feedback", "add", log, str(place / "clicks.log")], "impressions are JSON lines"),
        (["search", index, "red", "--feedback", other], "there is no click log here"),
        (["search", index, "red", "--rocchio", "eta=1"], "--rocchio goes with --feedback LOG"),
        (["search", index, "red", "--feedback", log, "--rocchio", "eta"], "--rocchio takes NAME=VALUE"),
        (["search", index, "red", "--feedback", log, "--rocchio", "eta=x"], "option eta is 'x': it must be a number"),
        (["search", index, "red", "--feedback", log, "--rocchio", "eta=1", "--rocchio", "eta=2"], "--rocchio gives eta twice"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
