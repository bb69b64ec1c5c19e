from importlib import import_module

import numpy as np
import pytest

from lexmax.eval.significance import compare_with_first, holm


def values(n, seed, shift=0.0):
    return {f"q{i}": float(value) + shift for i, value in enumerate(np.random.default_rng(seed).normal(size=n))}


def test_holm_of_a_known_case():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_p_values_are_scipys():
    stats = import_module("scipy.stats")
    a, b, c = values(40, 1), values(40, 2, 0.3), values(40, 3, 0.6)
    found = compare_with_first({"a": {"x": a}, "b": {"x": b}, "c": {"x": c}})
    raw = []
    for other in (b, c):
        differences = np.array(list(other.values())) - np.array(list(a.values()))
        exact = stats.permutation_test(
            (differences,), np.sum, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(0)
        )
        assert exact.pvalue == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.02)
        raw.append(exact.pvalue)
    assert [found["b"]["x"], found["c"]["x"]] == pytest.approx(holm(raw), abs=0.02)
    assert 0.01 < found["b"]["x"] < 0.9  # a case that could go either way


def test_all_sixteen_signs_of_four_queries():
    base = {f"q{i}": 0.0 for i in range(4)}
    found = compare_with_first({"a": {"x": base}, "b": {"x": {"q0": 0.4, "q1": 0.3, "q2": 0.2, "q3": 0.1}}})
    assert found == {"b": {"x": pytest.approx(2 / 16, abs=0.02), "mean": pytest.approx(2 / 16, abs=0.02)}}


def test_the_mean_gives_collections_the_same_weight():
    """A hundred queries that lose a little each, and four that gain much: the mean over collections gains."""
    zero = {"large": {f"q{i}": 0.0 for i in range(100)}, "small": {f"q{i}": 0.0 for i in range(4)}}
    other = {"large": {f"q{i}": -0.05 for i in range(100)}, "small": {f"q{i}": 0.9 for i in range(4)}}
    found = compare_with_first({"a": zero, "b": other})["b"]
    assert found["large"] < 0.001
    assert found["small"] == pytest.approx(2 / 16, abs=0.02)
    assert found["mean"] == pytest.approx(2 / 16, abs=0.02)  # decided by the four, whose signs outweigh all others


def test_a_copy_differs_by_chance():
    assert compare_with_first({"a": {"x": values(9, 1)}, "b": {"x": values(9, 1)}}) == {"b": {"x": 1.0, "mean": 1.0}}
    assert compare_with_first({"a": {"x": values(9, 1)}}) == {}


def test_other_queries_are_refused():
    with pytest.raises(ValueError, match="the same queries"):
        compare_with_first({"a": {"x": values(9, 1)}, "b": {"x": values(8, 1)}})
    with pytest.raises(ValueError, match="the same queries"):
        compare_with_first({"a": {"x": values(9, 1)}, "b": {"y": values(9, 1)}})
    with pytest.raises(ValueError, match="at least one collection"):
        compare_with_first({})
