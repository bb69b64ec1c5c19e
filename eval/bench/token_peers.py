"""Peers that need a Python environment of their own: a worker process answers over pipes and takes its own times.

fast-plaid is tied to one torch version, so `token_worker` runs it under another interpreter, on the same vectors.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...index.arrays import Floats, Int64s
from . import token_worker
from .token_engines import TokenEngine

FAST_PLAID = "fast-plaid"
FAST_PLAID_GRID = ((2, 512), (4, 1024), (8, 4096), (8, 8192))
"""n_ivf_probe and n_full_scores; (8, 4096) are the package's defaults, (8, 8192) what PyLate's PLAID gives it."""
THREADS = 1


class Worker:
    """A process that answers requests, a line of JSON each; ``versions`` is its first line.

    Raises
    ------
    RuntimeError
        The process ended; what it said last is in the message.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._log = log
        with log.open("w") as errors:
            self._process = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )  # fmt: skip
        self.versions = self._read()

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and return the reply."""
        pipe = self._process.stdin
        try:
            if pipe is not None:
                pipe.write(json.dumps(request) + "\n")
                pipe.flush()
        except BrokenPipeError:
            pass  # the process ended, and `_read` says why
        return self._read()

    def close(self) -> None:
        """Let the process end."""
        self._process.communicate()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            self.close()
            said = self._log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{self._process.args!r} ended with status {self._process.returncode}:\n{said}")
        reply: dict[str, Any] = json.loads(line)
        return reply


class FastPlaidTokens:
    """fast-plaid's index in a worker; `times` has what each search took inside the package."""

    slow = True

    def __init__(self, tokens: Path, index: Path, *, python: str) -> None:
        self._worker = Worker(_command(python, tokens, index, "serve"), index.with_name(f"{FAST_PLAID}.log"))
        self.versions = self._worker.versions
        self._settings = {
            f"{FAST_PLAID}-{probe}-{full}": {"n_ivf_probe": probe, "n_full_scores": full} for probe, full in FAST_PLAID_GRID
        }
        self.rows = dict.fromkeys(self._settings, FAST_PLAID)
        self._times: dict[str, list[tuple[float, float]]] = {row: [] for row in self.rows}

    def prepare(self, number: int, tokens: Floats) -> int:
        """Return the number: the worker has the queries."""
        return number

    def search(self, row: str, query: int, k: int) -> Int64s:
        """Answer one query, and note the worker's time."""
        reply = self._ask(row, [query], k, THREADS)
        self._times[row].append((reply["cpu_us"], reply["wall_us"]))
        return np.array(reply["documents"][0], np.int64)

    def search_all(self, row: str, queries: Sequence[int], k: int, n_threads: int) -> Mapping[str, float]:
        """Answer one batch, with as many threads of torch."""
        reply = self._ask(row, queries, k, n_threads)
        return {"cpu_us": reply["cpu_us"], "wall_us": reply["wall_us"]}

    def take_times(self, row: str, n_queries: int) -> npt.NDArray[np.float64]:
        """Best CPU and wall microseconds (2, n_queries) of all passes since the last call, a first warming search left out."""
        times, self._times[row] = self._times[row][1:], []
        return np.asarray(np.array(times).reshape(-1, n_queries, 2).min(axis=0).T, np.float64)

    def _ask(self, row: str, queries: Sequence[int], k: int, n_threads: int) -> dict[str, Any]:
        return self._worker.ask({"queries": list(queries), "k": k, "threads": n_threads, **self._settings[row]})

    def close(self) -> None:
        """End the worker."""
        self._worker.close()


def fast_plaid(python: str) -> TokenEngine:
    """Return the engine that ``python`` runs, the interpreter of an environment with fast-plaid."""
    return TokenEngine(build=partial(_build, python=python), open=partial(FastPlaidTokens, python=python))


def _build(tokens: Path, index: Path, *, python: str) -> Mapping[str, float]:
    worker = Worker(_command(python, tokens, index, "build"), index.with_name(f"{FAST_PLAID}.log"))
    worker.close()
    return worker.versions


def _command(python: str, tokens: Path, index: Path, task: str) -> list[str]:
    return [python, token_worker.__file__, str(tokens), str(index), str(THREADS), task]
