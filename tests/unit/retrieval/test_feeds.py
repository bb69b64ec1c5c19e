"""Feeds of other engines: what they hold gives lexmax's scores; Qdrant's own client ranks as lexmax does."""

import json
from dataclasses import replace

import numpy as np
import pytest
from several_fields import Fields

from lexmax import RepresentationError, Retriever, SparseVectors, import_vectors
from lexmax.__main__ import main
from lexmax.index.collection import Collection
from lexmax.retrieval.encoders.precomputed import DenseVectorsEncoder, TokenVectorsEncoder, VectorsEncoder
from lexmax.retrieval.exchange.feeds import export_feed
from lexmax.retrieval.fields import encoder_record

ENCODERS = {
    "bm25": VectorsEncoder(terms="strings"), "splade": VectorsEncoder(), "colbert": TokenVectorsEncoder(dim=32),
    "dense": DenseVectorsEncoder(dim=24),
}  # fmt: skip
NAMES = list(ENCODERS)
QUERY = SparseVectors(np.array([0, 3]), np.array([1, 5, 9], np.int32), np.array([1.0, 2.0, 0.5], np.float32))


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """120 documents, one of them deleted."""
    path, made = tmp_path_factory.mktemp("feeds") / "index", Fields()
    new = {name: replace(made.new[name], encoder=encoder_record(ENCODERS[name])) for name in NAMES}
    with Collection.create(path, new, search="splade") as collection:
        collection.add(*made.batch(*range(120), names=NAMES))
        collection.commit()
        collection.delete(["d7"])
        collection.commit()
    return path


def feed(index, tmp_path, form, **options):
    assert export_feed(index, tmp_path / "feed", form, **options) == 119
    return [json.loads(line) for line in (tmp_path / "feed").read_text().splitlines()]


def ranking(index, queries, k=10):
    return [(each.doc_id, each.score) for each in Retriever.open(index).search_vectors(queries, None, k)[0]]


def products(vectors):
    """Inner products of the query with rows by names of terms."""
    query = list(zip(map(str, QUERY.terms.tolist()), QUERY.weights.tolist(), strict=True))
    return {name: sum(weight * row.get(term, 0.0) for term, weight in query) for name, row in vectors.items()}


@pytest.mark.parametrize("form", ["elasticsearch", "opensearch", "vespa", "jsonl"])
def test_inner_products_of_sparse_vectors_are_the_scores(index, tmp_path, form):
    records = feed(index, tmp_path, form, fields=["splade"], name="mine")
    if form == "vespa":
        assert {each["put"].rpartition("::")[0] for each in records} == {"id:mine:mine"}
        vectors = {each["fields"]["doc_id"]: each["fields"]["splade"]["cells"] for each in records}
    elif form == "jsonl":
        vectors = {each["id"]: each["vector"] for each in records}
    else:
        actions, documents = records[::2], records[1::2]
        assert {each["index"]["_index"] for each in actions} == {"mine"}
        vectors = {action["index"]["_id"]: each["splade"] for action, each in zip(actions, documents, strict=True)}
    assert "d7" not in vectors
    expected = ranking(index, QUERY, 20)
    found = products(vectors)
    assert [score for _, score in expected] == pytest.approx([found[name] for name, _ in expected], rel=0.02)
    assert min(score for _, score in expected) * 1.02 >= max([found[n] for n in found if n not in dict(expected)], default=0)


def test_qdrant_ranks_as_lexmax_does(index, tmp_path):
    from qdrant_client import QdrantClient, models

    points = [models.PointStruct(**each) for each in feed(index, tmp_path, "qdrant")]
    client = QdrantClient(":memory:")
    most = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    client.create_collection(
        "mine",
        vectors_config={
            "dense": models.VectorParams(size=24, distance=models.Distance.DOT),
            "colbert": models.VectorParams(size=32, distance=models.Distance.DOT, multivector_config=most),
        },
        sparse_vectors_config={"splade": models.SparseVectorParams()},
    )
    client.upsert("mine", points)

    def found(query, using):
        answers = client.query_points("mine", query=query, using=using, limit=10).points
        return [(each.payload["doc_id"], each.score) for each in answers]

    sparse = found(models.SparseVector(indices=QUERY.terms.tolist(), values=QUERY.weights.tolist()), "splade")
    expected = ranking(index, QUERY)
    assert [score for _, score in sparse] == pytest.approx([score for _, score in expected], rel=0.02)
    vector = np.random.default_rng(3).normal(size=24).astype(np.float32)
    dense = Retriever.open(index, search="dense").search_vectors(vector[None], None, 10)[0]
    assert found(vector.tolist(), "dense") == [(each.doc_id, pytest.approx(each.score, rel=1e-3)) for each in dense]


def test_documents_and_metadata_go_along(index, tmp_path):
    document = Retriever.open(index).document("d3")
    payload = next(each["payload"] for each in feed(index, tmp_path, "qdrant") if each["payload"]["doc_id"] == "d3")
    assert payload == {"doc_id": "d3", "title": document.title, "text": document.text, "metadata": dict(document.metadata)}
    first = feed(index, tmp_path, "elasticsearch", fields=["splade", "dense"])[1]
    assert len(first["dense"]) == 24
    blocks = feed(index, tmp_path, "vespa", fields=["colbert"])[0]["fields"]["colbert"]["blocks"]
    assert all(len(token) == 32 for token in blocks.values())


def test_a_file_of_vectors_is_imported_again(index, tmp_path, capsys):
    assert main(["export", str(index), str(tmp_path / "vectors.jsonl"), "--format", "jsonl", "--field", "splade"]) == 0
    import_vectors([tmp_path / "vectors.jsonl"], tmp_path / "again", term_numbers=True)
    assert ranking(tmp_path / "again", QUERY) == [
        (name, pytest.approx(score, rel=0.02)) for name, score in ranking(index, QUERY)
    ]


def test_fields_that_other_engines_do_not_take_are_refused(index, tmp_path):
    with pytest.raises(RepresentationError, match="'bm25' is bm25"):
        export_feed(index, tmp_path / "feed", "qdrant", fields=["bm25"])
    with pytest.raises(RepresentationError, match="elasticsearch takes no token vectors"):
        export_feed(index, tmp_path / "feed", "elasticsearch", fields=["colbert"])
    with pytest.raises(RepresentationError, match="jsonl takes no token vectors"):
        export_feed(index, tmp_path / "feed", "jsonl")
    with pytest.raises(ValueError, match="no feed 'csv'"):
        export_feed(index, tmp_path / "feed", "csv")
    assert not list(tmp_path.iterdir())


def test_dots_in_terms_are_replaced(tmp_path):
    lines = [{"id": "a", "vector": {"3.5": 1.0, "v": 2.0}}]
    (tmp_path / "v.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    import_vectors([tmp_path / "v.jsonl"], tmp_path / "index")
    export_feed(tmp_path / "index", tmp_path / "feed", "elasticsearch")
    document = json.loads((tmp_path / "feed").read_text().splitlines()[1])
    assert document["vectors"] == {"3__5": pytest.approx(1, rel=0.01), "v": pytest.approx(2, rel=0.01)}
