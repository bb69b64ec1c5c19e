"""Build one engine's index in a process of its own, so that its peak memory is its own.

    python -m lexmax.eval.bench.build ENGINE ROWS INDEX [--reorder]

ROWS is a folder that `workload.Rows.save` wrote; INDEX an empty folder, beside which INDEX.json gets what was measured.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from . import ONE_THREAD
from .engines import LEXMAX, build_lexmax
from .peers import ENGINES
from .workload import Rows


@dataclass(frozen=True, kw_only=True)
class BuildFacts:
    """What building cost.

    Attributes
    ----------
    build_s : float
        Wall seconds, conversion of the input excluded where the package allows it.
    peak_mb : float
        Peak resident memory of the whole process, the input included, in MiB.
    n_bytes : int
        Size of the index on disk.
    """

    build_s: float
    peak_mb: float
    n_bytes: int


def build_apart(engine: str, rows: Path, index: Path, *, reorder: bool = False) -> BuildFacts:
    """Build in a new process of one thread; its output is dropped.

    Raises
    ------
    RuntimeError
        The engine failed; the end of what it said is in the message.
    """
    command = [sys.executable, "-m", __name__, engine, str(rows), str(index), *(["--reorder"] if reorder else [])]
    done = subprocess.run(command, env=os.environ | ONE_THREAD, capture_output=True, text=True, errors="replace")  # noqa: S603
    if done.returncode != 0:
        raise RuntimeError(f"{engine} could not build its index:\n{done.stderr[-2000:]}")
    return BuildFacts(**json.loads(_facts_of(index).read_text()))


def build_here(engine: str, rows_folder: Path, index: Path, *, reorder: bool = False) -> BuildFacts:
    """Build in this process, after a tiny index that compiles what must be compiled."""
    build = partial(build_lexmax, reorder=reorder) if engine == LEXMAX else ENGINES[engine].build
    tiny = Rows(np.arange(0, 1001, 2), np.tile(np.arange(2, dtype=np.int32), 500), np.full(1000, 255, np.uint8))
    with tempfile.TemporaryDirectory() as folder:
        if ENGINES[engine].package is None:
            build(tiny, Path(folder))
    index.mkdir(parents=True, exist_ok=True)
    elapsed = build(Rows.load(rows_folder), index)
    n_bytes = sum(path.stat().st_size for path in index.rglob("*") if path.is_file())
    return BuildFacts(build_s=elapsed, peak_mb=peak_mb(), n_bytes=n_bytes)


def _facts_of(index: Path) -> Path:
    return index.with_name(index.name + ".json")


def peak_mb() -> float:
    """Peak of this program; what getrusage tells on Linux can be that of the program which started it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _main() -> None:
    engine, rows, index = sys.argv[1:4]
    facts = build_here(engine, Path(rows), Path(index), reorder="--reorder" in sys.argv[4:])
    _facts_of(Path(index)).write_text(json.dumps(asdict(facts)))


if __name__ == "__main__":
    _main()
