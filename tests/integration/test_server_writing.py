"""A server that is killed while documents are added over HTTP and clients search: the stress program, on a small scale."""

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[1] / "stress" / "writing_over_http.py"


def test_no_search_fails_and_what_was_acknowledged_is_there_after_a_kill():
    command = [sys.executable, str(PROGRAM), "--documents", "1200", "--batch", "40", "--clients", "3"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    row = json.loads(ended.stdout.splitlines()[0])
    assert row["lost"] == row["failed_searches_or_writes"] == 0
    assert 120 <= row["acknowledged_before_kill"] <= 1200
    assert row["searches"] > 10
