"""Field searchers of every representation: the registry, options, query vectors, explanations."""

from dataclasses import asdict

import numpy as np
import pytest
from corpora import ENCODER, make_field, random_vectors, write_index
from dense_vectors import dense_vectors, new_dense_field
from net_queries import new_net_field, random_nets
from sparse_token_vectors import SLIM_ENCODER, make_slim_field, sparse_tokens
from token_vectors import TOKEN_ENCODER, clustered, make_token_field, token_vectors

from lexmax import MultiVectorConfig, MultiVectors, RepresentationError, SparseVectors
from lexmax.index.collection import NewField
from lexmax.index.fde.config import FdeConfig
from lexmax.index.representations.sparse_multivectors import SparseMultiVectors
from lexmax.retrieval.searchers.blockmax import SparseOptions
from lexmax.retrieval.searchers.centroid import CentroidOptions
from lexmax.retrieval.searchers.maxsim import MaxSimSearcher
from lexmax.retrieval.searchers.registry import SEARCHERS, field_searcher, make_options, searcher_type
from lexmax.retrieval.searchers.slim import SlimOptions

DIM, N_DOCS = 32, 60
ENCODING = FdeConfig(of="tokens", token_dim=DIM, n_cells=3)
ENCODED = {"encoding": ENCODING.options(), "vectors": {"dim": ENCODING.dim, "keep": "float32"}}


@pytest.fixture(scope="module")
def batches():
    rng = np.random.default_rng(1)
    tokens = token_vectors(rng, rng.integers(0, 12, N_DOCS), DIM), token_vectors(rng, [6, 0, 33, 1, 2], DIM)
    return {
        "sparse": (random_vectors(rng, N_DOCS, 40, 12), random_vectors(rng, 5, 40, 12)),
        "tokens": tokens,
        "fde": tokens,
        "sparse-tokens": (sparse_tokens(rng, rng.integers(0, 9, N_DOCS)), sparse_tokens(rng, [3, 0, 1, 8, 2])),
        "dense": (dense_vectors(rng, N_DOCS), dense_vectors(rng, 5)),
        "nets": (dense_vectors(rng, N_DOCS), random_nets(rng, 5, (24, 24, 7))),
    }


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory, batches):
    """One index of all representations, three segments, deleted documents."""
    fields = {
        "sparse": NewField(encoder=ENCODER),
        "tokens": NewField(encoder=TOKEN_ENCODER, representation="tokens", options=asdict(MultiVectorConfig(dim=DIM))),
        "sparse-tokens": NewField(encoder=SLIM_ENCODER, representation="sparse-tokens"),
        "dense": new_dense_field(24),
        "nets": new_net_field(24),
        "fde": NewField(encoder=TOKEN_ENCODER, representation="fde", options=ENCODED),
    }
    documents = {name: batch for name, (batch, _) in batches.items()}
    return write_index(tmp_path_factory.mktemp("all") / "idx", fields, documents, (20, 21), (3, 30))


every_kind = pytest.mark.parametrize("kind", list(SEARCHERS))


@every_kind
@pytest.mark.parametrize("algorithm", ["auto", "exhaustive"])
def test_scores_are_those_of_search_and_explanations_sum_to_them(snapshot, batches, kind, algorithm):
    searcher, options = field_searcher(snapshot.field(kind)), make_options(kind, {"algorithm": algorithm})
    searcher.warm()
    queries = searcher.vectors(batches[kind][1])
    hits = searcher.search(queries, 7, options=options)
    assert len(hits.doc_nums) > 10
    assert not set(hits.doc_nums.tolist()) & {3, 30}
    scores = searcher.score(queries, [hits.query(i)[0] for i in range(len(hits))], options=options)
    for number, given in enumerate(scores):
        doc_nums, found = hits.query(number)
        if (kind, algorithm) == ("tokens", "exhaustive"):
            np.testing.assert_allclose(given, found, atol=1e-3)
        else:
            assert np.array_equal(given, found)
        for doc_num, score in zip(doc_nums[:2].tolist(), found.tolist(), strict=False):
            explained = searcher.explain(queries, number, "query", doc_num, "text")
            assert (explained.field, explained.contribution) == (kind, explained.score)
            tolerance = 2e-2 * max(1, len(explained.tokens) / 32) if kind == "tokens" else 1e-5 * abs(score)
            assert explained.score == pytest.approx(score, abs=tolerance)
            parts = [match.score for match in (*explained.terms, *explained.tokens)]
            assert sum(parts) == pytest.approx(score, abs=tolerance) or (kind in ("dense", "nets", "fde") and not parts)
            assert not any(match.query_expanded or match.document_expanded for match in explained.terms)
            assert {match.document_token for match in explained.tokens} <= {""}


@every_kind
def test_a_filter_and_threads_change_no_scores(snapshot, batches, kind):
    searcher = field_searcher(snapshot.field(kind))
    queries = searcher.vectors(batches[kind][1])
    hits = searcher.search(queries, 50, allowed=snapshot.masks("number >= 40"), n_threads=2)
    assert hits.doc_nums.min() >= 40
    found = [hits.query(i)[0] for i in range(len(hits))]
    for number, scores in enumerate(searcher.score(queries, found, n_threads=2)):
        assert np.array_equal(scores, hits.query(number)[1])
    with pytest.raises(ValueError, match="one array of doc_nums per query"):
        searcher.score(queries, found[1:])


