import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexmax.eval.runs import read_qrels, read_run, write_qrels, write_run
from lexmax.index.errors import DatasetError

IDS = st.text(min_size=1).filter(lambda text: text.split() == [text] and text[0] != "\ufeff")
SCORES = st.floats(allow_nan=False, allow_infinity=False)
RUNS = st.dictionaries(IDS, st.dictionaries(IDS, SCORES, min_size=1))


@given(RUNS)
def test_a_run_comes_back(tmp_path_factory, scores):
    run = {q: sorted(row.items(), key=lambda pair: -pair[1]) for q, row in scores.items()}
    path = tmp_path_factory.mktemp("runs") / "run.trec"
    write_run(path, run, tag="bm25:0123")
    assert read_run(path) == run


@given(st.dictionaries(IDS, st.dictionaries(IDS, st.integers(-2, 5), min_size=1)))
def test_qrels_come_back(tmp_path_factory, qrels):
    path = tmp_path_factory.mktemp("qrels") / "qrels.trec"
    write_qrels(path, qrels)
    assert read_qrels(path) == qrels


def test_the_form_of_a_run_file(tmp_path):
    path = tmp_path / "run.trec"
    write_run(path, {"q1": [("d2", 3.5), ("d1", 1)], "q2": []}, tag="bm25:ab")
    assert path.read_bytes() == b"q1 Q0 d2 1 3.5 bm25:ab\nq1 Q0 d1 2 1.0 bm25:ab\n"


def test_scores_order_a_foreign_run_and_ranks_part_ties(tmp_path):
    path = tmp_path / "run.trec"
    path.write_text("q Q0 low 1 1 t\nq Q0 tied2 3 2.0 t\n\nq\tQ0  tied1 2 2 t\n")
    assert read_run(path) == {"q": [("tied1", 2.0), ("tied2", 2.0), ("low", 1.0)]}


def test_what_a_trec_file_cannot_carry(tmp_path):
    path = tmp_path / "run.trec"
    for tag in ("", "two words"):
        with pytest.raises(ValueError, match="one word"):
            write_run(path, {}, tag=tag)
    for run in ({"q 1": []}, {"q": [("d 1", 1.0)]}, {"q": [("", 1.0)]}):
        with pytest.raises(DatasetError, match="white space"):
            write_run(path, run, tag="t")
    with pytest.raises(DatasetError, match="white space"):
        write_qrels(path, {"q": {"d\t1": 1}})
    assert not path.exists()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"q Q0 d2 2 1.0", "6 fields are expected, found 5"),
        (b"q Q0 d2 2 high t", "must be numbers"),
        (b"q Q0 d2 first 1.0 t", "must be numbers"),
        (b"q Q0 d2 2 nan t", "finite"),
        (b"q Q0 d1 2 1.0 t", "ranked twice"),
        (b"q Q0 \xff 2 1.0 t", "not UTF-8"),
    ],
)
def test_malformed_run(tmp_path, line, reason):
    path = tmp_path / "run.trec"
    path.write_bytes(b"q Q0 d1 1 2.0 t\n" + line + b"\n")
    with pytest.raises(DatasetError, match=f"run.trec, line 2: .*{reason}"):
        read_run(path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [("q 0 d2", "4 columns"), ("q 0 d2 1.5", "must be an integer"), ("q 0 d1 2", "judged 2, and 1 before")],
)
def test_malformed_qrels(tmp_path, line, reason):
    path = tmp_path / "qrels.trec"
    path.write_text(f"q 0 d1 1\nq 0 d1 1\n{line}\n")
    with pytest.raises(DatasetError, match=f"line 3: .*{reason}"):
        read_qrels(path)


def test_missing_file(tmp_path):
    with pytest.raises(DatasetError, match="no such file"):
        read_run(tmp_path / "none.trec")
