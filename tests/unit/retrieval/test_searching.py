import numpy as np
import pytest
from token_vectors import clustered, token_vectors

from lexmax import MultiVectorConfig, MultiVectors, RepresentationError, Retriever
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.encoders.precomputed_tokens import TokenVectorsEncoder
from lexmax.retrieval.searchers.maxsim import MaxSimSearcher


@pytest.fixture
def retriever(tmp_path):
    from corpora import documents

    from lexmax import Collection
    from lexmax.retrieval.build import encoder_record

    encoder = TokenVectorsEncoder(dim=32)
    with Collection.create(
        tmp_path / "idx", encoder=encoder_record(encoder), multivector=MultiVectorConfig(dim=32)
    ) as collection:
        collection.add(documents(40), token_vectors(np.random.default_rng(1), [12] * 40, dim=32))
        collection.commit()
    with Retriever.open(tmp_path / "idx") as retriever:
        yield retriever


def test_matrices_in_every_form_find_the_same(retriever):
    matrix = clustered(np.random.default_rng(2), 6, 32)
    wanted = [(r.doc_id, r.score) for r in retriever.search_vectors(MultiVectors.of([matrix], 32), k=5)[0]]
    assert len(wanted) == 5
    for queries in (matrix, [matrix], [matrix.astype(np.float64)]):
        assert [(r.doc_id, r.score) for r in retriever.search_vectors(queries, k=5)[0]] == wanted


@pytest.mark.parametrize("queries", ["text", {"term": 1.0}, [np.zeros(3, np.float32)], 3])
def test_other_queries_are_refused(retriever, queries):
    with pytest.raises(TypeError, match="matrices"):
        retriever.search_vectors(queries)


def test_the_effort_of_sparse_search_is_refused(retriever):
    matrix = clustered(np.random.default_rng(2), 6, 32)
    with pytest.raises(RepresentationError, match="alpha, beta and mu"):
        retriever.search_vectors([matrix], alpha=0.5)


def test_an_explanation_sums_to_the_score_and_names_what_is_known(retriever):
    matrix = clustered(np.random.default_rng(2), 6, 32)
    (result,) = retriever.search_vectors([matrix], ["six words"], k=1, explain=True)[0]
    assert len(result.explanation.tokens) == 6
    assert result.explanation.terms == ()
    assert result.explanation.score == pytest.approx(result.score, abs=0.02)
    assert {match.document_token for match in result.explanation.tokens} == {""}


def test_a_plan_for_another_kind_of_index_is_refused(retriever, tmp_path):
    with pytest.raises(RepresentationError, match="blockmax"):
        Retriever.open(tmp_path / "idx", searcher="blockmax")
    with pytest.raises(ValueError, match="calibrate"):
        Retriever.open(tmp_path / "idx", target_recall=0.9)
    with pytest.raises(ValueError, match="searcher must be"):
        Retriever.open(tmp_path / "idx", searcher="magic")


def test_reranking_orders_candidates_and_leaves_out_strangers(retriever, monkeypatch):
    matrix = clustered(np.random.default_rng(2), 6, 32)
    monkeypatch.setattr(retriever, "encode", lambda texts: MultiVectors.of([matrix] * len(texts), 32))
    best = [(r.doc_id, r.score) for r in retriever.search_vectors([matrix], k=40)[0]]
    candidates = [(doc_id, 0.0) for doc_id, _ in reversed(best[5:15])] + [("stranger", 9.0)]
    assert [doc_id for doc_id, _ in retriever.rerank(["x"], [candidates], k=4)[0]] == [d for d, _ in best[5:9]]
    assert retriever.rerank(["x"], [[]], k=4) == [[]]


def test_torch_multiplies_to_the_same_scores(retriever, tmp_path):
    pytest.importorskip("torch")
    snapshot = Snapshot.open(tmp_path / "idx")
    queries = token_vectors(np.random.default_rng(3), [6, 0, 33], dim=32)
    plain, on_torch = (MaxSimSearcher(snapshot, device=device).search(queries, 7) for device in (None, "cpu"))
    np.testing.assert_array_equal(plain.doc_nums, on_torch.doc_nums)
    np.testing.assert_allclose(plain.scores, on_torch.scores, atol=1e-3)
