"""Interleaved timing: in every pass each engine answers the whole stream of queries, one engine after another.

The best of the passes counts for each query, so what else the machine does touches all engines alike; the stream is longer
than the caches, so no engine finds its last query's postings there. CPU time is the calling thread's.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Search = Callable[[Any, int], Any]


@dataclass(frozen=True, eq=False)
class Stream:
    """One engine's answers and times.

    Attributes
    ----------
    cpu_us, wall_us : (n_queries,) float64
        Best of the passes, in microseconds.
    answers : list
        What the engine returned in the first pass.
    other_threads : float
        CPU time that other threads of the process took meanwhile, over that of the calling thread: about 0 when the engine
        kept to one.
    """

    cpu_us: npt.NDArray[np.float64]
    wall_us: npt.NDArray[np.float64]
    answers: list[Any]
    other_threads: float


def interleave(
    searches: Mapping[str, Search], prepared: Mapping[str, Sequence[Any]], k: int, n_passes: int
) -> dict[str, Stream]:
    """Time every search on its prepared queries.

    Parameters
    ----------
    searches : mapping
        Engine -> function of a prepared query and k.
    prepared : mapping
        Engine -> its queries, as many for each.
    n_passes : int
        At least 1.
    """
    if n_passes < 1:
        raise ValueError(f"there must be at least one pass, not {n_passes}")
    for name, search in searches.items():
        search(prepared[name][0], k)
    passes: dict[str, list[tuple[npt.NDArray[np.int64], list[Any], int]]] = {name: [] for name in searches}
    for number in range(n_passes):
        for name, search in searches.items():
            times, answers, others = _one_pass(search, prepared[name], k)
            passes[name].append((times, answers if number == 0 else [], others))
    streams = {}
    for name, done in passes.items():
        cpu, wall = np.min([times for times, _, _ in done], axis=0)
        total = sum(int(times[0].sum()) for times, _, _ in done)
        others = sum(others for _, _, others in done)
        streams[name] = Stream(cpu / 1000, wall / 1000, done[0][1], max(0.0, others / max(1, total)))
    return streams


def _one_pass(search: Search, queries: Sequence[Any], k: int) -> tuple[npt.NDArray[np.int64], list[Any], int]:
    """CPU and wall nanoseconds (2, n), answers, and the CPU nanoseconds of other threads."""
    times = np.empty((2, len(queries)), np.int64)
    answers = []
    gc.collect()
    gc.disable()
    process_start, thread_start = time.process_time_ns(), time.thread_time_ns()
    for i, query in enumerate(queries):
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        answers.append(search(query, k))
        times[0, i] = time.thread_time_ns() - cpu
        times[1, i] = time.perf_counter_ns() - wall
    others = (time.process_time_ns() - process_start) - (time.thread_time_ns() - thread_start)
    gc.enable()
    return times, answers, others
