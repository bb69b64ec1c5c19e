"""LangChain: its own suites, sync and async, and what they do not ask."""

import pickle

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests

from lexmax import DatasetError, EncoderMismatchError, FilterError, RepresentationError, Retriever, build_index
from lexmax.retrieval.integrations.langchain import LexmaxRetriever, LexmaxVectorStore

MANUAL = [
    {"id": "valve-1", "title": "Safety valve", "text": "The safety valve opens at 6 bar.", "metadata": {"year": 2024}},
    {"id": "valve-0", "title": "Safety valve", "text": "The safety valve opens at 4 bar.", "metadata": {"year": 1998}},
    {"id": "pump-1", "title": "Pump", "text": "Prime the pump before the valve is opened.", "metadata": {"year": 2024}},
]


@pytest.fixture(scope="session")
def manual(tmp_path_factory):
    path = tmp_path_factory.mktemp("langchain") / "index"
    build_index(documents=MANUAL, out=path, encoders=["bm25"])
    return path


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _index(self, manual):
        self.path = manual

    @property
    def retriever_constructor(self):
        return LexmaxRetriever

    @property
    def retriever_constructor_params(self):
        return {"index": str(self.path)}

    @property
    def retriever_query_example(self):
        return "safety valve pump"


class TestHybridStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self):
        store = LexmaxVectorStore(self.get_embeddings())
        yield store
        store.store.close()


class TestDenseStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path):
        return LexmaxVectorStore(self.get_embeddings(), tmp_path / "index", search="embedding")


def test_retriever_gives_documents_with_titles_and_scores(manual):
    first = LexmaxRetriever(index=manual, k=1).invoke("safety valve bar", filter={"year": {"$gte": 2020}})[0]
    assert (first.id, first.page_content) == ("valve-1", MANUAL[0]["text"])
    assert first.metadata["title"] == "Safety valve"
    assert first.metadata["year"] == 2024
    assert first.metadata["relevance_score"] > 0


async def test_retriever_answers_as_the_engine_does(manual):
    expected = [each.doc_id for each in Retriever.open(manual).search("valve", 3, filter="year < 2000")]
    retriever = LexmaxRetriever(index=Retriever.open(manual), filter="year < 2000")
    assert [each.id for each in retriever.invoke("valve")] == expected == ["valve-0"]
    assert [each.id for each in await retriever.ainvoke("valve")] == expected


def test_retriever_is_pickled_by_its_path(manual):
    copy = pickle.loads(pickle.dumps(LexmaxRetriever(index=manual, k=1)))  # noqa: S301
    assert [each.id for each in copy.invoke("pump")] == ["pump-1"]


def test_retriever_refuses_what_it_does_not_know(manual):
    with pytest.raises(ValueError, match="serch"):
        LexmaxRetriever(index=manual, serch="bm25")
    with pytest.raises(FilterError, match="unknown operator '\\$regex'"):
        LexmaxRetriever(index=manual).invoke("valve", filter={"year": {"$regex": "2"}})


@pytest.fixture
def store(tmp_path):
    texts = ["cats purr", "dogs bark", "cats and dogs"]
    metadatas = [{"n": 1, "title": "Cats"}, {"n": 2}, {"n": 3}]
    return LexmaxVectorStore.from_texts(
        texts, DeterministicFakeEmbedding(size=8), metadatas, ids=["a", "b", "c"], path=tmp_path / "index"
    )


def test_store_filters_and_searches_by_expression(store):
    found = store.similarity_search("cats", k=3, filter={"$or": [{"n": {"$gt": 2}}, {"title": "Cats"}]}, search="bm25")
    assert {each.id for each in found} == {"a", "c"}
    assert next(each for each in found if each.id == "a").metadata == {"n": 1, "title": "Cats"}
    assert [each.id for each in store.as_retriever(search_kwargs={"k": 1, "filter": "n == 2"}).invoke("cats")] == ["b"]


def test_store_searches_by_vector_and_for_variety(store):
    vector = store.embeddings.embed_documents(["dogs bark"])[0]
    assert store.similarity_search_by_vector(vector, k=1)[0].id == "b"
    assert {each.id for each in store.max_marginal_relevance_search("cats", k=3, fetch_k=3)} == {"a", "b", "c"}
    assert len(store.max_marginal_relevance_search("cats", k=1)) == 1


def test_store_is_opened_again_with_the_same_model_alone(store, tmp_path):
    again = LexmaxVectorStore(DeterministicFakeEmbedding(size=8), tmp_path / "index")
    assert again.similarity_search("dogs bark", k=1) == [Document(id="b", page_content="dogs bark", metadata={"n": 2})]

    class Other(DeterministicFakeEmbedding):
        pass

    with pytest.raises(EncoderMismatchError):
        LexmaxVectorStore(Other(size=8), tmp_path / "index")


def test_store_without_a_model_is_lexical(tmp_path):
    store = LexmaxVectorStore(path=tmp_path / "index", encoders=["bm25"])
    assert store.add_texts(["one cat", "one dog"], ids=["1", "2"]) == ["1", "2"]
    assert [each.id for each in store.similarity_search("cat")] == ["1"]
    with pytest.raises(RepresentationError, match="give the store an embedding model"):
        store.max_marginal_relevance_search("cat")
    assert store.delete()
    assert store.similarity_search("cat") == []


def test_store_refuses_bad_input(store):
    with pytest.raises(DatasetError, match=r"'x'.*cannot be kept"):
        store.add_documents([Document(id="x", page_content="text", metadata={"a": object()})])
    with pytest.raises(ValueError, match="1 documents with 2 ids"):
        store.add_documents([Document(page_content="text")], ids=["1", "2"])
    with pytest.raises(RepresentationError, match="similarity_search_with_score"):
        store.similarity_search_with_relevance_scores("cats")
    assert len(store.store) == 3
