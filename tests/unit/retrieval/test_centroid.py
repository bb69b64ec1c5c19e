"""The centroid searcher against MaxSim in NumPy over the tokens that the index holds."""

import numpy as np
import pytest
from corpora import make_field, random_vectors
from token_vectors import make_token_field, token_vectors, unit

from lexmax import Collection, RepresentationError
from lexmax.index.representations.multivectors import MultiVectors
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.kernels import centroids as kernels
from lexmax.retrieval.searchers import centroid
from lexmax.retrieval.searchers.centroid import CentroidOptions, CentroidSearcher
from lexmax.retrieval.searchers.lanes import lanes_of
from lexmax.retrieval.searchers.maxsim import MaxSimSearcher

DIM, N_DOCS = 32, 300
EVERYTHING = CentroidOptions(n_probe=1 << 16, n_gathered=1 << 20, n_candidates=1 << 20, n_exact=1 << 20)
NARROW = CentroidOptions(n_probe=4, n_gathered=40, n_candidates=20, n_exact=10)


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(1)
    return token_vectors(rng, [0, *rng.integers(0, 30, N_DOCS - 1)])


@pytest.fixture(scope="module")
def field(tmp_path_factory, vectors):
    return make_token_field(tmp_path_factory.mktemp("one") / "idx", vectors)


@pytest.fixture(scope="module")
def divided(tmp_path_factory, vectors):
    """Three segments, some documents deleted."""
    return make_token_field(tmp_path_factory.mktemp("three") / "idx", vectors, (150, 151), tuple(range(7, N_DOCS, 10)))


@pytest.fixture(scope="module")
def queries():
    return token_vectors(np.random.default_rng(2), [1, 5, 31, 32, 33, 64, 65])


def maxsim(field, query, *, exact=True):
    """MaxSim of every document, (n_docs,), over decoded tokens; -inf for a document without any."""
    scores = []
    for segment in field.segments:
        part = segment.part
        codes, stored = part.store.unpack(np.arange(part.n_docs))
        assert np.array_equal(codes, part.codes)
        products = query @ field.codec.decode(codes, stored if exact or part.small is None else part.small).T
        for first, last in zip(part.offsets[:-1], part.offsets[1:], strict=True):
            scores.append(products[:, first:last].max(axis=1).sum() if first < last else -np.inf)
    return np.array(scores)


def rounded(field, query):
    """The query as its bytes say."""
    lanes = lanes_of(query, field.codec)
    rows = np.concatenate([lane.packed.transpose(1, 0, 2).reshape(32, -1) * lane.weights[:, None] for lane in lanes])
    return rows[: len(query)] @ field.codec.rotation.T


def check(field, hits, number, scores, k, *, atol=1e-3):
    """The k best of ``scores``, -inf for what is not allowed, but for what lies within ``atol`` of each other."""
    doc_nums, found = hits.query(number)
    allowed = np.flatnonzero(scores > -np.inf)
    n = min(k, len(allowed))
    assert len(doc_nums) == len(set(doc_nums.tolist())) == n
    assert set(doc_nums.tolist()) <= set(allowed.tolist())
    assert np.abs(found - scores[doc_nums]).max(initial=0) < atol
    assert np.all(np.diff(found) <= 0)
    assert np.abs(found - np.sort(scores[allowed])[::-1][:n]).max(initial=0) < atol


@pytest.mark.parametrize("k", [1, 10, 299, 300, 1000])
def test_with_everything_probed_it_is_maxsim(field, queries, k):
    hits = CentroidSearcher(field, EVERYTHING).search(queries, k)
    for number in range(len(queries)):
        query = queries.row(number)
        check(field, hits, number, maxsim(field, rounded(field, query)), k)
        check(field, hits, number, maxsim(field, query), k, atol=2e-2 * max(1.0, len(query) / 32))


@pytest.mark.parametrize("nbits", [1, 2, 4, 8])
def test_every_width_is_scored_as_it_is_decoded(tmp_path, vectors, queries, nbits):
    for exact in (False, True):
        index = make_token_field(tmp_path / str(exact), vectors, (100,), nbits=nbits, exact=exact)
        for options in (EVERYTHING, CentroidOptions(n_gathered=1 << 20, n_candidates=1 << 20, n_exact=0)):
            hits = CentroidSearcher(index, options).search(queries, 20)
            for number in range(len(queries)):
                scores = maxsim(index, rounded(index, queries.row(number)), exact=exact and options.n_exact > 0)
                check(index, hits, number, scores, 20)


