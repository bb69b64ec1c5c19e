"""`lexmax bench fde`, small: every engine that is installed has a row."""

import json

from lexmax.__main__ import main


def test_from_the_command_line(capsys):
    small = ["--docs", "3", "--queries", "2", "--document-tokens", "5", "--dim", "8", "--planes", "2", "--inner-dim", "4"]
    assert main(["bench", "fde", *small, "--repetitions", "2", "--passes", "1", "--json"]) == 0
    rows = {row["engine"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert {"lexmax-simhash", "lexmax-mean", "lexmax-fitted"} <= set(rows)
    for row in rows.values():
        assert row["dim"] == 32
        assert row["document_us"] > 0
        assert row["query_us"] > 0
    assert rows["lexmax-simhash"]["ratio_to_lexmax"] == rows["lexmax-simhash"]["query_ratio_to_lexmax"] == 1
    assert main(["bench", "fde", *small, "--repetitions", "2", "--passes", "1"]) == 0
    assert "| lexmax-simhash | 32 |" in capsys.readouterr().out
    assert main(["bench", "fde", "--docs", "0"]) == 2
    assert main(["bench", "fde", "--planes", "13"]) == 2
    assert "n_planes is 13" in capsys.readouterr().err
