"""SLIM's searcher against NumPy over the tokens that the index holds."""

import numpy as np
import pytest
from corpora import make_field, random_vectors
from sparse_token_vectors import N_TERMS, dense_tokens, make_slim_field, make_slim_index, slim_score, sparse_tokens

from lexmax import Collection, RepresentationError, SparseVectors
from lexmax.index.representations.sparse_multivectors import SparseMultiVectors, fused_vectors
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.kernels.slim import score_sparse_tokens
from lexmax.retrieval.searchers.blockmax import BlockMaxSearcher
from lexmax.retrieval.searchers.slim import MAX_TOKEN_WEIGHT, ExhaustiveSlimSearcher, SlimOptions, SlimQuery, SlimSearcher

N_DOCS = 200
ALL = SlimOptions(n_candidates=N_DOCS)


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(1)
    return sparse_tokens(rng, [0, *rng.integers(0, 15, N_DOCS - 1)], levels=9)


@pytest.fixture(scope="module")
def queries():
    return sparse_tokens(np.random.default_rng(2), [1, 4, 8, 0, 33])


@pytest.fixture(scope="module")
def field(tmp_path_factory, vectors):
    return make_slim_field(tmp_path_factory.mktemp("one") / "idx", vectors)


def same(left, right):
    assert np.array_equal(left.offsets, right.offsets)
    assert np.array_equal(left.doc_nums, right.doc_nums)
    assert np.array_equal(left.scores, right.scores)


def test_scores_are_those_of_the_formula(field, queries):
    scores = [[slim_score(queries.row(i), field.document_sparse_tokens(d)) for d in range(N_DOCS)] for i in range(5)]
    for searcher in (SlimSearcher(field, ALL), ExhaustiveSlimSearcher(field)):
        hits = searcher.search(queries, N_DOCS)
        for number, expected in enumerate(scores):
            doc_nums, found = hits.query(number)
            assert sorted(doc_nums.tolist()) == np.flatnonzero(expected).tolist()
            np.testing.assert_allclose(found, np.array(expected)[doc_nums], rtol=1e-5)
            assert np.all(np.diff(found) <= 0)


@pytest.mark.parametrize("k", [1, 10, 70])
@pytest.mark.parametrize("cuts", [(), (50,), (1, 2, 130)])
def test_all_candidates_give_the_answers_of_the_oracle(tmp_path, vectors, queries, field, cuts, k):
    divided = make_slim_field(tmp_path / "idx", vectors, cuts)
    hits = SlimSearcher(divided, ALL).search(queries, k)
    same(hits, ExhaustiveSlimSearcher(divided).search(queries, k))
    same(hits, SlimSearcher(field, ALL).search(queries, k))
    same(hits, SlimSearcher(divided, ALL).search(queries, k, n_threads=3))


def test_candidates_are_those_of_the_fused_query(field, queries):
    searcher = SlimSearcher(field, SlimOptions(n_candidates=12, beta=0.3))
    hits = searcher.search(queries, 5)
    first = BlockMaxSearcher(field).search(fused_vectors(queries, 0.3), 12)
    exact = ExhaustiveSlimSearcher(field).search(queries, N_DOCS)
    for number in range(len(queries)):
        candidates = first.query(number)[0].tolist()
        wanted = [(d, s) for d, s in zip(*exact.query(number), strict=True) if d in candidates][:5]
        assert list(zip(*hits.query(number), strict=True)) == wanted


def test_deleted_and_filtered_documents_are_left_out(tmp_path, vectors, queries):
    field = make_slim_field(tmp_path / "idx", vectors, (90,), tuple(range(0, N_DOCS, 3)))
    masks = Snapshot.open(field.path).masks("number >= 40 and number < 120")
    for allowed, kept in ((None, range(N_DOCS)), (masks, range(40, 120))):
        hits = SlimSearcher(field, ALL).search(queries, N_DOCS, allowed)
        same(hits, ExhaustiveSlimSearcher(field).search(queries, N_DOCS, allowed))
        assert len(hits.doc_nums) > 50
        assert all(number % 3 and number in kept for number in hits.doc_nums.tolist())
    few = SlimSearcher(field, SlimOptions(n_candidates=5)).search(queries, 5, masks)
    assert np.diff(few.offsets).tolist() == [5, 5, 5, 0, 5]  # candidates are sought among the allowed


@pytest.mark.parametrize("cuts", [(), (1, 2, 130)])
def test_scores_of_given_documents_are_those_of_search(tmp_path, vectors, queries, cuts):
    field = make_slim_field(tmp_path / "idx", vectors, cuts, (5, 100))
    everything = [np.ones(segment.n_docs, np.bool_) for segment in field.segments]
    hits = ExhaustiveSlimSearcher(field).search(queries, N_DOCS, everything)  # deleted ones too
    shuffled = np.random.default_rng(3).permutation(N_DOCS)
    scores = SlimSearcher(field).score(queries, [np.tile(shuffled, 2)] * len(queries), n_threads=2)
    for number in range(len(queries)):
        expected = np.zeros(N_DOCS, np.float32)
        expected[hits.query(number)[0]] = hits.query(number)[1]
        assert np.array_equal(scores[number], np.tile(expected[shuffled], 2))
    assert [len(part) for part in SlimSearcher(field).score(queries, [[]] * len(queries))] == [0] * len(queries)
    with pytest.raises(ValueError, match=r"in 0\.\.199"):
        SlimSearcher(field).score(queries, [[N_DOCS]] * len(queries))