@pytest.mark.parametrize("k", [1, 10, 1000])
@pytest.mark.parametrize("share", [None, 0.0, 0.005, 0.3, 0.9])
def test_deleted_and_filtered_documents_do_not_come_back(divided, queries, share, k):
    rng = np.random.default_rng(3)
    masks = divided.masks()
    if share is not None:
        masks = [mask & (rng.random(len(mask)) < share) if mask is not None else rng.random(1) < share for mask in masks]
    alive = np.concatenate([np.ones(1, np.bool_) if mask is None else mask for mask in masks])
    alive &= maxsim(divided, queries.row(0)) > -np.inf
    hits = CentroidSearcher(divided, EVERYTHING).search(queries, k, None if share is None else masks)
    narrow = CentroidSearcher(divided, NARROW).search(queries, k, None if share is None else masks)
    for number in range(len(queries)):
        scores = np.where(alive, maxsim(divided, rounded(divided, queries.row(number))), -np.inf)
        check(divided, hits, number, scores, k)
        doc_nums, found = narrow.query(number)
        assert len(set(doc_nums.tolist())) == len(doc_nums) == min(k, int(alive.sum()))
        assert np.all(alive[doc_nums])
        assert np.abs(found - scores[doc_nums]).max(initial=0) < 1e-3


def test_filter_expressions(divided, queries):
    masks = Snapshot.open(divided.path).masks("number < 20")
    doc_nums, _ = CentroidSearcher(divided, NARROW).search(queries, 100, masks).query(3)
    assert sorted(doc_nums.tolist()) == [i for i in range(1, 20) if i not in (7, 17)]  # 0 has no tokens


def test_segments_make_no_difference(tmp_path, vectors, queries):
    """One codec over several segments answers as one segment does, whatever is probed."""
    parts = make_token_field(tmp_path / "parts", vectors, (120, 250), n_centroids=64)
    with_parts = {options: CentroidSearcher(parts, options).search(queries, 10) for options in (EVERYTHING, NARROW)}
    with Collection.open(tmp_path / "parts") as collection:
        collection.compact()
        collection.commit()
        whole = collection.snapshot().field("tokens")
    assert len(parts.segments) == 3
    assert len(whole.segments) == 1
    assert whole.record.state["codec"] == parts.record.state["codec"]
    for options, hits in with_parts.items():
        again = CentroidSearcher(whole, options).search(queries, 10)
        assert np.array_equal(again.doc_nums, hits.doc_nums)
        assert np.array_equal(again.scores, hits.scores)


def test_threads_make_no_difference(field):
    queries = token_vectors(np.random.default_rng(4), [20, 40] * 20)
    searcher = CentroidSearcher(field, NARROW)
    one, three = searcher.search(queries, 10), searcher.search(queries, 10, n_threads=3)
    assert np.array_equal(one.doc_nums, three.doc_nums)
    assert np.array_equal(one.scores, three.scores)


def test_a_batch_is_its_queries_one_by_one_and_again(field, queries):
    searcher = CentroidSearcher(field, NARROW)
    batch = searcher.search(queries, 10)
    for _ in range(2):
        for number in range(len(queries)):
            single = searcher.search(queries.select(np.array([number])), 10)
            assert np.array_equal(single.doc_nums, batch.query(number)[0])
            assert np.array_equal(single.scores, batch.query(number)[1])


def test_stamps_that_run_out_start_again(field, queries, monkeypatch):
    expected = CentroidSearcher(field, NARROW).search(queries, 10)
    monkeypatch.setattr(centroid, "MAX_STAMP", 200)
    searcher = CentroidSearcher(field, NARROW)
    for _ in range(5):
        hits = searcher.search(queries, 10)
        assert np.array_equal(hits.doc_nums, expected.doc_nums)
        assert int(searcher._scratch.take("stamps", N_DOCS, np.int32).max()) <= 200


def test_probing_is_widened_until_there_are_enough(field, queries):
    """One probed centroid would list a few documents of 300."""
    options = CentroidOptions(n_probe=1, n_gathered=1, n_candidates=1)
    hits = CentroidSearcher(field, options).search(queries, 250)
    assert np.diff(hits.offsets).tolist() == [250] * len(queries)


