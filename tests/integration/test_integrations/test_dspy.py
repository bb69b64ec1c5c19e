"""DSPy: the retriever in a program, and behind dspy.Retrieve."""

import dspy
import pytest
from dspy.utils import DummyLM

from lexmax import Retriever, build_index
from lexmax.retrieval.integrations.dspy import LexmaxRetriever, LexmaxRM


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    path = tmp_path_factory.mktemp("dspy") / "index"
    documents = [{"id": "a", "text": "cats purr", "n": 1}, {"id": "b", "text": "dogs bark", "n": 2}]
    build_index(documents=documents, out=path, encoders=["bm25"])
    return path


async def test_it_answers_as_the_engine_does(index):
    expected = Retriever.open(index).search("dogs cats", 2)
    retriever = LexmaxRetriever(index, k=2)
    for found in (retriever("dogs cats"), await retriever.aforward("dogs cats")):
        assert found.passages == [each.text for each in expected]
        assert list(zip(found.doc_ids, found.scores, strict=True)) == [(each.doc_id, each.score) for each in expected]
    assert retriever("dogs cats", k=1).doc_ids == [expected[0].doc_id]
    assert LexmaxRetriever(index, filter="n > 1")("dogs cats").doc_ids == ["b"]


def test_a_program_answers_from_passages(index):
    class Rag(dspy.Module):
        def __init__(self):
            super().__init__()
            self.retrieve, self.answer = LexmaxRetriever(index, k=1), dspy.Predict("context, question -> answer")

        def forward(self, question):
            return self.answer(context=self.retrieve(question).passages, question=question)

    lm = DummyLM([{"answer": "dogs"}])
    with dspy.context(lm=lm):
        assert Rag()("who barks? dogs").answer == "dogs"
    assert "dogs bark" in lm.history[0]["messages"][-1]["content"]


def test_it_is_the_rm_of_dspy_retrieve(index):
    with dspy.context(rm=LexmaxRM(index)):
        assert dspy.Retrieve(k=1)("cats").passages == ["cats purr"]
