import pytest


@pytest.fixture(autouse=True)
def threads_stay(monkeypatch):
    """Benchmarks keep their own process to one thread; here numba is loaded, and other tests use threads."""
    monkeypatch.setattr("lexmax.eval.bench.command.use_threads", lambda n=1: None)
