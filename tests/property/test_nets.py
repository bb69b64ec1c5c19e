"""Queries that are networks, against the formulas in 64-bit floats: scores, documents, ties, deletes, filters, segments."""

import os
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from net_queries import make_net_field, net_scores, random_nets

from lexmax.index.kernels import read_only
from lexmax.index.representations.dense import DenseVectors
from lexmax.index.representations.nets import QueryNets
from lexmax.retrieval.kernels.nets import score_rows
from lexmax.retrieval.searchers import nets
from lexmax.retrieval.searchers.nets import NetSearcher

EXAMPLES = int(os.environ.get("LEXMAX_EXAMPLES", 40))
N_DOCS, DIM = 300, 12


def scored(queries, number, vectors):
    scores = np.empty(len(vectors), np.float32)
    score_rows(read_only(np.array(queries.sizes)), read_only(queries.row(number)), read_only(vectors), scores)
    return scores


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    n=st.sampled_from([0, 1, 2, 63, 64, 65, 130]), dim=st.integers(1, 11), n_layers=st.integers(1, 4), last=st.integers(1, 9),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_a_network_scores_as_the_formulas_do(n, dim, n_layers, last, seed):
    rng = np.random.default_rng(seed)
    queries = random_nets(rng, 2, (*[dim] * n_layers, last))
    vectors = rng.standard_normal((n, dim)).astype(np.float32)
    for number in range(2):
        expected = net_scores(queries, number, vectors)
        # A layer of nearly equal numbers divides by their spread: rounding grows with what the formulas divide by.
        assert np.abs(scored(queries, number, vectors) - expected).max(initial=0) < 1e-4 * max(
            1, np.abs(expected).max(initial=0)
        )


def test_a_network_of_the_published_form_is_torchs_to_a_hundred_thousandth():
    rng = np.random.default_rng(5)
    queries = random_nets(rng, 1, (64, 64, 64, 64))
    vectors = rng.standard_normal((100, 64)).astype(np.float32)
    x = torch.from_numpy(vectors)
    for layer in range(3):
        y = torch.nn.functional.linear(
            x, *(torch.from_numpy(each(layer)[0].copy()) for each in (queries.weights, queries.biases))
        )
        y = torch.nn.functional.layer_norm(torch.relu(y), (64,))
        x = y if layer == 2 else x + y
    expected = (x @ torch.from_numpy(queries.outputs[0].copy())).numpy()
    np.testing.assert_allclose(scored(queries, 0, vectors), expected, atol=1e-5 * np.abs(expected).max())


@settings(max_examples=EXAMPLES, deadline=None)
@given(seed=st.integers(0, 1000), first=st.integers(0, 70), n=st.integers(1, 150))
def test_a_score_does_not_depend_on_the_documents_beside_it(seed, first, n):
    rng = np.random.default_rng(seed)
    queries = random_nets(rng, 1, (7, 7, 5))
    vectors = rng.standard_normal((230, 7)).astype(np.float32)
    whole, order = scored(queries, 0, vectors), rng.permutation(230)
    assert scored(queries, 0, vectors[first : first + n]).tobytes() == whole[first : first + n].tobytes()
    assert scored(queries, 0, vectors[order]).tobytes() == whole[order].tobytes()


@cache
def field_of(folder, seed, keep, distinct):
    """Vectors of which few are distinct tie."""
    rng = np.random.default_rng(seed)
    pool = rng.standard_normal((distinct, DIM)).astype(np.float16).astype(np.float32)  # kept without rounding
    vectors = pool[rng.integers(0, distinct, N_DOCS)]
    place = folder / f"{seed}-{keep}-{distinct}"
    return vectors, make_net_field(place, DenseVectors(vectors), (150, 151), tuple(range(0, N_DOCS, 7)), keep=keep)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("nets")


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    seed=st.integers(0, 2), keep=st.sampled_from(["float16", "float32"]), distinct=st.sampled_from([5, 400]),
    k=st.sampled_from([1, 3, 20, 290, 500]), share=st.sampled_from([None, 0.0, 0.02, 0.5, 1.0]), n_threads=st.integers(1, 3),
    block=st.sampled_from([1, 37, 1024]),
)  # fmt: skip
def test_documents_ties_filters_and_segments_agree_with_an_exact_ranking(
    folder, seed, keep, distinct, k, share, n_threads, block
):
    vectors, field = field_of(folder, seed, keep, distinct)
    rng = np.random.default_rng(k)
    queries = random_nets(rng, 2, (DIM, DIM, 6))
    allowed = np.ones(N_DOCS, np.bool_) if share is None else rng.random(N_DOCS) < share
    allowed[::7] = False
    searcher, old = NetSearcher(field), nets.BLOCK_DOCS
    nets.BLOCK_DOCS = block
    try:
        hits = searcher.search(queries, k, allowed=np.split(allowed, [150, 151]), n_threads=n_threads)
    finally:
        nets.BLOCK_DOCS = old
    every = searcher.score(queries, [np.arange(N_DOCS, dtype=np.int32)] * 2)
    for number in range(2):
        np.testing.assert_allclose(every[number], net_scores(queries, number, vectors), atol=1e-4)
        numbers = np.flatnonzero(allowed)
        expected = numbers[np.lexsort((numbers, -every[number][numbers]))][:k]
        doc_nums, scores = hits.query(number)
        assert doc_nums.tolist() == expected.tolist()
        assert scores.tobytes() == every[number][expected].tobytes()
    some = rng.integers(0, N_DOCS, 40).astype(np.int32)
    (again,) = searcher.score(QueryNets(queries.sizes, queries.numbers[1:]), [some], n_threads=n_threads)
    assert again.tobytes() == every[1][some].tobytes()
