"""Bootstrap intervals against their theory; pictures of eval and the suite."""

import json

import numpy as np
import pytest

from lexmax.__main__ import main
from lexmax.eval.pictures import interval, plot_systems


def test_an_interval_is_the_means_standard_error_wide():
    values = np.random.default_rng(1).normal(0.5, 0.2, 400)
    low, high = interval([values])
    error = values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=error / 8)


def test_collections_count_alike_in_their_mean():
    random = np.random.default_rng(2)
    many, few = random.normal(0.2, 0.1, 2000), random.normal(0.8, 0.3, 50)
    low, high = interval([many, few])
    error = np.sqrt((many.std() / np.sqrt(2000)) ** 2 + (few.std() / np.sqrt(50)) ** 2) / 2
    assert (low + high) / 2 == pytest.approx((many.mean() + few.mean()) / 2, abs=error / 4)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_equal_values_have_no_width_and_none_no_interval():
    assert interval([[0.5, 0.5]]) == (0.5, 0.5)
    for values in ([], [[]], [[0.1], []]):
        with pytest.raises(ValueError, match="collections with queries"):
            interval(values)


def test_systems_on_several_collections_have_a_panel_each_and_a_mean(tmp_path):
    values = {name: {str(i): i / 10 for i in range(10)} for name in ("one", "two")}
    plot_systems({"bm25": values, "bm25 + splade": values}, tmp_path / "picture.svg", measure="nDCG@10")
    text = (tmp_path / "picture.svg").read_text()
    assert text.count('id="axes_') == 3


@pytest.fixture
def collection(tmp_path):
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    documents = [{"_id": str(i), "text": f"word{i} word{i % 3}"} for i in range(6)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(each) + "\n" for each in documents))
    (folder / "queries.jsonl").write_text("".join(json.dumps({"_id": f"q{i}", "text": f"word{i}"}) + "\n" for i in range(3)))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(f"q{i}\t{i}\t1\n" for i in range(3)))
    return folder


def test_eval_draws_measures_and_the_suite_systems(collection, tmp_path, capsys):
    index = str(tmp_path / "index")
    assert main(["build", str(collection), "--out", index, "--encoder", "bm25"]) == 0
    assert main(["eval", str(collection), "--index", index, "--plot", str(tmp_path / "one.png")]) == 0
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    suite = ["eval", "--suite", str(collection), "--work", str(tmp_path / "work"), "--encoder", "bm25", "--search", "bm25"]
    assert main([*suite, "--plot", str(tmp_path / "many.svg")]) == 0
    assert "drew" in capsys.readouterr().err
    assert (tmp_path / "many.svg").read_text().count('id="axes_') == 1
    assert main(["eval", str(collection), "--index", index, "--plot", "one.txt"]) == 2
