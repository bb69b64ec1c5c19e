"""Block-max and scan give exactly the oracle's documents and scores, and the oracle is plain arithmetic."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from corpora import make_field, random_vectors
from hypothesis import given, settings
from hypothesis import strategies as st

from lexmax import SparseVectors
from lexmax.index.sparse import inverted as inverted_module
from lexmax.retrieval.kernels.query import weigh
from lexmax.retrieval.searchers.blockmax import BlockMaxSearcher, SparseOptions
from lexmax.retrieval.searchers.exhaustive import ExhaustiveSearcher
from lexmax.retrieval.searchers.queries import prepare

ALGORITHMS = ("auto", "blockmax", "scan")


def brute_force(field, queries, number, k, allowed=None):
    """Dictionaries and Python integers: what the scores mean."""
    query = prepare(field, queries, number)
    weights = dict(zip(query.terms.tolist(), query.weights.tolist(), strict=True))
    scored = []
    for at, segment in enumerate(field.segments):
        mask = segment.live if allowed is None else allowed[at]
        for position in range(segment.n_docs):
            if mask is not None and not mask[position]:
                continue
            terms, impacts = segment.inverted.row(position)
            score = sum(weights.get(t, 0) * i for t, i in zip(terms.tolist(), impacts.tolist(), strict=True))
            if score > 0:
                scored.append((-score, segment.base + position))
    return [(doc_num, -score) for score, doc_num in sorted(scored)[:k]], query


def check_scores(field, queries, oracle):
    """`score` gives every hit the score of the search, and every other document 0, in any order."""
    everything = np.random.default_rng(len(queries)).permutation(np.arange(field.n_total, dtype=np.int32))
    scores = BlockMaxSearcher(field).score(queries, [np.tile(everything, 2)] * len(queries))
    for number in range(len(queries)):
        doc_nums, found = oracle.query(number)
        by_number = np.zeros(field.n_total, np.float32)
        by_number[everything] = scores[number][: field.n_total]
        assert np.array_equal(scores[number], by_number[np.tile(everything, 2)])
        assert np.array_equal(by_number[doc_nums], found)
        assert np.count_nonzero(by_number) == len(doc_nums)


def check(field, queries, k, allowed=None):
    oracle = ExhaustiveSearcher(field).search(queries, k, allowed)
    for number in range(len(queries)):
        expected, query = brute_force(field, queries, number, k, allowed)
        doc_nums, scores = oracle.query(number)
        assert doc_nums.tolist() == [doc_num for doc_num, _ in expected]
        assert scores.tolist() == pytest.approx([score / query.scale / field.scale for _, score in expected], rel=1e-6)
    for algorithm in ALGORITHMS:
        hits = BlockMaxSearcher(field).search(queries, k, allowed, SparseOptions(algorithm=algorithm))
        assert np.array_equal(hits.offsets, oracle.offsets), algorithm
        assert np.array_equal(hits.doc_nums, oracle.doc_nums), algorithm
        assert np.array_equal(hits.scores, oracle.scores), algorithm


@settings(max_examples=int(os.environ.get("LEXMAX_EXAMPLES", "120")), deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 150),
    n_terms=st.integers(1, 60),
    width=st.integers(0, 20),
    levels=st.sampled_from([0, 1, 2, 255]),
    cuts=st.lists(st.integers(1, 149), max_size=3),
    k=st.sampled_from([1, 2, 3, 10, 64, 65, 100, 1000, 2000]),
    share_deleted=st.sampled_from([0.0, 0.1, 0.9, 1.0]),
    filtered=st.booleans(),
)
def test_searchers_agree(seed, n, n_terms, width, levels, cuts, k, share_deleted, filtered):
    rng = np.random.default_rng(seed)
    folder = Path(tempfile.mkdtemp())
    try:
        deleted = tuple(np.flatnonzero(rng.random(n) < share_deleted).tolist())
        field = make_field(folder / "idx", random_vectors(rng, n, n_terms, width, levels=levels), tuple(cuts), deleted)
        queries = random_vectors(rng, 4, n_terms + 5, width, levels=levels)
        allowed = None
        if filtered:
            allowed = []
            for segment in field.segments:
                mask = rng.random(segment.n_docs) < 0.3
                allowed.append(mask if segment.live is None else mask & segment.live)
        check(field, queries, k, allowed)
    finally:
        shutil.rmtree(folder)


@settings(max_examples=int(os.environ.get("LEXMAX_EXAMPLES", "60")), deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 150),
    n_terms=st.integers(1, 60),
    cuts=st.lists(st.integers(1, 149), max_size=3),
    share_deleted=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_scores_of_given_documents_agree_with_search(seed, n, n_terms, cuts, share_deleted):
    rng = np.random.default_rng(seed)
    folder = Path(tempfile.mkdtemp())
    try:
        deleted = tuple(np.flatnonzero(rng.random(n) < share_deleted).tolist())
        field = make_field(folder / "idx", random_vectors(rng, n, n_terms, 20), tuple(cuts), deleted)
        queries = random_vectors(rng, 4, n_terms + 5, 20)
        everything = [np.ones(segment.n_docs, np.bool_) for segment in field.segments]
        check_scores(field, queries, ExhaustiveSearcher(field).search(queries, n, everything))  # deleted ones too
        assert [len(scores) for scores in BlockMaxSearcher(field).score(queries, [[]] * 4)] == [0] * 4
    finally:
        shutil.rmtree(folder)


def rows(*weights: dict[int, float]) -> SparseVectors:
    return SparseVectors.from_rows([(list(row), list(row.values())) for row in weights])


def test_every_document_ties(tmp_path):
    field = make_field(tmp_path / "idx", rows(*[{0: 1.0, 1: 1.0}] * 5000), cuts=(1700,))
    for k in (1, 10, 65, 1000, 4999, 9000):
        check_light(field, rows({0: 1.0}, {0: 1.0, 1: 2.0}), k)


def check_light(field, queries, k, allowed=None):
    """Compare with the oracle alone, for collections too large for Python loops."""
    oracle = ExhaustiveSearcher(field).search(queries, k, allowed)
    for algorithm in ALGORITHMS:
        hits = BlockMaxSearcher(field).search(queries, k, allowed, SparseOptions(algorithm=algorithm))
        assert np.array_equal(hits.offsets, oracle.offsets), algorithm
        assert np.array_equal(hits.doc_nums, oracle.doc_nums), algorithm
        assert np.array_equal(hits.scores, oracle.scores), algorithm


def check_parts(field, queries, k, allowed=None):
    """Each query alone, its windows shared by three threads."""
    oracle = ExhaustiveSearcher(field).search(queries, k, allowed)
    for algorithm in ALGORITHMS:
        searcher = BlockMaxSearcher(field)
        for number in range(len(queries)):
            query = SparseVectors.from_rows([queries.row(number)])
            hits = searcher.search(query, k, allowed, SparseOptions(algorithm=algorithm), n_threads=3)
            doc_nums, scores = oracle.query(number)
            assert np.array_equal(hits.doc_nums, doc_nums), algorithm
            assert np.array_equal(hits.scores, scores), algorithm


@pytest.mark.parametrize("seed", range(int(os.environ.get("LEXMAX_EXAMPLES", "120")) // 10))
def test_windows_in_parallel(tmp_path, monkeypatch, seed):
    monkeypatch.setattr("lexmax.index.sparse.inverted.WINDOW", 512)
    monkeypatch.setattr("lexmax.retrieval.searchers.blockmax.NS_HEAVY", -1)
    rng = np.random.default_rng(seed)
    n = int(rng.integers(600, 6000))
    documents = random_vectors(rng, n, int(rng.integers(2, 40)), 8, levels=int(rng.choice([0, 1, 2, 255])))
    cuts = tuple(sorted(rng.integers(1, n, rng.integers(0, 3)).tolist()))
    field = make_field(tmp_path / "idx", documents, cuts, tuple(np.flatnonzero(rng.random(n) < 0.1).tolist()))
    allowed = [rng.random(segment.n_docs) < 0.3 for segment in field.segments] if seed % 3 == 0 else None
    for k in (1, 10, 100, 3000):
        check_parts(field, random_vectors(rng, 3, 40, 8), k, allowed)


def test_an_error_in_a_thread_of_a_query_is_raised(tmp_path, monkeypatch):
    monkeypatch.setattr("lexmax.index.sparse.inverted.WINDOW", 512)
    monkeypatch.setattr("lexmax.retrieval.searchers.blockmax.NS_HEAVY", -1)
    field = make_field(tmp_path / "idx", rows(*[{0: 1.0}] * 5000))
    searcher = BlockMaxSearcher(field)

    def fail(*arguments):
        raise MemoryError("no room")

    monkeypatch.setattr("lexmax.retrieval.searchers.blockmax.scan_windows", fail)
    with pytest.raises(MemoryError, match="no room"):
        searcher.search(rows({0: 1.0}), 10, n_threads=3)


@pytest.mark.parametrize("filtered", [False, True])
def test_frequent_and_rare_terms_over_many_windows(tmp_path, monkeypatch, filtered):
    monkeypatch.setattr("lexmax.index.sparse.inverted.WINDOW", 1024)
    monkeypatch.setattr("lexmax.retrieval.searchers.blockmax.NS_HEAVY", -1)
    rng = np.random.default_rng(5)
    documents = [
        {**{int(t): float(w) for t, w in zip(rng.zipf(1.2, 20) % 200, rng.gamma(1.5, 1, 20) + 0.01, strict=True)}}
        for _ in range(9000)
    ]
    field = make_field(tmp_path / "idx", rows(*documents), cuts=(6000,), deleted=tuple(range(0, 9000, 7)))
    assert len(np.unique(field.segments[0].inverted.arrays.run_windows)) == 6
    queries = rows(*[{**document, 1: 0.5, 2: 0.2, 3: 0.1} for document in documents[::900]], {1: 1.0, 2: 1.0})
    allowed = [rng.random(segment.n_docs) < 0.2 for segment in field.segments] if filtered else None
    for k in (1, 3, 10, 100):
        check_light(field, queries, k, allowed)
        check_parts(field, queries, k, allowed)


def test_sums_beyond_sixteen_bits_are_exact(tmp_path):
    n_terms = 600
    heavy = dict.fromkeys(range(n_terms), 1.0)
    field = make_field(tmp_path / "idx", rows(heavy, dict.fromkeys(range(0, n_terms, 2), 1.0), {3: 1.0}, heavy))
    queries = rows(heavy)
    query = prepare(field, queries, 0)
    assert not query.narrow
    assert int(query.weights.sum()) * 255 > 65_535
    check(field, queries, 10)


@pytest.mark.parametrize("n_docs", [8, 2000])
@pytest.mark.parametrize("n_heavy", [0, 1, 3])
def test_a_window_whose_sums_may_pass_sixteen_bits_is_added_again(tmp_path, n_docs, n_heavy):
    """The query fits 16 bits by its answers but not by the bounds of its terms, or not at all."""
    rng = np.random.default_rng(n_docs)
    documents = [dict.fromkeys(rng.choice(400, 12, replace=False).tolist(), 1.0) for _ in range(n_docs)]
    for d in range(n_heavy):
        documents[d] = dict.fromkeys(range(400), 1.0)
    for d, document in enumerate(documents):
        document |= ({400: 0.5} if d % 2 else {}) | ({401: 0.25} if d % 3 else {})
    field = make_field(tmp_path / "idx", rows(*documents))
    assert (field.segments[0].inverted.arrays.column_of >= 0).sum() == (2 if n_docs > 8 else 0)
    check(field, rows(dict.fromkeys(range(402), 9.0), {400: 3.0}, {400: 3.0, 401: 2.0, 7: 1.0}), 10)


def test_columns_hold_what_postings_do_and_files_without_them_are_searched(tmp_path, monkeypatch):
    documents = random_vectors(np.random.default_rng(2), 700, 30, 8)
    field = make_field(tmp_path / "idx", documents)
    arrays, inverted = field.segments[0].inverted.arrays, field.segments[0].inverted
    frequent = np.flatnonzero(arrays.column_of >= 0)
    assert 0 < len(frequent) < len(inverted.terms)
    for rank in frequent.tolist():
        postings = slice(*arrays.starts[rank : rank + 2].tolist())
        assert np.diff(arrays.starts)[rank] > 700 / 8
        column = arrays.columns[arrays.column_of[rank]]
        assert np.count_nonzero(column) == postings.stop - postings.start
        assert np.array_equal(column[np.flatnonzero(column)], arrays.impacts[postings])

    def invert_as_before(rows, invert=inverted_module.invert):
        return {name: array for name, array in invert(rows).items() if name not in ("column_of", "columns")}

    monkeypatch.setattr(inverted_module, "invert", invert_as_before)
    before = make_field(tmp_path / "before", documents)
    monkeypatch.undo()
    assert "columns" not in before.segments[0].inverted.file
    before.segments[0].inverted.check()
    queries = random_vectors(np.random.default_rng(3), 5, 30, 8)
    check(before, queries, 10)
    new, old = BlockMaxSearcher(field).search(queries, 10), BlockMaxSearcher(before).search(queries, 10)
    assert np.array_equal(new.doc_nums, old.doc_nums)
    assert np.array_equal(new.scores, old.scores)


@pytest.mark.parametrize("n_terms", [33_000, 40_000, 70_000])
def test_very_many_terms_of_equal_weight_do_not_overflow(tmp_path, n_terms):
    """At 255 levels their sum would pass 2**31."""
    heavy = rows(dict.fromkeys(range(n_terms), 1.0))
    vectors = rows(dict.fromkeys(range(n_terms), 1.0), dict.fromkeys(range(0, n_terms, 2), 1.0), {3: 1.0})
    field = make_field(tmp_path / "idx", vectors)
    query = prepare(field, heavy, 0)
    assert int(query.weights.min()) * 255 * n_terms < 1 << 31
    check_light(field, heavy, 10)
    hits = BlockMaxSearcher(field).search(heavy, 10)
    assert hits.doc_nums.tolist() == [0, 1, 2]
    assert hits.scores.tolist() == pytest.approx([n_terms, n_terms / 2, 1], rel=1e-2)
    check_scores(field, heavy, hits)


@pytest.mark.parametrize("tail", [1.0, 0.3, 1e-6])
def test_very_many_terms_of_unequal_weight_are_exact(tmp_path, tail):
    """The best document has all terms, and comes first whatever the weights are."""
    rng = np.random.default_rng(8)
    weights = dict(enumerate((tail * (0.5 + 0.5 * rng.random(40_000))).astype(np.float32).tolist())) | {0: 1.0}
    everything = dict.fromkeys(range(40_000), 1.0)
    half = dict.fromkeys(range(0, 40_000, 2), 1.0)
    field = make_field(tmp_path / "idx", rows(half, {0: 1.0}, everything, half), cuts=(2,))
    check_light(field, rows(weights), 3)
    hits = BlockMaxSearcher(field).search(rows(weights), 4)
    assert hits.doc_nums.tolist() == [2, 0, 3, 1]
    check_scores(field, rows(weights), hits)


def test_more_terms_than_can_be_scored_are_refused():
    values = np.ones(9_000_000, np.float32)
    with pytest.raises(ValueError, match="too many terms"):
        weigh(values, np.full(len(values), 255), np.empty(len(values), np.int64))


def test_weights_at_the_limit_and_the_smallest(tmp_path):
    field = make_field(tmp_path / "idx", rows({0: 1e-9, 1: 1.0}, {0: 1.0}, {1: 1e-9}, {2: 1e15}))
    check(field, rows({0: 1e-12, 1: 5.0}, {2: 1.0}, {0: 1e15, 1: 1e-30}), 10)


def test_empty_queries_unknown_terms_and_empty_documents(tmp_path):
    field = make_field(tmp_path / "idx", rows({}, {5: 1.0}, {}))
    check(field, rows({}, {99: 1.0}, {5: 1.0, 10_000: 3.0}), 10)
    empty = make_field(tmp_path / "empty", rows({}, {}))
    check(empty, rows({}, {5: 1.0}), 10)


def test_all_deleted_gives_nothing(tmp_path):
    field = make_field(tmp_path / "idx", rows({0: 1.0}, {0: 2.0}), deleted=(0, 1))
    assert len(BlockMaxSearcher(field).search(rows({0: 1.0}), 5).doc_nums) == 0


@pytest.mark.parametrize("levels", [0, 3])
def test_larger_collections_over_windows_and_segments(tmp_path, levels):
    rng = np.random.default_rng(11)
    n = 12_000
    frequent = rng.zipf(1.3, (n, 12)) % 400
    weights = rng.integers(1, levels + 1, (n, 12)) if levels else rng.gamma(2, 1, (n, 12)) + 0.01
    vectors = rows(*[dict(zip(t.tolist(), w.tolist(), strict=True)) for t, w in zip(frequent, weights, strict=True)])
    field = make_field(tmp_path / "idx", vectors, cuts=(9000,), deleted=tuple(range(100, 140)))
    queries = random_vectors(rng, 25, 400, 30)
    allowed = [rng.random(segment.n_docs) < 0.02 for segment in field.segments]
    for k in (1, 10, 100, 1000):
        check_light(field, queries, k)
        check_light(field, queries, k, allowed)


def test_a_filter_gives_k_results_when_k_match(tmp_path):
    vectors = rows(*[{0: 100.0 - i} for i in range(90)])
    field = make_field(tmp_path / "idx", vectors)
    mask = np.zeros(90, np.bool_)
    mask[80:] = True
    hits = BlockMaxSearcher(field).search(rows({0: 1.0}), 10, [mask])
    assert hits.doc_nums.tolist() == list(range(80, 90))


@pytest.mark.parametrize(
    "options",
    [
        SparseOptions(alpha=0.7, algorithm="blockmax"),
        SparseOptions(alpha=0.9),
    ],
    ids=lambda options: f"{options.algorithm}-{options.alpha}",
)
def test_approximate_answers_are_a_subset_with_true_scores(tmp_path, options):
    rng = np.random.default_rng(5)
    field = make_field(tmp_path / "idx", random_vectors(rng, 3000, 200, 30))
    queries = random_vectors(rng, 20, 200, 20)
    exact = ExhaustiveSearcher(field).search(queries, 3000)
    loose = BlockMaxSearcher(field).search(queries, 10, options=options)
    n_found = 0
    for number in range(len(queries)):
        truth = dict(zip(*(array.tolist() for array in exact.query(number)), strict=True))
        found = dict(zip(*(array.tolist() for array in loose.query(number)), strict=True))
        assert found.items() <= truth.items()
        n_found += len(found.keys() & set(list(truth)[:10]))
    assert n_found > 0


def test_threads_do_not_change_answers(tmp_path):
    rng = np.random.default_rng(6)
    field = make_field(tmp_path / "idx", random_vectors(rng, 2000, 100, 20), cuts=(900,))
    queries = random_vectors(rng, 60, 100, 20)
    searcher = BlockMaxSearcher(field)
    one, four = searcher.search(queries, 20), searcher.search(queries, 20, n_threads=4)
    assert np.array_equal(one.doc_nums, four.doc_nums)
    assert np.array_equal(one.scores, four.scores)


@given(
    st.lists(st.floats(2**-20, 2**20, width=32), min_size=1, max_size=400),
    st.integers(0, 2**32 - 1),
)
def test_integer_weights_keep_their_promises(weights, seed):
    values = np.array(weights, np.float32)
    impacts = np.random.default_rng(seed).integers(1, 256, len(values))
    integers = np.empty(len(values), np.int64)
    scale, narrow = weigh(values, impacts, integers)
    assert integers.min() >= 1
    assert integers.max() <= 255
    assert narrow == (int(integers @ impacts) <= 65_535)
    assert integers.max() >= 32 or scale == 1.0
    assert np.all(np.abs(integers - np.maximum(values * scale, 1)) <= 0.5 + 1e-3)


def test_bad_arguments_are_refused(tmp_path):
    field = make_field(tmp_path / "idx", rows({0: 1.0}))
    searcher = BlockMaxSearcher(field)
    with pytest.raises(ValueError, match="k must"):
        searcher.search(rows({0: 1.0}), 0)
    with pytest.raises(ValueError, match="alpha"):
        SparseOptions(alpha=0)
    with pytest.raises(ValueError, match="algorithm must be one of auto, blockmax, scan, exhaustive"):
        SparseOptions(algorithm="magic")
    with pytest.raises(ValueError, match="leave out alpha"):
        SparseOptions(algorithm="exhaustive", alpha=0.5)
    with pytest.raises(ValueError, match="algorithm must be"):
        searcher.search(rows({0: 1.0}), 1, options=SparseOptions(algorithm="exhaustive"))
    for wrong in ([], [np.array([1])], [np.array([-1])], [np.zeros(1, np.int32)] * 2):
        with pytest.raises(ValueError, match=r"doc_nums"):
            searcher.score(rows({0: 1.0}), wrong)


def test_whole_weights_that_fit_are_kept_as_they_are():
    integers = np.empty(3, np.int64)
    assert weigh(np.array([3.0, 7.0, 20.0], np.float32), np.array([255, 9, 0]), integers) == (1.0, True)
    assert integers.tolist() == [3, 7, 0]