def test_default_depths_grow_with_the_square_root_of_documents():
    assert CentroidOptions().depths(10, 300) == CentroidOptions().depths(10, 100_000) == (1024, 512, 32)
    assert CentroidOptions().depths(100, 400_000) == (4000, 2000, 200)
    assert CentroidOptions(n_gathered=50, n_candidates=20, n_exact=0).depths(10, 10**7) == (50, 20, 0)


def test_few_allowed_documents_are_all_scored(divided, queries):
    """Where a mask leaves few enough to be listed, and where it does not."""
    for share in (100, 4):
        masks = [np.arange(segment.n_docs) % share == 3 for segment in divided.segments]
        for mask in masks:
            mask.flags.writeable = False
        found, wanted = (searcher(divided).search(queries, 100, masks) for searcher in (CentroidSearcher, MaxSimSearcher))
        for number in range(len(queries)):
            assert sorted(found.query(number)[0].tolist()) == sorted(wanted.query(number)[0].tolist())


@pytest.mark.parametrize("searcher", [CentroidSearcher, MaxSimSearcher])
def test_documents_and_queries_without_tokens_are_left_out(tmp_path, searcher):
    rng = np.random.default_rng(5)
    vectors = token_vectors(rng, [0, 4, 0, 0, 5, 0, 6])
    field = make_token_field(tmp_path / "idx", vectors, (2,), deleted=(3,))
    texts = [np.concatenate([vectors.row(i) for i in (1, 4, 6)]), np.empty((0, DIM), np.float32), vectors.row(4)[:1] * -1]
    queries = MultiVectors.of(texts, DIM)
    for masks in (None, [np.ones(2, np.bool_), np.ones(5, np.bool_)]):
        hits = searcher(field).search(queries, 5, masks)
        assert np.diff(hits.offsets).tolist() == [3, 0, 3]
        assert set(hits.query(0)[0].tolist()) == set(hits.query(2)[0].tolist()) == {1, 4, 6}
    for scores in searcher(field).score(queries, [[0, 2], [1, 4], [5, 3]]):
        assert scores.tolist() == [-np.inf, -np.inf]


def test_documents_without_tokens_do_not_crowd_out_others(tmp_path):
    """Tokens share a large mean, which centroids leave out: without it most documents would score less than nothing."""
    rng = np.random.default_rng(10)
    matrices = [unit(rng.standard_normal((1, DIM)) + 4 * np.eye(1, DIM)) if i % 2 else np.empty((0, DIM)) for i in range(100)]
    vectors = MultiVectors.of([matrix.astype(np.float32) for matrix in matrices], DIM)
    searcher = CentroidSearcher(make_token_field(tmp_path / "idx", vectors), CentroidOptions(n_candidates=50, n_exact=0))
    hits = searcher.search(vectors.select(np.array([1, 33])), 50)
    assert np.all(hits.doc_nums % 2 == 1)


@pytest.mark.parametrize("n_tokens", [1, 32, 33, 64])
def test_given_documents_are_scored_in_any_order(divided, n_tokens):
    rng = np.random.default_rng(6)
    queries = token_vectors(rng, [n_tokens])
    searcher = CentroidSearcher(divided)
    doc_nums = rng.permutation(N_DOCS)[:50].astype(np.int32)
    for exact, options in ((True, None), (False, CentroidOptions(n_exact=0))):
        expected = maxsim(divided, rounded(divided, queries.row(0)), exact=exact)[doc_nums]
        assert np.allclose(searcher.score(queries, [doc_nums], options)[0], expected, atol=1e-3)
    scores = searcher.score(queries, [doc_nums])[0]
    assert searcher.score(queries, [doc_nums[[3, 3, 0]]])[0].tolist() == scores[[3, 3, 0]].tolist()
    assert searcher.score(queries, [doc_nums[:0]])[0].shape == (0,)
    np.testing.assert_allclose(MaxSimSearcher(divided).score(queries, [doc_nums])[0], scores, atol=2e-2 * max(1, n_tokens / 32))


