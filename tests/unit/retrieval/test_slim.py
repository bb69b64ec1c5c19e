"""SLIM's searcher against NumPy over the tokens that the index holds."""

import json

import numpy as np
import pytest
from corpora import make_index, random_vectors
from sparse_token_vectors import N_TERMS, dense_tokens, make_slim_index, slim_score, sparse_tokens

from lexmax import Collection, RepresentationError, Retriever, SparseVectors, build_index
from lexmax.index.representations.sparse_multivectors import SparseMultiVectors, fused_vectors
from lexmax.retrieval.build import TokenStorage, add_to_index
from lexmax.retrieval.kernels.slim import score_sparse_tokens
from lexmax.retrieval.searchers.blockmax import BlockMaxSearcher, SearchOptions
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
def snapshot(tmp_path_factory, vectors):
    return make_slim_index(tmp_path_factory.mktemp("one") / "idx", vectors)


def same(left, right):
    assert np.array_equal(left.offsets, right.offsets)
    assert np.array_equal(left.doc_nums, right.doc_nums)
    assert np.array_equal(left.scores, right.scores)


def test_scores_are_those_of_the_formula(snapshot, queries):
    scores = [[slim_score(queries.row(i), snapshot.document_sparse_tokens(d)) for d in range(N_DOCS)] for i in range(5)]
    for searcher in (SlimSearcher(snapshot, ALL), ExhaustiveSlimSearcher(snapshot)):
        hits = searcher.search(queries, N_DOCS)
        for number, expected in enumerate(scores):
            doc_nums, found = hits.query(number)
            assert sorted(doc_nums.tolist()) == np.flatnonzero(expected).tolist()
            np.testing.assert_allclose(found, np.array(expected)[doc_nums], rtol=1e-5)
            assert np.all(np.diff(found) <= 0)


@pytest.mark.parametrize("k", [1, 10, 70])
@pytest.mark.parametrize("cuts", [(), (50,), (1, 2, 130)])
def test_all_candidates_give_the_answers_of_the_oracle(tmp_path, vectors, queries, snapshot, cuts, k):
    divided = make_slim_index(tmp_path / "idx", vectors, cuts)
    hits = SlimSearcher(divided, ALL).search(queries, k)
    same(hits, ExhaustiveSlimSearcher(divided).search(queries, k))
    same(hits, SlimSearcher(snapshot, ALL).search(queries, k))
    same(hits, SlimSearcher(divided, ALL).search(queries, k, n_threads=3))


def test_candidates_are_those_of_the_fused_query(snapshot, queries):
    searcher = SlimSearcher(snapshot, SlimOptions(n_candidates=12, beta=0.3))
    hits = searcher.search(queries, 5)
    first = BlockMaxSearcher(snapshot).search(fused_vectors(queries, 0.3), 12)
    exact = ExhaustiveSlimSearcher(snapshot).search(queries, N_DOCS)
    for number in range(len(queries)):
        candidates = first.query(number)[0].tolist()
        wanted = [(d, s) for d, s in zip(*exact.query(number), strict=True) if d in candidates][:5]
        assert list(zip(*hits.query(number), strict=True)) == wanted


def test_deleted_and_filtered_documents_are_left_out(tmp_path, vectors, queries):
    snapshot = make_slim_index(tmp_path / "idx", vectors, (90,), tuple(range(0, N_DOCS, 3)))
    masks = snapshot.masks("number >= 40 and number < 120")
    for allowed, kept in ((None, range(N_DOCS)), (masks, range(40, 120))):
        hits = SlimSearcher(snapshot, ALL).search(queries, N_DOCS, allowed)
        same(hits, ExhaustiveSlimSearcher(snapshot).search(queries, N_DOCS, allowed))
        assert len(hits.doc_nums) > 50
        assert all(number % 3 and number in kept for number in hits.doc_nums.tolist())
    few = SlimSearcher(snapshot, SlimOptions(n_candidates=5)).search(queries, 5, masks)
    assert np.diff(few.offsets).tolist() == [5, 5, 5, 0, 5]  # candidates are sought among the allowed


def test_compaction_changes_no_score(tmp_path, vectors, queries):
    old = make_slim_index(tmp_path / "idx", vectors, (90,), (5, 100))
    with Collection.open(tmp_path / "idx") as collection:
        collection.compact(reorder=True)
        collection.commit()
        new = collection.snapshot()
    before, after = (SlimSearcher(s, ALL).search(queries, N_DOCS) for s in (old, new))
    for number in range(len(queries)):
        found = [dict(zip(s.doc_ids(h.query(number)[0].tolist()), h.query(number)[1].tolist(), strict=True))
                 for s, h in ((old, before), (new, after))]  # fmt: skip
        assert found[0] == found[1]


def test_the_kernel_is_numpy(snapshot, queries):
    part, tokens = snapshot.segments[0].sparse_tokens, queries.row(4)
    query = SlimQuery.of(tokens)
    slots = np.zeros(len(part.inverted.terms), np.int32)
    for slot, term in enumerate(query.terms.tolist(), 1):
        slots[part.inverted.terms == term] = slot
    positions = np.array([7, 0, 199, 7], np.int32)
    scores = np.full(4, -1, np.int64)
    score_sparse_tokens(positions, part.offsets, part.indptr, part.ranks, part.impacts, slots, query.table, scores)
    whole = np.zeros((len(tokens), N_TERMS), np.int64)
    whole[:, query.terms] = query.table[1:].T
    for position, score in zip(positions.tolist(), scores.tolist(), strict=True):
        rows = part.span(position, position + 1).rows
        impacts = dense_tokens(SparseVectors(rows.indptr, rows.terms, rows.impacts.astype(np.float32)))
        assert score == (whole @ impacts.astype(np.int64).T).max(axis=1, initial=0).sum()
    scores[:] = -1
    score_sparse_tokens(positions, part.offsets, part.indptr, part.ranks, part.impacts, slots[:0], query.table, scores)
    assert scores.tolist() == [0] * 4  # ranks that are no terms are ignored


