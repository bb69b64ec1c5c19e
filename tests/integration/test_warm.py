"""What `lexmax warm` has compiled need not be compiled again."""

import subprocess
import sys

from lexmax.__main__ import main
from lexmax.retrieval.commands.upkeep import KINDS_OF_FIELDS
from lexmax.retrieval.warming import JOBS

FIRST_USE = """
from lexmax import Retriever
from lexmax.index.kernels import watched
compiled = []
with watched(compiled.append):
    texts = [f"word{i % 7} and term{i % 11} of text {i}" for i in range(500)]
    with Retriever.from_texts(texts, encoders=["bm25"]) as retriever:
        assert retriever.search("word3 term5", k=3)
        assert retriever.search("text", k=100)
print(compiled)
"""


def test_after_warming_nothing_is_compiled(monkeypatch):
    monkeypatch.delenv("NUMBA_DISABLE_JIT", raising=False)
    done = subprocess.run(
        [sys.executable, "-m", "lexmax", "warm", "--field", "bm25"], capture_output=True, text=True, check=True
    )
    assert "kept for later runs" in done.stderr
    used = subprocess.run([sys.executable, "-c", FIRST_USE], capture_output=True, text=True, check=True)
    assert used.stdout.strip() == "[]"


def test_kinds_are_those_of_the_jobs():
    assert set(KINDS_OF_FIELDS) == set(JOBS)


def test_an_encoder_that_is_not_there_is_an_error(capsys):
    assert main(["warm", "--field", "bm25", "--encoder", "no-such-model"]) == 2
    assert "no-such-model" in capsys.readouterr().err


def test_without_compilation_there_is_nothing_to_warm(monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    done = subprocess.run([sys.executable, "-m", "lexmax", "warm"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "NUMBA_DISABLE_JIT" in done.stderr
