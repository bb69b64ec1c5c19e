"""Haystack: its own suites for document stores, sync and async, and the retrievers in pipelines."""

import random

import pytest
from haystack import Document, Pipeline
from haystack.dataclasses import SparseEmbedding
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.errors import FilterError
from haystack.testing import document_store as suites
from haystack.testing import document_store_async as async_suites
from haystack.utils.filters import document_matches_filter

from lexmax import DatasetError, Retriever
from lexmax.retrieval.integrations.haystack import LexmaxDocumentStore
from lexmax.retrieval.integrations.haystack_retrievers import LexmaxEmbeddingRetriever, LexmaxTextRetriever


class _Suite:
    @pytest.fixture
    def document_store(self):
        store = LexmaxDocumentStore(encoders=["bm25"], embedding_dim=768)
        yield store
        store.index.close()

    @staticmethod
    def assert_documents_are_equal(received, expected):
        """Embeddings are kept as 32-bit floats."""
        assert [each.id for each in received] == [each.id for each in expected]
        for found, given in zip(received, expected, strict=True):
            assert (found.content, found.meta) == (given.content, given.meta)
            assert found.embedding == (None if given.embedding is None else pytest.approx(given.embedding, rel=1e-6))


class TestStore(
    _Suite, suites.DocumentStoreBaseExtendedTests, suites.CountDocumentsByFilterTest, suites.CountUniqueMetadataByFilterTest,
    suites.GetMetadataFieldsInfoTest, suites.GetMetadataFieldMinMaxTest, suites.GetMetadataFieldUniqueValuesTest,
):  # fmt: skip
    @staticmethod
    def test_get_metadata_field_unique_values_distinct_types(document_store):
        """A field has one type in the whole index."""
        with pytest.raises(DatasetError, match="'priority' is string here and int64"):
            document_store.write_documents(
                [Document(content="1", meta={"priority": 1}), Document(content="2", meta={"priority": "1"})]
            )

    def test_write_documents(self, document_store):
        documents = [Document(id="1", content="one"), Document(id="2", content="two")]
        assert document_store.write_documents(documents) == 2
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([documents[0]])


class TestAsyncStore(
    _Suite, async_suites.DeleteAllAsyncTest, async_suites.CountDocumentsAsyncTest, async_suites.CountDocumentsByFilterAsyncTest,
    async_suites.DeleteByFilterAsyncTest, async_suites.UpdateByFilterAsyncTest, async_suites.WriteDocumentsAsyncTest,
    async_suites.DeleteDocumentsAsyncTest, async_suites.FilterDocumentsAsyncTest,
    async_suites.CountUniqueMetadataByFilterAsyncTest, async_suites.GetMetadataFieldsInfoAsyncTest,
    async_suites.GetMetadataFieldMinMaxAsyncTest, async_suites.GetMetadataFieldUniqueValuesAsyncTest,
):  # fmt: skip
    @staticmethod
    async def test_get_metadata_field_unique_values_distinct_types_async(document_store):
        with pytest.raises(DatasetError):
            await document_store.write_documents_async(
                [Document(content="1", meta={"priority": 1}), Document(content="2", meta={"priority": True})]
            )

    async def test_write_documents_async(self, document_store):
        assert await document_store.write_documents_async([Document(content="one")]) == 1


@pytest.fixture
def store(tmp_path):
    store = LexmaxDocumentStore(str(tmp_path / "index"), encoders=["bm25"], embedding_dim=2)
    store.write_documents([
        Document(id="a", content="cats purr", meta={"n": 1, "title": "Cats", "day": "2020-01-05"}, embedding=[1.0, 0.0]),
        Document(id="b", content="dogs bark", meta={"n": 2, "title": "Dogs", "day": "2021-01-05"}, embedding=[-1.0, 0.0]),
        Document(id="c", content="cats and dogs", meta={"n": 3}),
    ])  # fmt: skip
    return store


def ids(documents):
    return [each.id for each in documents]


def test_text_retriever_answers_as_the_engine_does(store, tmp_path):
    expected = Retriever.open(tmp_path / "index").search("dogs", 2, search="bm25", filter="n > 1")
    retriever = LexmaxTextRetriever(store, search="bm25", top_k=2)
    found = retriever.run("dogs", filters={"field": "meta.n", "operator": ">", "value": 1})["documents"]
    assert [(each.id, each.score) for each in found] == [(each.doc_id, each.score) for each in expected]
    assert found[0].meta == {"title": "Dogs", "n": 2, "day": "2021-01-05"}
    assert ids(retriever.run("dogs", top_k=1)["documents"]) == ["b"]


