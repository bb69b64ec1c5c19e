from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lexmax.index.errors import DatasetError
from lexmax.retrieval.training.data import Batches, TrainingSet, best_passage, read_examples

from .conftest import write_lines

PAIRS = [{"query": f"q{i}", "positive": f"p{i}"} for i in range(10)]


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.jsonl.gz"])
def test_examples_by_number_are_those_in_order(tmp_path: Path, name: str) -> None:
    path = write_lines(tmp_path / name, PAIRS)
    data = TrainingSet([path])
    assert [data[i] for i in range(len(data))] == list(read_examples(path))
    assert data[3].query == "q3"
    assert data[3].passages == ["p3"]


def test_blank_lines_count_as_lines_but_not_as_examples(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('\n{"query": "é", "positive": "a"}\n\n{"query": "b", "positive": "c"}\n', encoding="utf-8")
    data = TrainingSet([path])
    assert [data[0].query, data[1].query] == ["é", "b"]
    path.write_text('\n{"query": "a"}\n')
    with pytest.raises(DatasetError, match=r"pairs.jsonl, line 2: .*'positive'"):
        TrainingSet([path])


LIST: dict[str, Any] = {"query": "q", "passages": ["a", "b"]}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([], "an object with a string 'query'"),
        ({"query": "q", "passages": ["a"], "positive": 0}, "two or more"),
        ({**LIST}, "needs 'scores' or 'positive'"),
        ({**LIST, "positive": 2}, "0 to 1, found 2"),
        ({**LIST, "positive": True}, "found True"),
        ({**LIST, "scores": {"t": [1.0]}}, "2 finite numbers"),
        ({**LIST, "scores": {"t": [1.0, float("nan")]}}, "2 finite numbers"),
    ],
)
def test_malformed_records_are_named_by_file_and_line(tmp_path: Path, record: Any, message: str) -> None:
    path = write_lines(tmp_path / "lists.jsonl", [{**LIST, "positive": 1}, record])
    with pytest.raises(DatasetError, match=rf"lists.jsonl, line 2: .*{message}"):
        list(read_examples(path))


def test_triplets_are_lists_whose_first_is_the_positive(tmp_path: Path) -> None:
    records = [{"query": "q", "positive": "p", "negative": "n"}, {"query": "r", "positive": "p", "negative": ["m", "n", "o"]}]
    data = TrainingSet([write_lines(tmp_path / "triplets.jsonl", records)])
    assert [(example.passages, example.positive) for example in (data[0], data[1])] == [
        (["p", "n"], 0),
        (["p", "m", "n", "o"], 0),
    ]
    assert data.n_passages == 2
    assert Batches(data, batch_size=1, n_passages=2, seed=0)[0].passages[0] == "p"
    assert read_examples(write_lines(tmp_path / "again.jsonl", [data[1].record])).__next__() == data[1]
    with pytest.raises(DatasetError, match="do not mix"):
        TrainingSet([write_lines(tmp_path / "mixed.jsonl", [*records, {"query": "q", "positive": "p"}])])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"query": "q", "positive": "p", "negatives": ["n"]}, "unknown field 'negatives'; did you mean 'negative'?"),
        ({"query": "q", "positive": "p", "Negative": "n"}, "unknown field 'Negative'; did you mean 'negative'?"),
        ({"query": "q", "positive": "p", "weight": 2}, "unknown field 'weight'; there are query, positive, negative"),
        ({"query": "q", "passages": ["a", "b"], "positive": 0, "score": {"t": [1, 2]}}, "'score'; did you mean 'scores'?"),
        ({"query": "q", "passages": ["a", "b"], "positive": 0, "negative": "n"}, "unknown field 'negative'"),
        ({"query": "q", "positive": "p", "negative": ["n", 3]}, "'negative' to be a text or a list of texts"),
        ({"query": "q", "positive": "p", "negative": None}, "'negative' to be a text or a list of texts"),
        ({"query": "q", "passages": ["a", "b"], "scores": {"t": [10**400, 1]}}, "line 2"),
        ({"query": "q", "passages": ["a", "b"], "scores": {"t": [True, 1]}}, "2 finite numbers"),
    ],
)
def test_what_would_not_be_learnt_is_an_error(tmp_path: Path, record: Any, message: str) -> None:
    path = write_lines(tmp_path / "lists.jsonl", [{**LIST, "positive": 1}, record])
    with pytest.raises(DatasetError) as caught:
        list(read_examples(path))
    assert "lists.jsonl, line 2" in str(caught.value)
    assert message in str(caught.value)


