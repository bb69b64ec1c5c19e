"""Filters on the command line: exit 0 with results, 1 with none, 2 and one line with a reason."""

import json

import pytest

from lexmax.__main__ import main


@pytest.fixture(scope="module")
def idx(tmp_path_factory):
    folder = tmp_path_factory.mktemp("filters")
    records = [
        {"id": "1", "text": "the sea", "year": 2010, "a-name": 1, "author": {"name": "Ada"}, "tags": ["sea"]},
        {"id": "2", "text": "the sky", "year": 2020, "tags": []},
    ]
    (folder / "c.jsonl").write_text("\n".join(map(json.dumps, records)))
    assert main(["build", str(folder / "c.jsonl"), "--out", str(folder / "idx"), "--encoder", "bm25"]) == 0
    return str(folder / "idx")


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        ("year > 2015", ["2"]),
        ('{"year": {"$gt": 2015}}', ["2"]),
        ("author.name == 'Ada'", ["1"]),
        ("author is None", ["2"]),
        ("'sea' not in tags", ["2"]),
        ('field("a-name") == 1', ["1"]),
        (f"year in {list(range(1000, 101_000))}", ["1", "2"]),
        ("unseen == 3", []),
        ("unseen is None", ["1", "2"]),
    ],
    ids=lambda value: str(value)[:30],
)
def test_filters_are_answered(idx, capsys, filter, found):
    assert main(["list", idx, "--filter", filter]) == (0 if found else 1)
    assert sorted(capsys.readouterr().out.split()) == found


@pytest.mark.parametrize(
    ("filter", "reason"),
    [
        ("year > 2015 AND year < 2020", "write and in lower case"),
        ("year = 2015", "write == for equality"),
        ("year == true", "write True"),
        ("year == null", "write FIELD is None"),
        ("a-name == 1", 'field("a-name")'),
        ("yeer == 1", "did you mean 'year'"),
        ("not " * 2400 + "year == 1", "more than 50 levels"),
        ("year == " + "9" * 400, "beyond 64 bits"),
        (r"text == '\ud800'", "surrogate"),
        ('{"year": NaN}', "NaN is no number in JSON"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_filters_are_refused_with_a_reason(idx, capsys, filter, reason):
    assert main(["search", idx, "sea", "--filter", filter]) == 2
    err = capsys.readouterr().err
    assert reason in err
    assert len(err.splitlines()) == 1
