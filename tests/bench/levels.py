"""Time the integer kernels as Numba compiles them for processors with other instructions, on one machine that has them all.

    python tests/bench/levels.py [LEVEL ...]

Each level runs in a process of its own, round after round, one thread: nanoseconds of its CPU time for a token (MaxSim of 32
query tokens of 128 numbers) and milliseconds for a text (`lexmax-colbert`). Medians of rounds.
"""

import os

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")

import json
import subprocess
import sys
import time

import numpy as np

AVX2 = "+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt"
TORCH = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
"""For its float32 to use the same instructions."""
LEVELS = {
    "this processor": {},
    "AVX-VNNI": {"NUMBA_CPU_NAME": "alderlake", "NUMBA_CPU_FEATURES": f"{AVX2},+avxvnni", **TORCH},
    "AVX2": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": AVX2, **TORCH},
    "SSE4.2": {"NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": "+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt"},
}
"""What Numba is told of the processor."""
ROUNDS, REPEATS = 5, 7
N_TOKENS, DIM, LONG = 2000, 128, "statins lower the blood pressure of old people " * 15 + "a trial"


def worker() -> None:
    """Time every kernel whenever a line comes, and print a JSON line."""
    import torch

    from lexmax import load_encoder
    from lexmax.index.kernels.dot_products import LANES, dot_rows, pack_lanes
    from lexmax.retrieval.kernels.maxsim import maxima

    torch.set_num_threads(1)
    rng = np.random.default_rng(1)
    packed = pack_lanes(rng.integers(-127, 128, (LANES, DIM)).astype(np.int8))[0]
    rows, out = rng.integers(0, 256, (N_TOKENS, DIM)).astype(np.uint8), np.empty((N_TOKENS, LANES), np.int32)
    dots, codes = rng.integers(-1000, 1000, (256, LANES)).astype(np.int32), rng.integers(0, 256, N_TOKENS).astype(np.uint16)
    scalars, constants, best = np.ones((N_TOKENS, 2), np.uint8), np.ones(69, np.float32), np.empty(LANES, np.float32)
    two, start = rng.integers(0, 256, (N_TOKENS, DIM // 4)).astype(np.uint8), np.zeros(LANES, np.int32)
    rest = codes, scalars, 0, N_TOKENS, dots, packed, constants, best
    ways = {
        "2-bit MaxSim, ns a token": (lambda: maxima(2, two, *rest), N_TOKENS),
        "8-bit MaxSim, ns a token": (lambda: maxima(8, rows, *rest), N_TOKENS),
        "8-bit products, ns a token": (lambda: dot_rows(rows, packed, start, out), N_TOKENS),
    }
    for dtype in ("int8", "float32"):
        encoder = load_encoder(model="lexmax-colbert", dtype=dtype)
        ways[f"document of 140 tokens, {dtype}, ms"] = (lambda encoder=encoder: encoder.encode_documents([LONG]), 1e6)
        ways[f"query, {dtype}, ms"] = (lambda encoder=encoder: encoder.encode_queries(["do statins lower blood pressure"]), 1e6)
    for way, _ in ways.values():
        way()
    print("ready", flush=True)
    for _ in sys.stdin:
        found = {}
        for name, (way, n) in ways.items():
            taken = []
            for _ in range(REPEATS):
                begun = time.thread_time_ns()
                way()
                taken.append((time.thread_time_ns() - begun) / n)
            found[name] = float(np.median(taken))
        print(json.dumps(found), flush=True)


def main(levels: list[str]) -> None:
    """Start a process for each level, let them take turns, and print a table."""
    workers = {}
    for level in levels:
        environment = {**os.environ, **LEVELS[level]}
        command = [sys.executable, __file__, "--worker"]
        workers[level] = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    found: dict[str, list[dict[str, float]]] = {level: [] for level in levels}
    for each in workers.values():
        each.stdout.readline()
    for _ in range(ROUNDS):
        for level, each in workers.items():
            each.stdin.write("\n")
            each.stdin.flush()
            found[level].append(json.loads(each.stdout.readline()))
    for each in workers.values():
        each.stdin.close()
        each.wait()
    print(f"| | {' | '.join(levels)} |\n|---|{'---:|' * len(levels)}")
    for name in found[levels[0]][0]:
        medians = [np.median([each[name] for each in found[level]]) for level in levels]
        print(f"| {name} | {' | '.join(f'{median:.1f}' for median in medians)} |")


if __name__ == "__main__":
    if sys.argv[1:] == ["--worker"]:
        worker()
    else:
        main(sys.argv[1:] or list(LEVELS))
