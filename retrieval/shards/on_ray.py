"""Shards as actors of Ray: each in a process of its own, here or on other machines, in several replicas where wanted.

Ray starts, places and restarts the actors. Here is what a search needs: a question goes to one replica, to the next when that
dies or does not answer in time, and to a second one besides when the first is slow. An actor that was restarted knows nothing
of the collection, and is told before it answers, so no answer can be weighed by one shard's own statistics.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...index.arguments import count_of, path_of
from ...index.arrays import Floats, Int32s, Int64s
from ...index.documents import Document
from ...index.errors import ShardError
from ...index.sparse.statistics import SparseStatistics
from ..hits import Hits
from ..searchers.explanation import FieldExplanation
from . import manifest as sets
from .running import connected, ray_for, told
from .shard import Filter, LocalShard, ShardFacts
from .snapshot import ShardedSnapshot

THREADS = 8
"""Questions that an actor answers at once."""
NOT_JOINED = "not joined"
AVOIDED_S = 5.0
"""A replica that was slow or lost is asked only after others for so long: it may be restarting."""
START_S = 300.0
"""Within which a new actor must have opened its shard."""


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """How shards are served on Ray.

    Attributes
    ----------
    address : str or None
        Of a running cluster; None: Ray is started on this machine when it is not running in this process.
    n_replicas : int
        Actors of each shard.
    deadline_s : float
        Seconds within which a shard must answer; its replicas are asked one after the other in this time.
    hedge_s : float
        Seconds after which a second replica is asked the same, where there is one; the slow one is passed over for a while.
    """

    address: str | None = None
    n_replicas: int = 1
    deadline_s: float = 30.0
    hedge_s: float = 1.0

    def __post_init__(self) -> None:
        count_of(self.n_replicas, "n_replicas")
        for name in ("deadline_s", "hedge_s"):
            value = getattr(self, name)
            if not 0 < value < 1e6:
                raise ValueError(f"{name} is {value}: it must be above 0")


def open_on_ray(path: Path | str, options: RayOptions = RayOptions()) -> ShardedSnapshot:
    """Open the newest commit of a set of shards in actors of Ray; make a `Retriever` of what is returned.

    The folder must be at the same path on each machine that an actor may be on. A reload opens the new commit in new actors,
    and the old ones end with the last search that uses them.

    Raises
    ------
    MissingDependencyError
        Ray is not installed.
    ShardError
        A shard does not answer.
    IndexNotFoundError, IndexFormatError, RepresentationError
        As `ShardedSnapshot`.
    """
    ray = ray_for("serving shards on Ray")
    connected(ray, options.address)
    folder = path_of(path).resolve()
    shard_set = sets.read(folder)
    actor: Any = ray.remote(ShardActor)
    actor = actor.options(num_cpus=0, max_restarts=-1, max_concurrency=THREADS, scheduling_strategy="SPREAD")
    shards = [
        RemoteShard(each.folder, [actor.remote(str(folder / each.folder)) for _ in range(options.n_replicas)], options)
        for each in shard_set.shards
    ]
    return ShardedSnapshot(
        folder, shard_set, shards, at_once=True, reopen=lambda newer: open_on_ray(newer, options)
    )  # fmt: skip


class ShardActor:
    """What an actor runs: a `LocalShard`, asked by name."""

    def __init__(self, path: str) -> None:
        self._shard, self._joined = LocalShard.open(Path(path)), False

    def pid(self) -> int:
        """Process of the actor."""
        return os.getpid()

    def ask(self, method: str, *arguments: Any) -> tuple[Any, str]:
        """Call a method of the shard; returns its result, or what went wrong."""
        if method not in ("join", "facts") and not self._joined:
            return None, NOT_JOINED
        found = told(getattr(self._shard, method), *arguments)
        self._joined = self._joined or method == "join"
        return found


class RemoteShard:
    """A `Shard` whose replicas are actors; safe to use from many threads."""

    def __init__(self, name: str, replicas: Sequence[Any], options: RayOptions) -> None:
        self.name, self._replicas, self._options = name, list(replicas), options
        self._turns, self._avoided_until = itertools.count(), [0.0] * len(self._replicas)
        self._joining: tuple[Any, ...] = ()

    def facts(self) -> ShardFacts:
        """See `Shard.facts`."""
        facts: ShardFacts = self._ask("facts", within_s=max(START_S, self._options.deadline_s))
        return facts

    def join(self, statistics: Mapping[str, SparseStatistics], metadata: Mapping[str, str]) -> None:
        """See `Shard.join`; each replica is told when it is first asked."""
        import ray

        self._joining = (ray.put(dict(statistics)), dict(metadata))

    def search(self, name: str, queries: Any, k: int, filter: Filter | None, options: Any, n_threads: int) -> Hits:
        """See `Shard.search`."""
        hits: Hits = self._ask("search", name, queries, k, filter, options, n_threads)
        return hits

    def score(self, name: str, queries: Any, doc_nums: Sequence[Int32s], options: Any, n_threads: int) -> list[Floats]:
        """See `Shard.score`."""
        scores: list[Floats] = self._ask("score", name, queries, list(doc_nums), options, n_threads)
        return scores

    def explain(
        self, name: str, queries: Any, number: int, query_text: str, doc_num: int, document_text: str
    ) -> FieldExplanation:
        """See `Shard.explain`; an actor has no encoder, so terms are not traced to words of the texts."""
        found: FieldExplanation = self._ask("explain", name, queries, number, query_text, doc_num, document_text)
        return found

    def check(self, name: str, options: Any) -> None:
        """See `Shard.check`."""
        self._ask("check", name, options, wrong=ValueError)

    def find(self, doc_ids: Sequence[str]) -> Int64s:
        """See `Shard.find`."""
        found: Int64s = self._ask("find", list(doc_ids))
        return found

    def documents(self, doc_nums: Sequence[int]) -> list[Document]:
        """See `Shard.documents`."""
        found: list[Document] = self._ask("documents", list(doc_nums))
        return found

    def doc_ids(self, doc_nums: Sequence[int]) -> list[str]:
        """See `Shard.doc_ids`."""
        found: list[str] = self._ask("doc_ids", list(doc_nums))
        return found

    def info(self) -> dict[str, Any]:
        """See `Shard.info`."""
        found: dict[str, Any] = self._ask("info")
        return found

    def warm(self, name: str) -> None:
        """See `Shard.warm`; every replica, so that none is slow when another dies. It may take as long as opening does."""
        import ray

        last = time.monotonic() + START_S
        asked = {self._joined(number, "warm", (name,)): number for number in range(len(self._replicas))}
        while asked:
            ready, _ = ray.wait([*asked], timeout=max(0.0, last - time.monotonic()))
            if not ready:
                raise ShardError(f"{self.name} is not warm within {START_S:g} s")
            number = asked.pop(ready[0])
            try:
                _, problem = ray.get(ready[0])
            except ray.exceptions.RayError as error:
                raise ShardError(f"{self.name}: {str(error).strip().splitlines()[0]}") from None
            if problem == NOT_JOINED:
                asked[self._joined(number, "warm", (name,))] = number
            elif problem:
                raise ShardError(f"{self.name}: {problem}")

    def _ask(
        self, method: str, *arguments: Any, wrong: type[Exception] = ShardError, within_s: float | None = None
    ) -> Any:  # fmt: skip
        """Ask one replica after the other until the deadline; raises ``wrong`` with what a shard says is wrong."""
        within_s = within_s or self._options.deadline_s
        last = time.monotonic() + within_s
        first, problem = next(self._turns), "no answer"
        for turn in itertools.count(first):
            left = last - time.monotonic()
            if left <= 0:
                break
            found, problem = self._first_answer(turn, method, arguments, left)
            if not problem:
                return found
            if not problem.startswith(LOST):
                raise wrong(f"{self.name}: {problem}")
            time.sleep(min(0.02, max(0.0, last - time.monotonic())))
        raise ShardError(f"{self.name} does not answer within {within_s:g} s: {problem.removeprefix(LOST)}")

    def _first_answer(self, turn: int, method: str, arguments: tuple[Any, ...], left: float) -> tuple[Any, str]:
        """Ask a replica, and a second one when it is slow; the answer, or what went wrong, `LOST` for the replica itself."""
        import ray

        first, second = self._choice(turn)
        asked = {self._replicas[first].ask.remote(method, *arguments): first}
        end = time.monotonic() + left
        if second != first and not ray.wait([*asked], timeout=min(self._options.hedge_s, left))[0]:
            self._avoided_until[first] = time.monotonic() + AVOIDED_S
            asked[self._replicas[second].ask.remote(method, *arguments)] = second
        lost = "it is slow"
        while asked:
            ready, _ = ray.wait([*asked], timeout=max(0.0, end - time.monotonic()))
            if not ready:
                break
            replica = asked.pop(ready[0])
            try:
                found, problem = ray.get(ready[0])
            except ray.exceptions.RayError as error:
                lost = str(error).strip().splitlines()[0]
                self._avoided_until[replica] = time.monotonic() + AVOIDED_S
                continue
            if problem != NOT_JOINED:
                return found, problem
            asked[self._joined(replica, method, arguments)] = replica
        return None, LOST + lost

    def _choice(self, turn: int) -> tuple[int, int]:
        """Which replica to ask, and which one when it is slow: in turns, those last that were slow or lost a moment ago."""
        now, n = time.monotonic(), len(self._replicas)
        order = sorted(range(n), key=lambda replica: (self._avoided_until[replica] > now, (replica - turn) % n))
        return order[0], order[1 % n]

    def _joined(self, replica: int, method: str, arguments: tuple[Any, ...]) -> Any:
        """Tell a replica what it joins, and ask it again; should it take the question first, it says so once more."""
        self._replicas[replica].ask.remote("join", *self._joining)
        return self._replicas[replica].ask.remote(method, *arguments)


LOST = "lost: "
"""Begins what went wrong with a replica, as against with a question."""
