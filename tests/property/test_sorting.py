"""Sorting kernels agree with NumPy's, and no kernel calls what Numba makes of NumPy's."""

import ast
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lexmax
from lexmax.index.kernels.sorting import kth_smallest, lower_bound, order_of, sort

EXAMPLES = int(os.environ.get("LEXMAX_EXAMPLES", 200))
values = st.integers(1, 50).flatmap(lambda spread: st.lists(st.integers(-spread, spread), max_size=300))
dtypes = st.sampled_from([np.int32, np.int64, np.float32, np.float64])


@settings(max_examples=EXAMPLES, deadline=None)
@given(values, dtypes, st.integers(-60, 60))
def test_sorts_agree_with_numpy(numbers, dtype, wanted):
    array = np.array(numbers, dtype)
    assert order_of(array).tolist() == np.argsort(array, kind="stable").tolist()
    for k in range(0, len(array), 7):
        assert kth_smallest(array, k) == np.sort(array)[k]
    assert array.tolist() == numbers
    sort(array)
    assert array.tolist() == sorted(numbers)
    assert lower_bound(array, dtype(wanted)) == np.searchsorted(array, wanted)


@pytest.mark.parametrize("n", [5000, 70_001])
@pytest.mark.parametrize("kind", ["random", "equal", "rising", "falling", "two"])
def test_long_arrays_agree_with_numpy(n, kind):
    rng = np.random.default_rng(n)
    array = {
        "random": rng.standard_normal(n), "equal": np.zeros(n), "rising": np.arange(n), "falling": np.arange(n)[::-1],
        "two": rng.integers(0, 2, n),
    }[kind].astype(np.float64)  # fmt: skip
    assert np.array_equal(order_of(array), np.argsort(array, kind="stable"))
    for k in (0, n // 3, n - 1):
        assert kth_smallest(array, k) == np.sort(array)[k]
    expected = np.sort(array)
    sort(array)
    assert np.array_equal(array, expected)


FORBIDDEN = {"sort", "argsort", "partition", "argpartition", "searchsorted", "unique", "median", "percentile", "quantile"}


def test_kernels_leave_numpys_sorts_alone():
    """Compiled in different processes and loaded into one, Numba's variants of them can be linked to each other."""
    root = Path(lexmax.__file__).parent
    for path in [*root.glob("index/kernels/*.py"), *root.glob("retrieval/kernels/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert node.func.attr not in FORBIDDEN, f"{path}:{node.lineno}"