def test_scores_are_brought_to_one_range_over_the_whole_list(tmp_path: Path) -> None:
    """Not over the drawn passages, of which two would always be 0 and 1."""
    record = {"query": "q", "passages": ["a", "b", "c"], "positive": 0, "scores": {"t": [9.0, 8.0, -1.0], "u": [5.0, 5.0, 5.0]}}
    data = TrainingSet([write_lines(tmp_path / "l.jsonl", [record])])
    seen = set()
    for seed in range(20):
        batch = Batches(data, batch_size=1, n_passages=2, seed=seed)[0]
        assert batch.relative[1].tolist() == [[0, 0]]
        seen.add((tuple(batch.teachers[0, 0].tolist()), tuple(batch.relative[0, 0].tolist())))
    expected = {(9.0, 8.0): (1.0, 0.9), (9.0, -1.0): (1.0, 0.0)}
    assert {raw for raw, _ in seen} == expected.keys()
    for raw, relative in seen:
        assert relative == pytest.approx(expected[raw], abs=1e-6)


def test_files_that_are_missing_cut_or_empty(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such file"):
        TrainingSet([tmp_path / "absent.jsonl"])
    cut = write_lines(tmp_path / "cut.jsonl.gz", PAIRS)
    cut.write_bytes(cut.read_bytes()[:-12])
    with pytest.raises(DatasetError, match="cannot be read on"):
        TrainingSet([cut])
    with pytest.raises(DatasetError, match="no examples"):
        TrainingSet([write_lines(tmp_path / "empty.jsonl", [])])


def test_kinds_and_teachers_do_not_mix(tmp_path: Path, lists: Path) -> None:
    pairs = write_lines(tmp_path / "pairs.jsonl", PAIRS)
    with pytest.raises(DatasetError, match="do not mix"):
        TrainingSet([lists, pairs])


def test_an_epoch_has_every_example_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    data = TrainingSet([write_lines(tmp_path / "pairs.jsonl", PAIRS)])
    batches = Batches(data, batch_size=5, n_passages=1, seed=3)
    epochs = [batches[2 * e].queries + batches[2 * e + 1].queries for e in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == [f"q{i}" for i in range(10)]
    assert epochs[0] != epochs[1]
    assert Batches(data, batch_size=5, n_passages=1, seed=3)[3].queries == batches[3].queries
    assert Batches(data, batch_size=5, n_passages=1, seed=4)[0].queries != batches[0].queries


def test_the_positive_comes_first_and_scores_follow_their_passages(lists: Path) -> None:
    data = TrainingSet([lists])
    batch = Batches(data, batch_size=12, n_passages=2, seed=0)[0]
    by_query = {data[i].query: data[i] for i in range(12)}
    assert data.teachers == ("cross", "dense")
    seen = set()
    for i, query in enumerate(batch.queries):
        example, own = by_query[query], batch.passages[2 * i : 2 * i + 2]
        assert own[0] == example.passages[0]
        numbers = [example.passages.index(passage) for passage in own]
        seen.add(numbers[1])
        for teacher, scores in zip(data.teachers, batch.teachers[:, i], strict=True):
            assert scores.tolist() == pytest.approx([example.scores[teacher][n] for n in numbers])
    assert seen == {1, 2}  # negatives are drawn


def test_copies_of_a_positive_are_no_negatives(tmp_path: Path) -> None:
    records = [("a", "x"), ("b", "x"), ("a", "y"), ("c", "z")]
    data = TrainingSet([write_lines(tmp_path / "p.jsonl", [{"query": q, "positive": p} for q, p in records])])
    batch = Batches(data, batch_size=4, n_passages=1, seed=0)[0]
    at = {pair: i for i, pair in enumerate(zip(batch.queries, batch.passages, strict=True))}
    expected = np.zeros((4, 4), bool)
    for row, column in [("ax", "bx"), ("ax", "ay"), ("bx", "ax"), ("ay", "ax"), ("ay", "bx")]:
        expected[at[(row[0], row[1])], at[(column[0], column[1])]] = True
    np.testing.assert_array_equal(batch.excluded, expected)


def test_without_a_positive_the_teachers_choose(tmp_path: Path) -> None:
    record = {"query": "q", "passages": ["a", "b", "c"], "scores": {"s": [0.0, 0.9, 1.0], "t": [0, 100, 10]}}
    (example,) = read_examples(write_lines(tmp_path / "l.jsonl", [record]))
    assert example.positive is None
    assert best_passage(example) == 1


def test_sizes_that_the_data_cannot_serve(lists: Path) -> None:
    data = TrainingSet([lists])
    with pytest.raises(ValueError, match="batch_size is 13: it must be 1 to 12"):
        Batches(data, batch_size=13, n_passages=2, seed=0)
    with pytest.raises(ValueError, match="n_passages is 4: it must be 1 to 3"):
        Batches(data, batch_size=2, n_passages=4, seed=0)
