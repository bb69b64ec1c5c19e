"""The command line as a user types it."""

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lexmax.__main__ import main

SCIFACT = Path(__file__).parents[2] / "eval" / "collections" / "scifact"
RECORDS = [
    {"_id": "a", "title": "Cats", "text": "cats purr", "year": 2001},
    {"_id": "b", "title": "Dogs", "text": "dogs bark at cats", "year": 2010},
    {"_id": "c", "text": "birds sing", "year": 2020},
]


@pytest.fixture
def idx(tmp_path, capsys):
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(r) + "\n" for r in RECORDS))
    assert main(["build", str(tmp_path / "c.jsonl"), "--out", str(tmp_path / "idx")]) == 0
    assert "3 documents" in capsys.readouterr().err
    return str(tmp_path / "idx")


def out(capsys):
    return capsys.readouterr().out


def test_search_prints_a_table_or_json(idx, capsys):
    assert main(["search", idx, "cats", "-k", "1"]) == 0
    assert re.match(r"  1\. +0\.\d{4}  a  Cats\n     cats purr\n$", out(capsys))
    assert main(["search", idx, "cats", "--json"]) == 0
    rows = [json.loads(line) for line in out(capsys).splitlines()]
    assert [row["doc_id"] for row in rows] == ["a", "b"]
    assert rows[0]["metadata"] == {"year": 2001}
    assert main(["search", idx, "cats", "--filter", "year > 2005", "--json"]) == 0
    assert json.loads(out(capsys))["doc_id"] == "b"


def test_explain_shows_parts_that_sum_to_the_score(idx, capsys):
    main(["search", idx, "cats bark", "--explain", "--json"])
    for line in out(capsys).splitlines():
        row = json.loads(line)
        assert sum(t["score"] for t in row["explanation"]["terms"]) == pytest.approx(row["score"])
    main(["search", idx, "cats bark", "--explain"])
    assert re.search(r"\d\.\d+  = \d\.\d+ x \d\.\d+  bark", out(capsys))


def test_nothing_found_is_one(idx, capsys):
    assert main(["search", idx, "zebra"]) == 1
    assert capsys.readouterr() == ("", "nothing found\n")


def test_add_delete_compact_info_check(idx, tmp_path, capsys):
    (tmp_path / "more.tsv").write_text("d\tmore cats\n")
    assert main(["add", idx, str(tmp_path / "more.tsv")]) == 0
    assert main(["add", idx, str(tmp_path / "more.tsv")]) == 2
    assert "already in the index: 'd'" in capsys.readouterr().err
    assert main(["add", idx, str(tmp_path / "more.tsv"), "--replace"]) == 0
    assert "1 replaced" in capsys.readouterr().err
    assert main(["delete", idx, "a", "nope"]) == 1
    assert "not in the index: nope" in capsys.readouterr().err
    main(["info", idx, "--json"])
    info = json.loads(out(capsys))
    assert (info["n_docs"], info["n_deleted"], len(info["segments"])) == (3, 2, 3)
    assert info["segments"][0]["quantisation_error"]["relative"] < 0.01
    assert main(["compact", idx]) == 0
    main(["info", idx])
    assert re.search(r"n_deleted +0\n", out(capsys))
    assert main(["check", idx]) == 0
    file = next(Path(idx).rglob("inverted.lex"))
    content = bytearray(file.read_bytes())
    content[-300] ^= 1
    file.write_bytes(content)
    capsys.readouterr()
    assert main(["check", idx]) == 1
    assert "inverted.lex" in out(capsys)
    assert main(["search", idx, "cats"]) == 2
    assert "damaged" in capsys.readouterr().err


def test_standard_input_gzip_and_chosen_fields(tmp_path):
    with gzip.open(tmp_path / "c.jsonl.gz", "wt") as file:
        file.write('{"key": "x", "head": "Heading", "body": "some body", "n": 1, "m": 2}\n')
    fields = ["--id-field", "key", "--title-field", "head", "--text-field", "body", "--metadata-field", "n"]
    assert main(["build", str(tmp_path / "c.jsonl.gz"), "--out", str(tmp_path / "i"), *fields]) == 0
    got = subprocess.run(
        [sys.executable, "-m", "lexmax", "search", str(tmp_path / "i"), "heading", "--json"],
        check=True,
        capture_output=True,
    )
    row = json.loads(got.stdout)
    assert (row["title"], row["text"], row["metadata"]) == ("Heading", "some body", {"n": 1})
    line = b'{"_id": "1", "text": "from a pipe"}\n'
    subprocess.run(
        [sys.executable, "-m", "lexmax", "build", "-", "--out", str(tmp_path / "j")],
        input=line,
        check=True,
        capture_output=True,
    )
    assert main(["search", str(tmp_path / "j"), "pipe"]) == 0


def test_bad_records_are_an_error_or_a_list(tmp_path, capsys):
    path = tmp_path / "c.jsonl"
    path.write_text('{"_id": "a", "text": "x"}\n{"_id": \n{"_id": "a", "text": "again"}\n')
    assert main(["build", str(path), "--out", str(tmp_path / "i")]) == 2
    assert "c.jsonl, line 2" in capsys.readouterr().err
    assert main(["build", str(path), "--out", str(tmp_path / "i"), "--skip-bad"]) == 0
    err = capsys.readouterr().err
    assert "skipped 2 bad records" in err
    assert "line 2" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "{tmp}/none", "x"], "lexmax build CORPUS --out"),
        (["build", "{tmp}/none.jsonl", "--out", "{tmp}/i"], "none.jsonl"),
        (["build", "{idx}/manifest.json", "--out", "{idx}"], "index already"),
        (["search", "{idx}", "x", "--filter", "colour == 1"], "unknown field 'colour'"),
        (["search", "{idx}", "x", "-k", "0"], "k must be at least 1"),
        (["build", "x.jsonl", "--out", "i", "--encoder", "splade"], "needs a model"),
        (["build", "x.jsonl", "--out", "i", "--set", "k1"], "NAME=VALUE"),
        (["eval", "{tmp}", "--index", "{idx}"], "{tmp}"),
    ],
)
def test_errors_say_what_where_and_what_to_do(idx, tmp_path, capsys, arguments, message):
    def fill(text):
        return text.replace("{idx}", idx).replace("{tmp}", str(tmp_path))

    assert main([fill(argument) for argument in arguments]) == 2
    err = capsys.readouterr().err
    assert fill(message) in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "command", ["build", "import", "export", "add", "delete", "search", "info", "check", "compact", "serve", "eval"]
)
def test_every_command_has_help_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"example:\n  lexmax {command} " in out(capsys)


def test_scifact_has_the_published_bm25_quality(tmp_path, capsys):
    assert main(["build", str(SCIFACT), "--out", str(tmp_path / "i")]) == 0
    capsys.readouterr()
    run = tmp_path / "run.trec"
    assert main(["eval", str(SCIFACT), "--index", str(tmp_path / "i"), "--json", "--run-out", str(run)]) == 0
    report = json.loads(out(capsys))
    assert report["n_queries"] == 300
    assert 0.66 <= report["measures"]["nDCG@10"] <= 0.69
    assert set(report["latency_ms"]) == {"p50", "p95", "p99"}
    line = run.read_text().split("\n", 1)[0].split()
    assert len(line) == 6
    assert line[5].startswith("bm25:")