def test_compaction_changes_no_score(tmp_path, vectors, queries):
    old = make_slim_index(tmp_path / "idx", vectors, (90,), (5, 100))
    with Collection.open(tmp_path / "idx") as collection:
        collection.compact(reorder=True)
        collection.commit()
        new = collection.snapshot()
    before, after = (SlimSearcher(s.field("slim"), ALL).search(queries, N_DOCS) for s in (old, new))
    for number in range(len(queries)):
        found = [dict(zip(s.doc_ids(h.query(number)[0].tolist()), h.query(number)[1].tolist(), strict=True))
                 for s, h in ((old, before), (new, after))]  # fmt: skip
        assert found[0] == found[1]


def test_the_kernel_is_numpy(field, queries):
    part, tokens = field.segments[0].sparse_tokens, queries.row(4)
    query = SlimQuery.of(tokens, field.scale)
    slots = np.zeros(len(part.inverted.terms), np.int32)
    for slot, term in enumerate(query.terms.tolist(), 1):
        slots[part.inverted.terms == term] = slot
    positions = np.array([7, 0, 199, 7], np.int32)
    scores = np.full(4, -1, np.int64)
    stored = part.offsets, part.indptr, part.ranks, part.impacts
    score_sparse_tokens(part.file.checked, positions, *stored, slots, query.table, scores)
    whole = np.zeros((len(tokens), N_TERMS), np.int64)
    whole[:, query.terms] = query.table[1:].T
    for position, score in zip(positions.tolist(), scores.tolist(), strict=True):
        rows = part.span(position, position + 1).rows
        impacts = dense_tokens(SparseVectors(rows.indptr, rows.terms, rows.impacts.astype(np.float32)))
        assert score == (whole @ impacts.astype(np.int64).T).max(axis=1, initial=0).sum()
    scores[:] = -1
    score_sparse_tokens(part.file.checked, positions, *stored, slots[:0], query.table, scores)
    assert scores.tolist() == [0] * 4  # ranks that are no terms are ignored


def test_tokens_of_very_many_terms_do_not_overflow(tmp_path):
    row = SparseVectors.from_rows([(np.arange(70_000), np.ones(70_000))])
    assert int(SlimQuery.of(row, 1.0).table.sum()) * 255 < 1 << 31
    vectors = SparseMultiVectors.of([row])
    for searcher in (SlimSearcher, ExhaustiveSlimSearcher):
        hits = searcher(make_slim_field(tmp_path / searcher.__name__, vectors)).search(vectors, 1)
        assert hits.scores[0] == pytest.approx(70_000, rel=1e-2)


def test_the_heaviest_products_fit(tmp_path):
    """300 terms of weight one in query and document: the largest sum that 31 bits must hold."""
    row = SparseVectors.from_rows([(np.arange(300), np.ones(300)), ([3], [1e-6])])
    vectors = SparseMultiVectors.of([row])
    query = SlimQuery.of(row, 1.0)
    assert query.table.sum(axis=0).max() <= MAX_TOKEN_WEIGHT + 300
    hits = SlimSearcher(make_slim_field(tmp_path / "idx", vectors)).search(vectors, 1)
    assert hits.scores[0] == pytest.approx(300, rel=1e-4)


def test_wrong_searches_are_refused(tmp_path, field, queries):
    sparse = make_field(tmp_path / "sparse", random_vectors(np.random.default_rng(3), 5, 30, 8))
    for searcher in (SlimSearcher, ExhaustiveSlimSearcher):
        with pytest.raises(RepresentationError, match="field of sparse token vectors, and this one holds sparse"):
            searcher(sparse)
        with pytest.raises(ValueError, match="k must be"):
            searcher(field).search(queries, 0)
    for wrong in ({"n_candidates": 0}, {"beta": -0.1}, {"beta": 1.1}, {"alpha": 0.0}, {"algorithm": "scan"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SlimOptions(**wrong)
    assert SlimOptions().candidates(3) == 100
    assert SlimOptions().candidates(50) == 500
    assert SlimOptions(n_candidates=20).candidates(50) == 50


def test_the_first_stage_takes_options_and_kernels_are_warmed(field, queries):
    searcher = SlimSearcher(field, ALL)
    searcher.warm()
    loose = searcher.search(queries, 5, options=SlimOptions(n_candidates=20, alpha=0.3))
    truth = ExhaustiveSlimSearcher(field).search(queries, N_DOCS)
    for number in range(len(queries)):
        exact = dict(zip(*(array.tolist() for array in truth.query(number)), strict=True))
        assert dict(zip(*(array.tolist() for array in loose.query(number)), strict=True)).items() <= exact.items()
