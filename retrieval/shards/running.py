"""Runs the tasks of a build: in this process, in several processes of this machine, or on Ray (`on_ray`)."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol

from ...index.arguments import count_of
from ...index.errors import LexmaxError, MissingDependencyError, ShardError

Done = Callable[[Any], None]
RAY_RETRIES = 3


class Runner(Protocol):
    """Calls a function of a module for each tuple of arguments, and ``done`` with each result, in any order."""

    def __call__(self, work: Callable[..., Any], calls: Sequence[tuple[Any, ...]], done: Done) -> None:
        """Raise ShardError for the first error, once no more is running."""
        ...


def told(work: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """Call, and return the result or what went wrong: not every error can be pickled."""
    try:
        return work(*arguments), ""
    except (LexmaxError, OSError, ValueError, TypeError) as error:
        return None, str(error)


def ray_for(what: str) -> Any:
    """Return the module `ray`; raises MissingDependencyError, which says ``what`` needs it."""
    try:
        import ray
    except ImportError:
        raise MissingDependencyError("ray", "ray", what) from None
    return ray


def connected(ray: Any, address: str | None) -> bool:
    """Connect this process to a cluster, or without an address start one here; returns whether it was not connected yet."""
    if ray.is_initialized():
        return False
    ray.init(address=address or "local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    return True


def on_ray(address: str | None, n_workers: int) -> Runner:
    """Make a runner of Ray's tasks, which are tried again when a worker or its machine dies.

    Parameters
    ----------
    address : str or None
        Of a running cluster, such as "auto" or "ray://host:10001"; None: Ray is started on this machine, and ended after.
    n_workers : int
        Tasks at once; each takes one CPU.

    Raises
    ------
    MissingDependencyError
        Ray is not installed.
    """
    count_of(n_workers, "n_workers")
    ray = ray_for("building shards on Ray")

    def run(work: Callable[..., Any], calls: Sequence[tuple[Any, ...]], done: Done) -> None:
        started = connected(ray, address)
        try:
            task = ray.remote(num_cpus=1, max_retries=RAY_RETRIES)(told)
            left = list(calls)
            running: list[Any] = []
            while left or running:
                while left and len(running) < n_workers:
                    running.append(task.remote(work, *left.pop(0)))
                ready, running = ray.wait(running)
                result, problem = ray.get(ready[0])
                if problem:
                    raise ShardError(problem)
                done(result)
        except ray.exceptions.RayError as error:
            first = str(error).strip().splitlines()[0]
            raise ShardError(f"Ray: {first}; run the same command again, finished shards are kept") from None
        finally:
            if started and address is None:
                ray.shutdown()

    return run


def in_processes(n_workers: int) -> Runner:
    """Make a runner of as many processes; of one: this process."""
    count_of(n_workers, "n_workers")

    def run(work: Callable[..., Any], calls: Sequence[tuple[Any, ...]], done: Done) -> None:
        if n_workers == 1 or len(calls) < 2:
            for arguments in calls:
                done(work(*arguments))
            return
        context = multiprocessing.get_context("spawn")  # threads of this process would not survive a fork
        with ProcessPoolExecutor(min(n_workers, len(calls)), context) as pool:
            waiting = [pool.submit(told, work, *arguments) for arguments in calls]
            try:
                for future in as_completed(waiting):
                    result, problem = future.result()
                    if problem:
                        raise ShardError(problem)
                    done(result)
            except BrokenProcessPool:
                raise ShardError(
                    "a worker process was killed, perhaps for want of memory: run the same command again, with fewer workers"
                ) from None
            finally:
                pool.shutdown(cancel_futures=True)

    return run
