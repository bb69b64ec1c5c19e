from pathlib import Path

import pytest

from lexmax.retrieval.build import build_index
from lexmax.retrieval.retriever import Retriever
from lexmax.retrieval.training.augment import round_trip
from lexmax.retrieval.training.data import read_examples
from lexmax.retrieval.training.mining import mine_negatives, write_corpus

from .conftest import write_lines

TOPICS = ["solar panels", "snow storms", "river floods", "mountain rescue"]
PAIRS = [
    {"query": f"{topic} {word}", "positive": f"{topic} in  {word}: a report about {topic}"}
    for topic in TOPICS
    for word in ("spring", "summer", "autumn", "winter")
]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "pairs.jsonl.gz", [*PAIRS, {**PAIRS[0], "positive": PAIRS[1]["positive"]}])


@pytest.fixture
def retriever(pairs: Path, tmp_path: Path) -> Retriever:
    assert write_corpus([pairs], tmp_path / "corpus.jsonl") == len(PAIRS)
    build_index([str(tmp_path / "corpus.jsonl")], tmp_path / "index", encoders=["bm25"])
    return Retriever.open(tmp_path / "index")


def test_negatives_are_near_and_are_no_positives_of_the_query(pairs: Path, retriever: Retriever, tmp_path: Path) -> None:
    done: list[int] = []
    report = mine_negatives(pairs, retriever, tmp_path / "lists.jsonl", n_negatives=2, depth=8, progress=done.append)
    lists = list(read_examples(tmp_path / "lists.jsonl"))
    assert (report.n_written, report.n_short, done[-1]) == (17, 0, 17)
    assert [example.query for example in lists] == [*(pair["query"] for pair in PAIRS), PAIRS[0]["query"]]
    for example, pair in zip(lists, PAIRS, strict=False):
        assert example.positive == 0
        assert example.passages[0] == pair["positive"]
        assert pair["positive"] not in example.passages[1:]
        assert len(set(example.passages)) == 3
        words = set(pair["query"].split())
        assert all(words & set(passage.replace(":", "").split()) for passage in example.passages)
    twice = [example for example in lists if example.query == PAIRS[0]["query"]]
    assert all(pair["positive"] not in example.passages[1:] for example in twice for pair in PAIRS[:2])


def test_mining_is_decided_by_the_seed(pairs: Path, retriever: Retriever, tmp_path: Path) -> None:
    texts = []
    for seed, name in ((0, "a"), (0, "b"), (1, "c")):
        mine_negatives(pairs, retriever, tmp_path / name, n_negatives=1, depth=7, seed=seed)
        texts.append((tmp_path / name).read_text())
    assert texts[0] == texts[1] != texts[2]


def test_queries_with_too_few_negatives_are_counted(pairs: Path, retriever: Retriever, tmp_path: Path) -> None:
    report = mine_negatives(pairs, retriever, tmp_path / "lists.jsonl", n_negatives=8, depth=16)
    assert report.n_short == 17  # a query meets 3 of its topic and 3 of its season
    assert report.n_written == 0
    with pytest.raises(ValueError, match="depth at least skip"):
        mine_negatives(pairs, retriever, tmp_path / "lists.jsonl", n_negatives=3, depth=4, skip=2)


def test_skip_leaves_out_the_first_ranks(pairs: Path, retriever: Retriever, tmp_path: Path) -> None:
    mine_negatives(pairs, retriever, tmp_path / "lists.jsonl", n_negatives=1, depth=3, skip=2)
    for example in read_examples(tmp_path / "lists.jsonl"):
        third = retriever.search(example.query, 3)[2].text
        assert example.passages[1:] == [third]


def test_round_trip_keeps_what_is_found_again(retriever: Retriever, tmp_path: Path) -> None:
    vague = {"query": "solar panels", "positive": PAIRS[3]["positive"]}
    path = write_lines(tmp_path / "generated.jsonl", [PAIRS[5], vague, PAIRS[9]])
    report = round_trip(path, retriever, tmp_path / "kept.jsonl")
    kept = list(read_examples(tmp_path / "kept.jsonl"))
    assert (report.n_read, report.n_kept) == (3, 2)
    assert [example.query for example in kept] == [PAIRS[5]["query"], PAIRS[9]["query"]]
    assert round_trip(path, retriever, tmp_path / "kept.jsonl", k=4).n_kept == 3
    with pytest.raises(ValueError, match="k is 0"):
        round_trip(path, retriever, tmp_path / "kept.jsonl", k=0)
