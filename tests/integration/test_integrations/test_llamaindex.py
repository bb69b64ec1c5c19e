"""LlamaIndex: the retriever, the vector store behind a VectorStoreIndex, filters against LlamaIndex's own."""

import itertools
import random

import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters, VectorStoreQuery, VectorStoreQueryMode
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from lexmax import DatasetError, FilterError, RepresentationError, Retriever, build_index
from lexmax.retrieval.integrations.llamaindex import LexmaxRetriever, LexmaxVectorStore

DOCUMENTS = [{"id": "a", "title": "Cats", "text": "cats purr", "n": 1}, {"id": "b", "text": "dogs bark", "n": 2}]


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    path = tmp_path_factory.mktemp("llamaindex") / "index"
    build_index(documents=DOCUMENTS, out=path, encoders=["bm25"])
    return path


async def test_retriever_answers_as_the_engine_does(index):
    expected = Retriever.open(index).search("cats dogs", 1, filter="n < 2")[0]
    retriever = LexmaxRetriever(index, k=1, filter={"n": {"<": 2}})
    for found in (retriever.retrieve("cats dogs"), await retriever.aretrieve("cats dogs")):
        assert [(each.node_id, each.score, each.text) for each in found] == [("a", expected.score, "cats purr")]
        assert found[0].metadata == {"title": "Cats", "n": 1}


def node(name, content, embedding, of="doc", **metadata):
    relation = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=of)}
    return TextNode(id_=name, text=content, embedding=embedding, metadata=metadata, relationships=relation)


@pytest.fixture
def store(tmp_path):
    store = LexmaxVectorStore(path=str(tmp_path / "index"))
    store.add([
        node("a", "cats purr", [1.0, 0.0], n=1, title="Cats", tags=["pet"]),
        node("b", "dogs bark", [0.0, 1.0], of="other", n=2, text="mine"),
        node("c", "cats and dogs", [0.6, 0.8], n=3, tags=["pet", "pair"]),
    ])  # fmt: skip
    return store


def ids(store, **query):
    return store.query(VectorStoreQuery(**query)).ids


def test_modes_search_vectors_texts_and_both(store):
    assert ids(store, query_embedding=[1.0, 0.0], similarity_top_k=3) == ["a", "c", "b"]
    assert ids(store, query_str="dogs", mode=VectorStoreQueryMode.TEXT_SEARCH, similarity_top_k=3) == ["b", "c"]
    both = {"query_str": "dogs", "query_embedding": [1.0, 0.0], "similarity_top_k": 2, "mode": VectorStoreQueryMode.HYBRID}
    assert ids(store, **both)[0] == "c"
    assert ids(store, **both, alpha=0.0) == ["b", "c"]
    assert ids(store, **both, alpha=1.0) == ["a", "c"]
    assert set(ids(store, **both, alpha=0.5, hybrid_top_k=3, sparse_top_k=1)) == {"a", "b", "c"}


def test_nodes_come_back_whole(store):
    found = store.query(VectorStoreQuery(query_embedding=[1.0, 0.0], similarity_top_k=1)).nodes[0]
    assert (found.node_id, found.text, found.ref_doc_id) == ("a", "cats purr", "doc")
    assert found.metadata == {"n": 1, "title": "Cats", "tags": ["pet"]}
    assert {each.node_id for each in store.get_nodes(["a", "c", "x"])} == {"a", "c"}


def test_nodes_are_replaced_and_deleted(store):
    store.add([node("a", "birds", [1.0, 0.0], of="other")])
    assert ids(store, query_str="cats", mode=VectorStoreQueryMode.SPARSE, sparse_top_k=5) == ["c"]
    store.delete("other")
    assert [each.node_id for each in store.get_nodes()] == ["c"]
    store.delete_nodes([])
    assert len(store.get_nodes()) == 1
    store.delete_nodes(filters=MetadataFilters(filters=[MetadataFilter(key="n", value=3)]))
    assert store.get_nodes() == []


def test_searches_of_some_nodes_and_documents(store):
    assert ids(store, query_embedding=[1.0, 0.0], node_ids=["b", "c"], similarity_top_k=3) == ["c", "b"]
    assert ids(store, query_embedding=[1.0, 0.0], doc_ids=["other"], similarity_top_k=3) == ["b"]


