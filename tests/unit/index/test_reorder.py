import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lexmax.index.kernels import bisection
from lexmax.index.sparse import reorder
from lexmax.index.sparse.reorder import bisection_order, order_cost


def rows_of(rows):
    """(indptr, ranks) of lists of ranks."""
    indptr = np.cumsum([0, *map(len, rows)])
    return indptr.astype(np.int64), np.array([rank for row in rows for rank in row], np.uint32)


def random_rows(n_docs, n_terms, width, seed=0):
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, n_terms + 1)
    draws = rng.choice(n_terms, (n_docs, width), p=weights / weights.sum())
    return rows_of([np.unique(row[: rng.integers(width + 1)]) for row in draws])


def plain_cost(rows, order):
    """Oracle of `order_cost`."""
    lists = {}
    for position, document in enumerate(order):
        for rank in rows[document]:
            lists.setdefault(rank, [-1]).append(position)
    bits = sum(np.log2(np.diff(positions)).sum() for positions in lists.values())
    return bits, sum(len({position // 8 for position in positions[1:]}) for positions in lists.values())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sets(st.integers(0, 12), max_size=8), max_size=70), st.integers(1, 40))
def test_an_order_is_a_permutation(rows, max_iterations):
    order = bisection_order(*rows_of(rows), 13, n_threads=1, max_iterations=max_iterations)
    assert order.dtype == np.int32
    assert sorted(order.tolist()) == list(range(len(rows)))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sets(st.integers(0, 12), max_size=8), max_size=40), st.randoms())
def test_cost_is_that_of_the_posting_lists(rows, random):
    order = list(range(len(rows)))
    random.shuffle(order)
    bits, n_pairs = order_cost(*rows_of(rows), 13, np.array(order, np.int32))
    assert (bits, n_pairs) == (pytest.approx(plain_cost(rows, order)[0]), plain_cost(rows, order)[1])


def halves_cost(rows, right, n_left, n_right):
    """Log-gap bits of two halves by the paper's formula, the sizes of the halves fixed."""
    counts = np.zeros((2, 12))
    for row, side in zip(rows, right, strict=True):
        counts[int(side), row] += 1
    return (counts * np.log2(np.array([[n_left], [n_right]]) / (counts + 1))).sum()


def test_a_pull_is_what_moving_the_document_saves():
    rng = np.random.default_rng(4)
    rows = [np.sort(rng.choice(12, rng.integers(1, 7), replace=False)) for _ in range(24)]
    indptr, ranks = rows_of(rows)
    right = np.arange(24) >= 16
    laid = bisection.Rows(np.arange(24, dtype=np.int32), indptr[:-1].copy(), indptr[1:].copy(), ranks)
    sides = bisection.Sides(np.empty(24, np.int64), right, np.zeros(24, np.bool_))
    counts = np.bincount(ranks, minlength=12).astype(np.int32)
    in_right = np.bincount(ranks[indptr[16] :], minlength=12).astype(np.int32)
    terms = bisection.Terms(counts, in_right, np.empty(12, np.int32), np.empty(12, np.int32))
    bisection.term_pulls(terms, bisection.log_gap_steps(30), 16, 8, 0.0)
    bisection.document_pulls(laid, sides, terms, bisection.LOT_ROUNDS + 1, 0, 24)
    for i in range(24):
        left_cost, right_cost = (halves_cost(rows, np.where(np.arange(24) == i, side, right), 16, 8) for side in (False, True))
        assert sides.pulls[i] / 2**bisection.FRACTION_BITS == pytest.approx(left_cost - right_cost, abs=1e-3)


def test_terms_of_one_document_and_of_all_are_dropped():
    numbers = np.empty(6, np.uint32)
    assert bisection.number_terms(np.array([1, 2, 8, 9, 10, 0], np.int32), 10, numbers) == 3
    dropped = int(bisection.DROPPED)
    assert numbers.tolist() == [dropped, 0, 1, 2, dropped, dropped]


@pytest.mark.parametrize("n_docs", [0, 1, 8])
def test_what_fits_a_block_stays_as_it_is(n_docs):
    assert bisection_order(*rows_of([[0, 1]] * n_docs), 2).tolist() == list(range(n_docs))


@pytest.mark.parametrize("row", [[], [0], [0, 1, 2]])
def test_equal_rows_stay_as_they_are(row):
    assert bisection_order(*rows_of([row] * 100), 3).tolist() == list(range(100))


def test_empty_rows_among_others():
    rows = [[i % 5] if i % 3 else [] for i in range(200)]
    assert sorted(bisection_order(*rows_of(rows), 5).tolist()) == list(range(200))


@pytest.mark.parametrize("n_docs", [64, 3008, 10_000])
def test_two_interleaved_clusters_are_separated(n_docs):
    rng = np.random.default_rng(1)
    rows = [np.sort(rng.choice(50, 10, replace=False)) + 50 * (i % 2) for i in range(n_docs)]
    clusters = bisection_order(*rows_of(rows), 100) % 2
    assert np.count_nonzero(np.diff(clusters)) == 1  # clusters of whole blocks, as halves are


@pytest.mark.parametrize("n_terms", [20, 1000])
def test_random_rows_get_no_worse(n_terms):
    indptr, ranks = random_rows(3000, n_terms, 30)
    before = order_cost(indptr, ranks, n_terms, np.arange(3000, dtype=np.int32))
    after = order_cost(indptr, ranks, n_terms, bisection_order(indptr, ranks, n_terms))
    assert after[0] < before[0]
    assert after[1] < before[1]


def test_topics_get_neighbours_almost_as_well_as_when_sorted_by_topic():
    rng = np.random.default_rng(2)
    topics = rng.integers(64, size=4096)
    rows = [np.unique(np.concatenate([topic * 20 + rng.integers(20, size=10), rng.integers(1280, size=3)])) for topic in topics]
    indptr, ranks = rows_of(rows)
    orders = [np.arange(4096), np.argsort(topics, kind="stable"), bisection_order(indptr, ranks, 1280)]
    came, sorted_, found = (order_cost(indptr, ranks, 1280, order.astype(np.int32))[1] for order in orders)
    assert sorted_ < came
    assert found < sorted_ + 0.1 * (came - sorted_)


@pytest.mark.parametrize("shuffled", [False, True])
def test_twins_meet_in_a_block(shuffled):
    """Twins that see each other on the other side must not change sides together for ever."""
    rng = np.random.default_rng(3)
    rows = [np.sort(rng.choice(300, 12, replace=False)) for _ in range(512)]
    place = rng.permutation(1024) if shuffled else np.arange(1024)
    order = bisection_order(*rows_of([rows[i % 512] for i in place]), 300)
    block_of = np.empty(1024, np.int64)
    block_of[place[order]] = np.arange(1024) // 8
    assert np.count_nonzero(block_of[:512] == block_of[512:]) > 0.6 * 512


def test_order_depends_on_neither_threads_nor_the_width_of_ranks(monkeypatch):
    monkeypatch.setattr(reorder, "SMALL_TASK_DOCS", 200)  # so that threads split together, several times
    indptr, ranks = random_rows(5000, 500, 20)
    alone = bisection_order(indptr, ranks, 500, n_threads=1)
    for n_threads in (2, 3, 7):
        assert np.array_equal(bisection_order(indptr, ranks, 500, n_threads=n_threads), alone)
    assert np.array_equal(bisection_order(indptr, ranks.astype(np.uint16), 500, n_threads=2), alone)
    monkeypatch.setattr(reorder, "SMALL_TASK_DOCS", 5000)
    assert np.array_equal(bisection_order(indptr, ranks, 500, n_threads=1), alone)


def test_progress_rises_to_one(monkeypatch):
    monkeypatch.setattr(reorder, "SMALL_TASK_DOCS", 100)
    shares = []
    bisection_order(*random_rows(1000, 100, 10), 100, n_threads=2, progress=shares.append)
    assert len(shares) > 8
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_input_is_left_alone():
    indptr, ranks = random_rows(300, 50, 10)
    copies = indptr.copy(), ranks.copy()
    bisection_order(indptr, ranks, 50)
    assert np.array_equal(indptr, copies[0])
    assert np.array_equal(ranks, copies[1])
    assert ranks.flags.writeable


@pytest.mark.parametrize(
    ("indptr", "ranks", "n_terms", "error"),
    [
        ([0, 2], np.array([0, 5], np.uint32), 5, ValueError),
        ([0, 2, 1, 3], np.arange(3, dtype=np.uint32), 5, ValueError),
        ([0, 4], np.arange(3, dtype=np.uint32), 5, ValueError),
        ([], np.empty(0, np.uint32), 5, ValueError),
        ([0, 3], np.arange(3), 5, TypeError),
    ],
)
def test_arrays_that_kernels_could_not_take_are_refused(indptr, ranks, n_terms, error):
    with pytest.raises(error, match=r"ranks|indptr"):
        bisection_order(np.array(indptr, np.int64), ranks, n_terms)


@pytest.mark.parametrize("numbers", [{"min_partition": 7}, {"max_iterations": 0}, {"n_threads": 0}])
def test_numbers_out_of_range_are_refused(numbers):
    with pytest.raises(ValueError, match=next(iter(numbers))):
        bisection_order(*rows_of([[0]]), 1, **numbers)


def test_cost_of_what_is_no_permutation_is_refused():
    with pytest.raises(ValueError, match="permutation"):
        order_cost(*rows_of([[0], [0]]), 1, np.zeros(2, np.int32))


def test_order_is_the_same_without_compilation():
    script = """
import json, sys
import numpy as np
from lexmax.index.sparse.reorder import bisection_order
ranks = np.array([(7 * i * i + i // 4) % 11 + 11 * (i % 2) for i in range(180)], np.uint32)
print(json.dumps(bisection_order(np.arange(0, 181, 3), ranks, 22, n_threads=2).tolist()))
"""
    orders = [
        json.loads(subprocess.check_output([sys.executable, "-c", script], env={**os.environ, "NUMBA_DISABLE_JIT": disabled}))
        for disabled in "01"
    ]
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == list(range(60))
