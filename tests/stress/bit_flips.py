"""Flip single bits in the files of an index and use it: damage is noticed, or no answer changes.

    python tests/stress/bit_flips.py [--flips 1000] [--large] [--tokens N] [--fields NAME ...] [--documents N] [--seed 1]

With ``--large`` flips are in files larger than 64 MiB, which each kind of file has. Every flip is followed by opening the
index, searching each field with and without a filter, scoring, explaining and fetching documents. Prints how many flips were
noticed in use ("noticed"), changed no answer and were found by verifying ("harmless"), changed an answer ("wrong"), were found
by nothing ("unseen"), or crashed.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from all_kinds import ALL, build, queries_of, use
from damage import flip
from trials import run_trials

from lexmax import IndexFormatError
from lexmax.index.snapshot import Snapshot

SMALL = {"n": 1200, "width": 20, "n_tokens": 4, "text_bytes": 400, "id_bytes": 10, "names": ALL}
LARGE = {"n": 90_000, "width": 160, "n_tokens": 14, "text_bytes": 900, "id_bytes": 900}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--tokens", type=int, help="token vectors of a document; with fewer their files are not large")
    parser.add_argument(
        "--fields", nargs="+", choices=ALL, help="which the index has (default: all; of a large one the first five)"
    )
    parser.add_argument("--documents", type=int, help="of the index")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--index", type=Path, help="keep the index here, and use it again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.index or Path(folder) / "idx"
        if not path.exists():
            sizes = LARGE if options.large else SMALL
            chosen = {"n_tokens": options.tokens, "names": options.fields, "n": options.documents}
            build(path, **{**sizes, **{name: value for name, value in chosen.items() if value}})
        queries = queries_of(2, 20, exhaustive=not options.large)
        sound = use(path, queries)
        limit = 64 << 20 if options.large else 0
        files = sorted(each for each in path.rglob("*") if each.is_file() and each.name != "write.lock")
        files = [each for each in files if each.stat().st_size > limit]
        started = time.monotonic()

        def trial(number: int) -> str:
            rng = np.random.default_rng([options.seed, number])
            file = files[number % len(files)]
            position, bit = int(rng.integers(file.stat().st_size)), int(rng.integers(8))
            journal = path.with_name("flip.json")
            if journal.exists():  # of a trial that crashed
                flip(*json.loads(journal.read_text()))
            journal.write_text(json.dumps([str(file), position, bit]))
            flip(file, position, bit)
            try:
                return outcome()
            finally:
                flip(file, position, bit)
                journal.unlink()

        def outcome() -> str:
            try:
                if use(path, queries) != sound:
                    return "wrong"
            except IndexFormatError:
                return "noticed"
            try:
                Snapshot.open(path, verify=True)
            except IndexFormatError:
                return "harmless"
            return "unseen"

        outcomes, failures = run_trials(trial, options.flips, timeout_s=120)
        print(json.dumps({"flips": options.flips, "seconds": round(time.monotonic() - started), **outcomes}))
        print(", ".join(f"{file.relative_to(path)} {file.stat().st_size / 2**20:.1f} MiB" for file in files))
        print("\n".join(failures))


if __name__ == "__main__":
    main()
