"""Trials in child processes, so that one that crashes or hangs is counted and the next goes on."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable

CONTEXT = multiprocessing.get_context("fork")


def run_trials(trial: Callable[[int], str], n: int, *, timeout_s: float = 60.0) -> tuple[Counter[str], list[str]]:
    """Run ``trial(0)`` to ``trial(n - 1)``.

    Returns
    -------
    (outcomes, failures)
        How often each outcome was returned, "crash", "hang" and "untyped error" among them, and these three with their trials.
    """
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    first = 0
    while first < n:
        ours, theirs = CONTEXT.Pipe(duplex=False)
        child = CONTEXT.Process(target=_work, args=(trial, first, n, theirs))
        child.start()
        theirs.close()
        while first < n:
            outcome = detail = ""
            try:
                outcome, detail = ours.recv() if ours.poll(timeout_s) else ("hang", f"more than {timeout_s:.0f} s")
            except EOFError:
                child.join()
                outcome, detail = "crash", f"exit code {child.exitcode}"
            outcomes[outcome] += 1
            if detail:
                failures.append(f"trial {first}: {outcome}: {detail}")
            first += 1
            if outcome in ("hang", "crash"):
                break
        child.kill()
        child.join()
    return outcomes, failures


def _work(trial: Callable[[int], str], first: int, n: int, pipe: multiprocessing.connection.Connection) -> None:
    for number in range(first, n):
        try:
            pipe.send((trial(number), ""))
        except Exception as failure:
            import traceback

            where = traceback.extract_tb(failure.__traceback__)[-1]
            pipe.send(("untyped error", f"{type(failure).__name__}: {failure} ({where.filename}:{where.lineno})"))
