"""Feedback on a real collection: simulated users of SciFact, from their clicks over HTTP's log to better answers."""

from pathlib import Path

import numpy as np
import pytest

from lexmax import ClickLog, Impression, Retriever, build_index
from lexmax.eval.datasets import load_dataset
from lexmax.eval.measures import evaluate

SCIFACT = Path(__file__).parents[2] / "eval" / "collections" / "scifact"
N_QUERIES, N_USERS = 60, 300


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    path = tmp_path_factory.mktemp("scifact") / "i"
    build_index(SCIFACT, path, encoders=["bm25"])
    return path


@pytest.fixture(scope="module")
def asked():
    dataset = load_dataset(SCIFACT)
    queries = dict(list(dataset.queries.items())[:N_QUERIES])
    return queries, {query_id: dataset.qrels[query_id] for query_id in queries}


def ndcg(qrels, queries, rankings):
    return evaluate(qrels, dict(zip(queries, rankings, strict=True)), ["nDCG@10"])["nDCG@10"]


def test_answers_get_better_by_clicks_and_better_by_corrected_ones(index, asked, tmp_path):
    queries, qrels = asked
    rng, log = np.random.default_rng(3), ClickLog(tmp_path / "clicks.log", create=True)
    with Retriever.open(index, clicks=log) as retriever:
        shown = retriever.rank(list(queries.values()), 10)
        for (query_id, text), ranking in zip(queries.items(), shown, strict=True):
            doc_ids = [doc_id for doc_id, _ in ranking]
            chances = [(0.9 if qrels[query_id].get(doc_id) else 0.1) / rank for rank, doc_id in enumerate(doc_ids, 1)]
            users = rng.random((N_USERS, len(doc_ids))) < chances
            clicked = [[doc_id for doc_id, one in zip(doc_ids, user, strict=True) if one] for user in users.tolist()]
            retriever.log_clicks([Impression(query=text, shown=doc_ids, clicked=each) for each in clicked])
        texts = list(queries.values())
        plain = ndcg(qrels, queries, shown)
        biased = ndcg(qrels, queries, retriever.rank(texts, 10, feedback={"eta": 0}))
        corrected = ndcg(qrels, queries, retriever.rank(texts, 10, feedback={"eta": 1}))
        before = retriever.rank(texts, 10, feedback=True)
    assert plain + 0.05 < biased < corrected
    log.compact()
    with Retriever.open(index, clicks=log) as retriever:
        again = retriever.rank(texts, 10, feedback=True)
    assert [[doc_id for doc_id, _ in each] for each in again] == [[doc_id for doc_id, _ in each] for each in before]


def test_the_same_question_in_other_words_takes_its_clicks(index, asked, tmp_path):
    queries, qrels = asked
    query_id, text = next((q, t) for q, t in queries.items() if len(t.split()) >= 8)
    answer = next(doc_id for doc_id, level in qrels[query_id].items() if level > 0)
    log = ClickLog(tmp_path / "clicks.log", create=True)
    log.add([Impression(query=text, shown=[answer], clicked=[answer])])
    with Retriever.open(index, clicks=log) as retriever:
        other = " ".join(reversed(text.rstrip(".").split()))
        plain, moved = dict(retriever.rank([other], 1000)[0]), dict(retriever.rank([other], 1000, feedback=True)[0])
        assert next(iter(moved)) == answer
        assert moved[answer] > plain.get(answer, 0)
        unrelated = "weather report of tomorrow"
        assert retriever.rank([unrelated], 10, feedback=True) == retriever.rank([unrelated], 10)