VALUES = {"n": [1, 2, 3], "text": ["mine", "yours"], "tags": ["pet", "pair", "none"], "absent": [1]}


def random_filter(rng):
    key = rng.choice(["n", "text", "tags", "absent"])
    value = rng.choice(VALUES[key])
    signs = {"n": ["==", "!=", ">", "<=", "in", "nin"], "text": ["==", "!=", "nin"], "tags": ["contains", "any", "all"]}
    sign = rng.choice(signs.get(key, ["==", "!=", "in", "nin"]))
    if sign in ("in", "nin", "any", "all"):
        value = rng.sample(VALUES[key], rng.randint(1, len(VALUES[key])))
    return MetadataFilter(key=key, value=value, operator=sign)


@pytest.mark.parametrize("seed", range(8))
def test_filters_choose_what_llamaindex_itself_would(store, seed):
    rng = random.Random(seed)
    nodes = {each.node_id: each.metadata for each in store.get_nodes()}
    for condition in itertools.islice(itertools.cycle(["and", "or", "not"]), 9):
        filters = MetadataFilters(filters=[random_filter(rng) for _ in range(rng.randint(1, 3))], condition=condition)
        chosen = build_metadata_filter_fn(lambda name: nodes[name], filters)
        expected = {name for name in nodes if chosen(name)}
        assert {each.node_id for each in store.get_nodes(filters=filters)} == expected, filters


def test_nested_filters(store):
    inner = MetadataFilters(filters=[MetadataFilter(key="n", value=1), MetadataFilter(key="n", value=2)], condition="or")
    outer = MetadataFilters(filters=[inner, MetadataFilter(key="n", value=2)], condition="not")
    assert {each.node_id for each in store.get_nodes(filters=outer)} == {"c"}


def test_bad_queries_are_refused(store):
    with pytest.raises(RepresentationError, match="no mode 'svm'"):
        store.query(VectorStoreQuery(query_embedding=[1.0, 0.0], mode=VectorStoreQueryMode.SVM))
    with pytest.raises(RepresentationError, match="no mmr_threshold"):
        store.query(VectorStoreQuery(query_embedding=[1.0, 0.0], mmr_threshold=0.5))
    with pytest.raises(RepresentationError, match="needs an embedding"):
        store.query(VectorStoreQuery(query_str="cats"))
    with pytest.raises(RepresentationError, match="alpha is 2"):
        store.query(VectorStoreQuery(query_str="x", query_embedding=[1.0, 0.0], mode=VectorStoreQueryMode.HYBRID, alpha=2.0))
    with pytest.raises(FilterError, match="no operator 'text_match'"):
        store.get_nodes(filters=MetadataFilters(filters=[MetadataFilter(key="n", value="a", operator="text_match")]))
    with pytest.raises(RepresentationError, match="dim"):
        store.add([node("d", "text", [1.0])])
    with pytest.raises(DatasetError, match="is string here and int64"):
        store.add([node("d", "text", [1.0, 0.0], n="one")])
    assert len(store.get_nodes()) == 3


async def test_it_is_the_store_of_a_vector_store_index(tmp_path):
    store = LexmaxVectorStore(path=str(tmp_path / "index"))
    nodes = [TextNode(id_=name, text=text) for name, text in (("a", "cats purr"), ("b", "dogs bark"))]
    index = VectorStoreIndex(
        nodes, storage_context=StorageContext.from_defaults(vector_store=store), embed_model=MockEmbedding(embed_dim=4)
    )
    retriever = index.as_retriever(vector_store_query_mode="text_search", similarity_top_k=1)
    assert [each.node_id for each in retriever.retrieve("dogs")] == ["b"]
    assert [each.node_id for each in await retriever.aretrieve("dogs")] == ["b"]
    opened = LexmaxVectorStore(path=str(tmp_path / "index"))
    again = VectorStoreIndex.from_vector_store(opened, embed_model=MockEmbedding(embed_dim=4))
    assert len(again.as_retriever(similarity_top_k=5).retrieve("dogs")) == 2