@pytest.mark.parametrize("options", [CentroidOptions(), NARROW, EVERYTHING, CentroidOptions(n_exact=0)], ids=str)
def test_scores_of_given_documents_are_those_of_search(field, divided, queries, options):
    for index in (field, divided):
        searcher = CentroidSearcher(index, options)
        hits = searcher.search(queries, 50)
        found = [hits.query(number) for number in range(len(queries))]
        for n_threads in (1, 3):
            scores = searcher.score(queries, [doc_nums[::-1] for doc_nums, _ in found], n_threads=n_threads)
            for (_, expected), given in zip(found, scores, strict=True):
                assert np.array_equal(given, expected[::-1])


def test_exhaustive_scores_of_given_documents_are_those_of_search(divided, queries):
    searcher = MaxSimSearcher(divided)
    hits = searcher.search(queries, 50)
    for number, scores in enumerate(searcher.score(queries, [hits.query(i)[0] for i in range(len(queries))])):
        np.testing.assert_allclose(scores, hits.query(number)[1], atol=1e-3)


def test_defaults_find_the_exact_top_ten(tmp_path):
    rng = np.random.default_rng(7)
    vectors = token_vectors(rng, rng.integers(10, 40, 6000), 64, n_topics=300, spread=0.8)
    field = make_token_field(tmp_path / "idx", vectors, (4000,))
    sources = rng.choice(6000, 40, replace=False)
    matrices = []
    for source in sources.tolist():
        tokens = vectors.row(source)
        matrices.append(
            unit(tokens[rng.permutation(len(tokens))[:24]] + rng.standard_normal((min(24, len(tokens)), 64)) * 0.06)
        )
    hits = CentroidSearcher(field).search(MultiVectors.of(matrices, 64), 10)
    recalls = []
    for number, query in enumerate(matrices):
        products = query @ vectors.tokens.T
        exact = np.maximum.reduceat(products, vectors.offsets[:-1], axis=1).sum(axis=0)
        best = np.argsort(-exact)[:10]
        recalls.append(len(set(best.tolist()) & set(hits.query(number)[0].tolist())) / 10)
    assert np.mean(recalls) >= 0.9


def test_wrong_searches_are_refused(tmp_path, field, queries):
    searcher = CentroidSearcher(field)
    with pytest.raises(ValueError, match="k must be"):
        searcher.search(queries, 0)
    with pytest.raises(RepresentationError, match="dim 64 for a field of dim 32"):
        searcher.search(token_vectors(np.random.default_rng(8), [3], 64), 5)
    for wrong in ({"n_probe": 0}, {"n_candidates": 0}, {"n_exact": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            CentroidOptions(**wrong)
    sparse = make_field(tmp_path / "sparse", random_vectors(np.random.default_rng(9), 3, 30, 8))
    with pytest.raises(RepresentationError, match="field of token vectors, and this one holds sparse"):
        CentroidSearcher(sparse)


def test_nothing_to_find(tmp_path, field, queries):
    empty = make_token_field(tmp_path / "idx", MultiVectors.of([], DIM))
    assert len(CentroidSearcher(empty).search(queries, 5).doc_nums) == 0
    assert CentroidSearcher(empty).score(queries, [[]] * len(queries))[0].shape == (0,)
    assert len(CentroidSearcher(field).search(MultiVectors.of([], DIM), 5)) == 0
    no_tokens = MultiVectors.of([np.empty((0, DIM), np.float32)], DIM)
    assert len(CentroidSearcher(field).search(no_tokens, 5).doc_nums) == 0


def test_stage_two_scores_centroids_alone(field, queries):
    """`score_codes` is MaxSim over centroids in place of tokens."""
    codec, part = field.codec, field.segments[0].part
    query = queries.row(3)
    (lane,) = lanes_of(query, codec)
    centroids = (codec.mean + codec.centroid_scale * (codec.centroids.astype(np.float32) - 128)) @ codec.rotation.T
    products = rounded(field, query) @ centroids.T
    scores = np.zeros(N_DOCS, np.float32)
    scales, mean = lane.weights * np.float32(codec.centroid_scale), lane.mean
    kernels.score_codes(np.arange(N_DOCS, dtype=np.int32), part.offsets, part.codes, lane.dots, scales, mean, scores)
    for number in range(N_DOCS):
        codes = part.codes[part.offsets[number] : part.offsets[number + 1]]
        expected = products[:, codes].max(axis=1).sum() if len(codes) else 0.0
        assert scores[number] == pytest.approx(expected, abs=5e-3)
