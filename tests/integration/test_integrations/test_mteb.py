"""MTEB: its mock tasks, and models from its registry."""

import mteb
import pytest
from mteb.mocks.mock_tasks.reranking import MockRerankingTask
from mteb.mocks.mock_tasks.retrieval import MockMultilingualRetrievalTask, MockRetrievalTask
from mteb.models.models_protocols import SearchProtocol

from lexmax import Retriever
from lexmax.retrieval.integrations.mteb import MODELS, LexmaxSearch, register


@pytest.mark.parametrize("task", [MockRetrievalTask, MockMultilingualRetrievalTask, MockRerankingTask])
def test_mock_tasks_are_evaluated(task):
    model = LexmaxSearch(["bm25"])
    assert isinstance(model, SearchProtocol)
    result = mteb.evaluate(model, task(), cache=None)
    scores = [each["main_score"] for split in result.task_results[0].scores.values() for each in split]
    assert scores
    assert all(0 < score <= 1 for score in scores)


CORPUS = [{"id": "a", "title": "Cats", "text": "purr"}, {"id": "b", "text": "dogs bark"}, {"id": "c", "text": "cats and dogs"}]
QUERIES = [{"id": "1", "text": "dogs"}, {"id": "2", "text": "cats"}]
GIVEN = {"task_metadata": None, "hf_split": "test", "hf_subset": "default", "encode_kwargs": {}, "num_proc": None}


def test_scores_are_the_engines():
    model = LexmaxSearch(["bm25"], name="lexmax/mine")
    with pytest.raises(ValueError, match="index a corpus"):
        model.search(QUERIES, top_k=2, **GIVEN)
    model.index(CORPUS, **GIVEN)
    with Retriever.from_texts(CORPUS, encoders=["bm25"]) as retriever:
        expected = {row["id"]: dict(retriever.rank([row["text"]], 2)[0]) for row in QUERIES}
    assert model.search(QUERIES, top_k=2, **GIVEN) == expected
    chosen = model.search(QUERIES, top_k=2, top_ranked={"1": ["b"], "2": ["b", "c"]}, **GIVEN)
    assert {name: list(found) for name, found in chosen.items()} == {"1": ["b"], "2": ["c"]}
    model.close()


def test_models_come_from_the_registry():
    register()
    for name in MODELS:
        assert mteb.get_model_meta(name).name == name
    model = mteb.get_model("lexmax/bm25")
    assert isinstance(model, LexmaxSearch)
    assert model.mteb_model_meta.name == "lexmax/bm25"
