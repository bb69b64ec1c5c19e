"""Explicit vectors against plain loops, rows through their bytes and back, and dot products of extreme bytes."""

import numpy as np
import pytest
from numba import njit

from lexmax.index.kernels.dot_products import LANES, dot_rows, pack_lanes
from lexmax.index.kernels.rows import PAD, pack_rows, unpack_rows
from lexmax.retrieval.kernels import simd


@njit
def slots_passing(scores, start, threshold):
    found = [0 for _ in range(0)]
    bits = simd.passing(scores, start, threshold)
    while bits != 0:
        found.append(simd.lowest(bits))
        bits &= bits - 1
    return found


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
@pytest.mark.parametrize("limit", [2, 100, 65_536])
def test_which_scores_pass(dtype, limit):
    rng = np.random.default_rng(1)
    scores = rng.integers(0, limit, 200).astype(dtype)
    for threshold in (0, int(np.median(scores)), int(scores.max()), 65_535):
        for start in (0, 7, 136):
            assert slots_passing(scores, start, threshold) == np.flatnonzero(scores[start : start + 64] > threshold).tolist()


def random_rows(n_terms, width):
    rng = np.random.default_rng(2)
    lengths = np.array([0, 1, 31, 32, 33, 64, 100, 0, 5])
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ranks = np.concatenate([np.sort(rng.choice(n_terms, n, replace=False)) for n in lengths]).astype(np.uint32)
    impacts = rng.integers(1, 256, len(ranks)).astype(np.uint8)
    return indptr, ranks, impacts, pack_rows(indptr, ranks, impacts, width)


@pytest.mark.parametrize(("n_terms", "width"), [(65_536, 2), (300_000, 4)])
def test_rows_through_bytes_and_back(n_terms, width):
    indptr, ranks, impacts, rows = random_rows(n_terms, width)
    assert len(rows) == len(ranks) * (width + 1) + PAD
    for first, last in ((0, 9), (2, 5), (4, 4)):
        span = slice(indptr[first], indptr[last])
        found = unpack_rows(indptr, rows, width, first, last)
        assert np.array_equal(found[0], ranks[span])
        assert np.array_equal(found[1], impacts[span])


@njit
def score_narrow(rows, start, n, terms, weights):
    return simd.score_narrow_row(rows, start, n, terms, weights)


@njit
def score_wide(rows, start, n, terms, weights):
    return simd.score_wide_row(rows, start, n, terms, weights)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
@pytest.mark.parametrize(
    ("n_terms", "width", "score"), [(120, 2, score_narrow), (65_536, 2, score_narrow), (150, 4, score_wide)]
)
def test_scores_of_rows(n_terms, width, score, dtype):
    indptr, ranks, impacts, rows = random_rows(n_terms, width)
    rng = np.random.default_rng(3)
    for n_query in (1, 7, 80):
        terms = rng.choice(n_terms, n_query, replace=False).astype(np.int64)
        weights = rng.integers(1, 256, n_query).astype(dtype)
        weight_of = np.zeros(n_terms, np.int64)
        weight_of[terms] = weights
        for d in range(len(indptr) - 1):
            span = slice(indptr[d], indptr[d + 1])
            expected = int(weight_of[ranks[span]] @ impacts[span].astype(np.int64))
            n = indptr[d + 1] - indptr[d]
            assert score(rows, (width + 1) * indptr[d], n, terms, weights) == expected


@pytest.mark.parametrize("byte", [1, 127, 128, 255])
@pytest.mark.parametrize("signed", [-128, -127, 127])
def test_no_sum_of_products_saturates(byte, signed):
    dim = 1536
    rows, out = np.full((3, dim), byte, np.uint8), np.empty((3, LANES), np.int32)
    dot_rows(rows, pack_lanes(np.full((LANES, dim), signed, np.int8))[0], np.arange(LANES, dtype=np.int32), out)
    assert np.array_equal(out, np.broadcast_to(dim * byte * signed + np.arange(LANES), out.shape))