def test_the_heaviest_products_fit(tmp_path):
    """300 terms of weight one in query and document: the largest sum that 31 bits must hold."""
    row = SparseVectors.from_rows([(np.arange(300), np.ones(300)), ([3], [1e-6])])
    vectors = SparseMultiVectors.of([row])
    query = SlimQuery.of(row)
    assert query.table.sum(axis=0).max() <= MAX_TOKEN_WEIGHT + 300
    hits = SlimSearcher(make_slim_index(tmp_path / "idx", vectors)).search(vectors, 1)
    assert hits.scores[0] == pytest.approx(300, rel=1e-4)


def test_wrong_searches_are_refused(tmp_path, snapshot, queries):
    sparse = make_index(tmp_path / "sparse", random_vectors(np.random.default_rng(3), 5, 30, 8))
    for searcher in (SlimSearcher, ExhaustiveSlimSearcher):
        with pytest.raises(RepresentationError, match="no sparse token vectors"):
            searcher(sparse)
        with pytest.raises(ValueError, match="k must be"):
            searcher(snapshot).search(queries, 0)
    for wrong in ({"n_candidates": 0}, {"beta": -0.1}, {"beta": 1.1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SlimOptions(**wrong)
    assert SlimOptions().candidates(3) == 100
    assert SlimOptions().candidates(50) == 500
    assert SlimOptions(n_candidates=20).candidates(50) == 50


def test_the_first_stage_takes_options_and_kernels_are_warmed(snapshot, queries):
    searcher = SlimSearcher(snapshot, ALL)
    searcher.warm()
    half = searcher.search(queries, N_DOCS, options=SearchOptions(beta=0.2))
    assert len(half.doc_nums) < len(searcher.search(queries, N_DOCS).doc_nums)


class TinySlim:
    """An encoder of a token a letter, each also a little of the next letter."""

    kind = "slim"
    fingerprint = "slim:tiny"
    settings = {}  # noqa: RUF012
    vocabulary = tuple("abcdefghijklmnopqrstuvwxyz")

    def encode_documents(self, texts):
        return SparseMultiVectors.of(
            [
                SparseVectors.from_rows([([ord(c) - 97, (ord(c) - 96) % 26], [1.0, 0.25]) for c in text if c.isalpha()])
                for text in texts
            ]
        )

    encode_queries = encode_documents

    def surface_terms(self, text):
        return set(text)


@pytest.fixture
def index(tmp_path):
    texts = ["cat", "dog", "cow", "bat", "zebra"]
    lines = [json.dumps({"_id": text, "text": text, "metadata": {"n": i}}) for i, text in enumerate(texts)]
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    build_index([str(tmp_path / "c.jsonl")], tmp_path / "idx", encoder=TinySlim())
    return tmp_path / "idx"


@pytest.mark.parametrize("searcher", ["auto", "slim", "exhaustive"])
def test_a_retriever_answers_and_explains(index, searcher):
    with Retriever.open(index, encoder=TinySlim(), searcher=searcher, warm=True) as retriever:
        first, second = retriever.search("cat", 2, explain=True)
        assert (first.doc_id, second.doc_id) == ("cat", "bat")
        assert first.score == pytest.approx(3 * (1 + 0.25**2), rel=0.01)
        for result in (first, second):
            assert result.explanation.score == pytest.approx(result.score, rel=1e-5)
            for match in result.explanation.terms:
                assert match.score == pytest.approx(match.query_weight * match.document_weight)
        expanded = {match.term: (match.query_expanded, match.document_expanded) for match in second.explanation.terms}
        assert expanded == {"a": (False, False), "t": (False, False), "b": (True, False), "c": (False, True), "u": (True, True)}
        assert [r.doc_id for r in retriever.search("cat", filter="n >= 3", k=1)] == ["bat"]
        assert retriever.info()["n_tokens"] == 17
        with pytest.raises(TypeError, match="SparseMultiVectors, not list"):
            retriever.search_vectors([{"a": 1.0}])


def test_documents_are_added_and_commits_are_seen(index, tmp_path):
    retriever = Retriever.open(index, encoder=TinySlim())
    (tmp_path / "more.jsonl").write_text('{"_id": "x", "text": "xylophone"}\n')
    add_to_index([str(tmp_path / "more.jsonl")], index, TinySlim())
    assert retriever.reload()
    assert retriever.rank(["xylo"], 1)[0][0][0] == "x"


def test_plans_for_other_kinds_are_refused(index, tmp_path):
    for searcher in ("blockmax", "centroid"):
        with pytest.raises(RepresentationError, match=f"searched by slim, not {searcher}"):
            Retriever.open(index, encoder=TinySlim(), searcher=searcher)
    with pytest.raises(RepresentationError, match="not centroid"):
        Retriever.open(index, encoder=TinySlim(), target_recall=0.9)
    with pytest.raises(ValueError, match="sparse vectors"):
        build_index([], tmp_path / "new", encoder=TinySlim(), tokens=TokenStorage())
    build_index([str(tmp_path / "c.jsonl")], tmp_path / "bm25")
    for plan in ({"searcher": "slim"}, {"slim": SlimOptions()}):
        with pytest.raises(RepresentationError, match="searched by blockmax, not slim"):
            Retriever.open(tmp_path / "bm25", **plan)
