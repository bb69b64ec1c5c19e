"""Each program of tests/examples runs, and prints what it shows."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SHOWN = {
    "notebook.py": ["Vitamin D helps the body to absorb calcium."],
    "rag.py": ["[valve-1] Safety valve: The safety valve opens at 6 bar.", "[pump-1] Pump: Prime the pump"],
    "growing_index.py": ["before reload: ['mon']", "after reload:  ['mon', 'tue']", "at the end:    [] Call the electrician"],
    "fields_and_expressions.py": ["english + german", "0.3*english + 0.7*german"],
    "vectors.py": ["[('dogs', 1.45), ('cats', 0.6)]", "[('birds', 1.1)]"],
    "http_client.py": ["['birds']", "there is no field 'colbert'"],
    "evaluation.py": ["nDCG@10", "0.68"],
}


def test_every_example_is_listed_here():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SHOWN)


@pytest.mark.parametrize("name", SHOWN)
def test_example_runs(name):
    done = subprocess.run(
        [sys.executable, EXAMPLES / name], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr
    for line in SHOWN[name]:
        assert line in done.stdout
