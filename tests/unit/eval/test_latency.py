import pytest

from lexmax.eval.latency import percentiles_ms


def test_percentiles_are_linear_between_times():
    times_s = [i / 1000 for i in range(101)]
    assert percentiles_ms(times_s[::-1]) == pytest.approx({"p50": 50, "p95": 95, "p99": 99})
    assert percentiles_ms([0.001, 0.003]) == pytest.approx({"p50": 2, "p95": 2.9, "p99": 2.98})
    assert percentiles_ms([0.25]) == {"p50": 250, "p95": 250, "p99": 250}


def test_no_times():
    with pytest.raises(ValueError, match="at least one"):
        percentiles_ms([])
