"""Renumbered rows are what plain Python says."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lexmax import SparseVectors
from lexmax.index.kernels import read_only
from lexmax.index.kernels.terms import add_frequencies
from lexmax.index.sparse.vocabulary import renumber


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(0, 199), max_size=120), max_size=5), st.integers(0, 2**32 - 1))
def test_rows_are_renumbered_sorted_and_lose_unknown_terms(rows, seed):
    rng = np.random.default_rng(seed)
    numbers = rng.permutation(200).astype(np.int32)
    numbers[rng.random(200) < 0.2] = -1
    vectors = SparseVectors.from_rows([(sorted(row), rng.random(len(row)) + 0.1) for row in rows])
    renumbered = renumber(vectors, numbers)
    assert len(renumbered) == len(rows)
    for i in range(len(rows)):
        terms, weights = vectors.row(i)
        expected = sorted((int(numbers[t]), w) for t, w in zip(terms, weights, strict=True) if numbers[t] >= 0)
        assert list(zip(*(part.tolist() for part in renumbered.row(i)), strict=True)) == expected


def test_frequencies_of_unordered_terms_are_added():
    terms, starts = (read_only(np.array(x)) for x in (np.array([2, 5, 9], np.int32), np.array([0, 4, 5, 11])))
    frequencies = np.array([1, 1, 1, 1], np.int64)
    add_frequencies(terms, starts, read_only(np.array([9, 2, 3, 50], np.int32)), frequencies)
    assert frequencies.tolist() == [7, 5, 1, 1]