def test_embedding_retriever_finds_those_with_embeddings_alone(store):
    assert ids(LexmaxEmbeddingRetriever(store).run([1.0, 0.0])["documents"]) == ["a", "b"]
    both = LexmaxEmbeddingRetriever(store, search="bm25 + embedding", top_k=3)
    assert set(ids(both.run([1.0, 0.0], query="dogs")["documents"])) == {"a", "b", "c"}


def test_filters_are_replaced_or_merged(store):
    first = {"field": "meta.n", "operator": ">", "value": 1}
    second = {"field": "meta.title", "operator": "!=", "value": "Dogs"}
    for policy, expected in (("replace", ["a", "c"]), ("merge", ["c"])):
        retriever = LexmaxTextRetriever(store, search="bm25", filters=first, filter_policy=policy)
        assert sorted(ids(retriever.run("cats dogs", filters=second)["documents"])) == expected


def test_a_pipeline_is_written_and_read(store):
    pipeline = Pipeline()
    pipeline.add_component("text", LexmaxTextRetriever(store, search="bm25", top_k=1))
    pipeline.add_component("embedding", LexmaxEmbeddingRetriever(store, top_k=1))
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["lexmax"])
    found = again.run({"text": {"query": "purr"}, "embedding": {"query_embedding": [-1.0, 0.0]}})
    assert ids(found["text"]["documents"]) == ["a"]
    assert ids(found["embedding"]["documents"]) == ["b"]


VALUES = {
    "meta.n": [1, 2, 3, None], "meta.title": ["Cats", "Dogs", None], "meta.day": ["2020-06-01", "2021-01-05"], "id": ["a"],
}  # fmt: skip


def random_filter(rng, nesting=0):
    if nesting < 2 and rng.random() < 0.5:
        conditions = [random_filter(rng, nesting + 1) for _ in range(rng.randint(1, 3))]
        return {"operator": rng.choice(["AND", "OR", "NOT"]), "conditions": conditions}
    field = rng.choice(list(VALUES))
    ordered = ["<", "<=", ">", ">="] if field in ("meta.n", "meta.day") else []
    operator = rng.choice(["==", "!=", "in", "not in", *ordered])
    values = VALUES[field]
    if operator in ("in", "not in"):
        return {"field": field, "operator": operator, "value": [value for value in values if value is not None][:2]}
    return {"field": field, "operator": operator, "value": rng.choice(values)}


@pytest.mark.parametrize("seed", range(60))
def test_filters_choose_what_haystack_itself_would(store, seed):
    every = store.filter_documents()
    filters = random_filter(random.Random(seed))
    expected = [each.id for each in every if document_matches_filter(filters, each)]
    assert ids(store.filter_documents(filters)) == expected, filters


def test_duplicates_inside_a_batch(store):
    twice = [Document(id="x", content="one"), Document(id="x", content="two")]
    with pytest.raises(DuplicateDocumentError):
        store.write_documents(twice)
    assert store.write_documents(twice, DuplicatePolicy.SKIP) == 1
    assert [each.content for each in store.filter_documents({"field": "id", "operator": "==", "value": "x"})] == ["one"]


def test_bad_input_is_refused(store):
    with pytest.raises(DatasetError, match="no text"):
        store.write_documents([Document(id="x")])
    with pytest.raises(DatasetError, match="no field for it"):
        LexmaxDocumentStore(encoders=["bm25"]).write_documents([Document(id="x", content="text", embedding=[1.0])])
    with pytest.raises(DatasetError, match="no field for it"):
        store.write_documents([Document(id="x", content="text", sparse_embedding=SparseEmbedding([1], [1.0]))])
    with pytest.raises(FilterError, match="one of =="):
        store.filter_documents({"field": "meta.n", "operator": "regex", "value": "a"})
    with pytest.raises(FilterError):
        store.get_metadata_field_unique_values("n", filters={"field": "meta.n"})
    with pytest.raises(TypeError, match="LexmaxDocumentStore"):
        LexmaxTextRetriever("store")
    assert store.count_documents() == 3