def test_options_are_made_and_checked():
    assert make_options("sparse") == SparseOptions()
    assert make_options("tokens", {"n_probe": "64", "n_exact": None, "target_recall": "none"}) == CentroidOptions(n_probe=64)
    assert make_options("sparse-tokens", {"beta": "0.5", "alpha": 1}) == SlimOptions(beta=0.5)
    options = SlimOptions(n_candidates=3)
    assert make_options("sparse-tokens", options) is options
    with pytest.raises(ValueError, match="unknown option 'beta': there are algorithm, alpha"):
        make_options("sparse", {"beta": 0.5})
    with pytest.raises(ValueError, match="algorithm must be one of auto, blockmax"):
        make_options("sparse", {"algorithm": "fast"})
    for value in ("many", 1.5, True, None, [3]):
        with pytest.raises(TypeError, match=r"option n_probe is .* a whole number"):
            make_options("tokens", {"n_probe": value})
    with pytest.raises(TypeError, match="options must be a SlimOptions or a mapping"):
        make_options("sparse-tokens", CentroidOptions())
    with pytest.raises(RepresentationError, match="no searcher for 'net' fields: there are sparse, tokens"):
        searcher_type("net")


@pytest.mark.parametrize(
    "wrong",
    [
        {"algorithm": "exhaustive", "n_probe": 3},
        {"algorithm": "exhaustive", "target_recall": 0.5},
        {"target_recall": 0.5, "n_exact": 0},
        {"target_recall": 0.0},
    ],
    ids=str,
)
def test_options_that_contradict_are_refused(wrong):
    with pytest.raises(ValueError, match=r"leave out|not both|target_recall must"):
        CentroidOptions(**wrong)


def test_an_encoder_of_another_representation_is_refused(snapshot):
    class Dense:
        kind, representation = "dense", "dense"

    with pytest.raises(RepresentationError, match="field tokens: holds tokens vectors, and encoder dense makes dense ones"):
        field_searcher(snapshot.field("tokens"), Dense())


def test_matrices_in_every_form_are_queries(snapshot):
    searcher = field_searcher(snapshot.field("tokens"))
    matrix = clustered(np.random.default_rng(2), 6, DIM)
    for queries in (matrix, [matrix], [matrix.astype(np.float64)], MultiVectors.of([matrix], DIM)):
        assert np.array_equal(searcher.vectors(queries).tokens, matrix)
    assert searcher.vectors([]).dim == DIM
    for wrong in ("text", {"term": 1.0}, [np.zeros(3, np.float32)], 3, np.zeros((2, 3), np.float32)):
        with pytest.raises(TypeError, match="matrices"):
            searcher.vectors(wrong)


def test_mappings_are_sparse_queries_and_no_sparse_token_queries(snapshot):
    vectors = field_searcher(snapshot.field("sparse")).vectors([{3: 1.5, 1: 2.0}])
    assert (vectors.terms.tolist(), vectors.weights.tolist()) == ([1, 3], [2.0, 1.5])
    with pytest.raises(TypeError, match="SparseMultiVectors, not list"):
        field_searcher(snapshot.field("sparse-tokens")).vectors([{"a": 1.0}])


class Letters:
    """An encoder of letters, each also a little of the next letter."""

    kind, representation = "slim", "sparse-tokens"
    vocabulary = tuple("abcdefghijklmnopqrstuvwxyz")

    def encode(self, texts):
        rows = [[([ord(c) - 97, (ord(c) - 96) % 26], [1.0, 0.25]) for c in text] for text in texts]
        return SparseMultiVectors.of([SparseVectors.from_rows(row) for row in rows])

    def surface_terms(self, text):
        return set(text)


def test_explanations_mark_terms_that_the_encoder_added(tmp_path):
    encoder = Letters()
    new = NewField(encoder=SLIM_ENCODER, representation="sparse-tokens", vocabulary=encoder.vocabulary)
    snapshot = write_index(tmp_path / "idx", {"slim": new}, {"slim": encoder.encode(["cat", "dog", "bat"])})
    searcher = field_searcher(snapshot.field("slim"), encoder)
    hits = searcher.search(encoder.encode(["cat"]), 2)
    assert hits.doc_nums.tolist() == [0, 2]
    assert hits.scores[0] == pytest.approx(3 * (1 + 0.25**2), rel=0.01)
    explained = searcher.explain(encoder.encode(["cat"]), 0, "cat", 2, "bat")
    for match in explained.terms:
        assert match.score == pytest.approx(match.query_weight * match.document_weight)
    expanded = {match.term: (match.query_expanded, match.document_expanded) for match in explained.terms}
    assert expanded == {"a": (False, False), "t": (False, False), "b": (True, False), "c": (False, True), "u": (True, True)}


def test_torch_multiplies_to_the_same_scores(snapshot):
    queries = token_vectors(np.random.default_rng(3), [6, 0, 33], DIM)
    plain, on_torch = (MaxSimSearcher(snapshot.field("tokens"), device=device).search(queries, 7) for device in (None, "cpu"))
    np.testing.assert_array_equal(plain.doc_nums, on_torch.doc_nums)
    np.testing.assert_allclose(plain.scores, on_torch.scores, atol=1e-3)


def test_empty_fields_answer_nothing(tmp_path):
    fields = [
        (make_field(tmp_path / "a", SparseVectors.from_rows([])), SparseVectors.from_rows([([1], [1.0])])),
        (make_token_field(tmp_path / "b", MultiVectors.of([], DIM)), token_vectors(np.random.default_rng(3), [6], DIM)),
        (make_slim_field(tmp_path / "c", SparseMultiVectors.of([])), sparse_tokens(np.random.default_rng(3), [4])),
    ]
    for field, queries in fields:
        searcher = field_searcher(field)
        searcher.warm()
        for algorithm in ("auto", "exhaustive"):
            hits = searcher.search(queries, 3, options=make_options(field, {"algorithm": algorithm}))
            assert (len(hits), len(hits.doc_nums)) == (1, 0)
        assert searcher.score(queries, [np.empty(0, np.int32)])[0].shape == (0,)
