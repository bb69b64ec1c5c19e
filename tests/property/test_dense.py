"""Dense search against float64 inner products: documents, scores, ties, deletes, filters, segments."""

import os
from functools import cache

import numpy as np
import pytest
from dense_vectors import dense_vectors, make_dense_field
from hypothesis import given, settings
from hypothesis import strategies as st

from lexmax.index.representations.dense import DenseVectors
from lexmax.retrieval.searchers import dense
from lexmax.retrieval.searchers.dense import DenseOptions, DenseSearcher

EXAMPLES = int(os.environ.get("LEXMAX_EXAMPLES", 60))


def ranked(scores, allowed, k):
    numbers = np.flatnonzero(allowed)
    return numbers[np.lexsort((numbers, -scores[numbers]))][:k]


@cache
def field_of(folder, seed, keep, whole):
    rng = np.random.default_rng(seed)
    vectors = dense_vectors(rng, 400, 12)
    if whole:  # whole numbers are kept without rounding, and make many ties
        vectors = DenseVectors(rng.integers(-2, 3, (400, 12)).astype(np.float32))
    place = folder / f"{seed}-{keep}-{whole}"
    return vectors, make_dense_field(place, vectors, (150, 151), tuple(range(0, 400, 7)), keep=keep)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("dense")


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    seed=st.integers(0, 3), keep=st.sampled_from(["float16", "float32"]), k=st.sampled_from([1, 3, 20, 390, 500]),
    share=st.sampled_from([None, 0.0, 0.02, 0.5, 1.0]), n_threads=st.integers(1, 3), few=st.sampled_from([0, 2048]),
)  # fmt: skip
def test_ties_filters_and_segments_agree_with_an_exact_ranking(folder, seed, keep, k, share, n_threads, few):
    vectors, field = field_of(folder, seed, keep, True)
    rng = np.random.default_rng(k)
    allowed = np.ones(400, np.bool_) if share is None else rng.random(400) < share
    allowed[::7] = False
    masks = np.split(allowed, [150, 151])
    queries = DenseVectors(rng.integers(-2, 3, (3, 12)).astype(np.float32))
    old, dense.FEW_DOCS = dense.FEW_DOCS, few
    try:
        hits = DenseSearcher(field).search(queries, k, allowed=masks, n_threads=n_threads)
    finally:
        dense.FEW_DOCS = old
    scores = vectors.vectors.astype(np.float64) @ queries.vectors.astype(np.float64).T
    for number in range(3):
        doc_nums, found = hits.query(number)
        expected = ranked(scores[:, number], allowed, k)
        assert doc_nums.tolist() == expected.tolist()
        assert found.tolist() == scores[expected, number].tolist()


@settings(max_examples=EXAMPLES, deadline=None)
@given(seed=st.integers(0, 3), keep=st.sampled_from(["float16", "float32"]), k=st.sampled_from([1, 10, 100]))
def test_search_scores_and_the_oracle_agree_bit_for_bit(folder, seed, keep, k):
    vectors, field = field_of(folder, seed, keep, False)
    queries = dense_vectors(np.random.default_rng(k), 4, 12)
    searcher = DenseSearcher(field)
    old, dense.FEW_DOCS = dense.FEW_DOCS, 0
    try:
        hits = searcher.search(queries, k)
    finally:
        dense.FEW_DOCS = old
    oracle = searcher.search(queries, k, options=DenseOptions(algorithm="exhaustive"))
    assert hits.doc_nums.tolist() == oracle.doc_nums.tolist()
    assert hits.scores.tobytes() == oracle.scores.tobytes()
    numbers = [np.random.default_rng(i).permutation(hits.query(i)[0]) for i in range(4)]
    for i, scores in enumerate(searcher.score(queries, numbers, n_threads=2)):
        known = dict(zip(hits.query(i)[0].tolist(), hits.query(i)[1].tolist(), strict=True))
        assert scores.tolist() == [known[number] for number in numbers[i].tolist()]
    exact = vectors.vectors.astype(np.float64)[hits.query(0)[0]] @ queries.row(0).astype(np.float64)
    tolerance = (2**-10 if keep == "float16" else 1e-6) * np.linalg.norm(queries.row(0)) * 2
    assert np.abs(exact - hits.query(0)[1]).max() < tolerance
