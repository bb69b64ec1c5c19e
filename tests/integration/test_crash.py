"""kill -9 at random moments of build, add, delete and compact: nothing committed is lost.

Commands of the command line are killed by ``tests/stress/kill.py``, of which a few kills are here.

LEXMAX_CRASHES sets how many times (default 6; the figure in the README is of 50).
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lexmax.index.check import check_index
from lexmax.index.errors import IndexNotFoundError
from lexmax.index.snapshot import Snapshot

N_CRASHES = int(os.environ.get("LEXMAX_CRASHES", "6"))

WRITER = """
import json, os, random, sys
from lexmax import Collection
from lexmax.index.collection import BufferLimits, NewField
from lexmax.index.documents import Document
from lexmax.index.errors import IndexNotFoundError
from lexmax.index.manifest import EncoderRecord
from lexmax.retrieval.encoders.lexical import LexicalEncoder

path, log, seed = sys.argv[1:]
rng, encoder = random.Random(int(seed)), LexicalEncoder()
try:
    collection = Collection.open(path, limits=BufferLimits(n_postings=400))
except IndexNotFoundError:
    record = EncoderRecord(kind="bm25", fingerprint="bm25:0", settings={})
    weights = {"bm25": 0.75, "short": 0.0}
    fields = {name: NewField(encoder=record, options={"bm25": {"k1": 1.2, "b": b}}) for name, b in weights.items()}
    collection = Collection.create(path, fields)
segments = collection.snapshot().segments if collection.manifest.generation else []
live = {doc_id for s in segments for i, doc_id in enumerate(s.documents.doc_ids.to_arrow().to_pylist())
        if s.live is None or s.live[i]}
step = max([int(d[1:].split("-")[0]) for d in live], default=0) + 1000
print("ready", flush=True)
with open(log, "a") as out:
    def tell(what):
        out.write(json.dumps({"what": what, "live": sorted(live)}) + "\\n")
        out.flush()
        os.fsync(out.fileno())
    while True:
        step += 1
        words = lambda: f"word{rng.randrange(50)} word{rng.randrange(50)}"
        new = [Document(doc_id=f"d{step}-{i}", text=words()) for i in range(rng.randrange(1, 200))]
        gone = rng.sample(sorted(live), min(len(live), rng.randrange(0, 150)))
        vectors = encoder.encode_documents([d.text for d in new])
        collection.add(new, {"bm25": vectors, "short": vectors})
        collection.delete(gone)
        if rng.random() < 0.3:
            collection.compact()
        live = (live | {d.doc_id for d in new}) - set(gone)
        tell("committing")
        collection.commit()
        tell("committed")
"""


def states(log: Path) -> list[dict]:
    lines = log.read_text().split("\n") if log.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def live_ids(path: Path) -> list[str]:
    try:
        snapshot = Snapshot.open(path, verify=True)
    except IndexNotFoundError:
        return []
    found = []
    for segment in snapshot.segments:
        ids = segment.documents.doc_ids.to_arrow().to_pylist()
        found += [doc_id for i, doc_id in enumerate(ids) if segment.live is None or segment.live[i]]
    return sorted(found)


@pytest.mark.parametrize("seed", [20261124])
def test_nothing_committed_is_lost(tmp_path, seed):
    rng = random.Random(seed)
    path, log = tmp_path / "idx", tmp_path / "log"
    n_commits = 0
    for crash in range(N_CRASHES):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(log), str(crash)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.0, 2.0))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        found, history = live_ids(path), states(log)
        n_commits += sum(state["what"] == "committed" for state in history)
        if path.joinpath("manifest.json").exists():
            assert check_index(path) == []
        # What was committed last, or what was being committed when the blow fell: never less, never a mixture.
        last = next((s["live"] for s in reversed(history) if s["what"] == "committed"), [])
        possible = [last] + ([history[-1]["live"]] if history and history[-1]["what"] == "committing" else [])
        assert found in possible
        log.write_text(json.dumps({"what": "committed", "live": found}) + "\n")
    assert n_commits > N_CRASHES // 2


def test_killed_commands_leave_a_commit_and_go_on():
    """Builds of several fields and fields that are filled: see ``tests/stress/kill.py``, whose other scenarios run by hand."""
    program = Path(__file__).parents[1] / "stress" / "kill.py"
    run = subprocess.run(
        [sys.executable, str(program), "--landed", "4", "--scenario", "resume", "field-add"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "SIGKILL: 4 landed" in run.stdout
