"""`lexmax bench nets`, small: the exhaustive search is its own truth, walks score fewer documents."""

import json

from lexmax.__main__ import main
from lexmax.eval.bench.nets import EXHAUSTIVE, FLAT, GRAPH, NetBench, run_net_bench


def test_walks_score_fewer_documents_than_there_are():
    report = run_net_bench(NetBench(n_docs=2000, sizes=(16, 8), n_queries=4, n_passes=1, n_neighbours=8, n_candidates=32))
    rows = {row["engine"]: row for row in report.rows}
    assert list(rows) == [EXHAUSTIVE, FLAT, GRAPH]
    assert (rows[EXHAUSTIVE]["recall@10"], rows[FLAT]["recall@10"]) == (1, None)
    assert rows[GRAPH]["recall@10"] > 0.5
    assert rows[GRAPH]["n_scored"] < 2000 == rows[EXHAUSTIVE]["n_scored"]
    assert rows[EXHAUSTIVE]["multiplications"] == 2000 * (16 * 8 + 8 + 8)
    assert rows[EXHAUSTIVE]["ratio_to_exhaustive"] == 1
    assert all(row["p99_us"] >= row["p50_us"] > 0 for row in rows.values())
    assert "| lexmax (graph) | 10 |" in report.to_markdown()


def test_from_the_command_line(capsys):
    arguments = ["bench", "nets", "--docs", "50", "--sizes", "4", "4", "3", "--queries", "2", "--k", "3", "--passes", "1"]
    assert main([*arguments, "--neighbours", "0", "--json"]) == 0
    assert [row["engine"] for row in json.loads(capsys.readouterr().out)["rows"]] == [EXHAUSTIVE, FLAT]
    for wrong in (["--docs", "0"], ["--sizes", "4"], ["--sizes", "4", "3", "3"]):
        assert main(["bench", "nets", *wrong]) == 2
        assert "lexmax: " in capsys.readouterr().err
