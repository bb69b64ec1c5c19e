"""Writes the JSON of an answer query by query, so that no more than one piece of results is ever held as Python objects."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pydantic_core
from pydantic import TypeAdapter

from ...retrieval.hits import ReadCounts
from ..errors import RefusedError
from ..schemas.answers import Hit
from ..schemas.searches import Search, SearchOne
from ..transport.payloads import Share

if TYPE_CHECKING:
    from ...retrieval.results import Result, Results

_HITS = TypeAdapter(list[Hit])


@dataclass(frozen=True)
class Piece:
    """Results of some queries of a request.

    Attributes
    ----------
    results : list of bytes
        JSON of each query's list.
    timings_ms : dict of str to float
        Milliseconds of each stage.
    reads : dict of str to ReadCounts
        What each stage read from disk.
    missing_shards : tuple of str
        Shards that did not answer.
    """

    results: list[bytes]
    timings_ms: dict[str, float]
    reads: dict[str, ReadCounts]
    missing_shards: tuple[str, ...]


def write_piece(body: Search, found: "Sequence[Results]", encode_ms: float) -> Piece:
    """Write results: in a thread, since many take long to write."""
    hit = partial(_hit, _Wanted.of(body))
    results = [_HITS.dump_json([hit(result) for result in each[body.offset :]]) for each in found]
    return Piece(results, {"encode": encode_ms, **(found[0].timings_ms or {})}, found[0].reads, found[0].missing_shards)


class WrittenAnswer:
    """A ``OneAnswer`` or ``ManyAnswer`` that grows piece by piece.

    Parameters
    ----------
    body : SearchOne or SearchMany
        The request.
    n_queries : int
        How many queries it has.
    max_bytes : int
        Most bytes of its results.
    held : Share
        Counts them.
    """

    def __init__(self, body: Search, n_queries: int, max_bytes: int, held: Share) -> None:
        self._body, self._n_queries, self._max_bytes, self._held = body, n_queries, max_bytes, held
        self._started = time.perf_counter()
        self._results: list[bytes] = []
        self._n_bytes = 0
        self.timings_ms: dict[str, float] = {}
        """Milliseconds of each stage so far."""
        self._reads: dict[str, ReadCounts] = {}
        self._missing: set[str] = set()

    def add(self, piece: Piece) -> None:
        """Take the results of the next queries.

        Raises
        ------
        RefusedError
            422 when the answer gets too large, 503 when all answers together do.
        """
        n_bytes = sum(map(len, piece.results))
        self._held.take(n_bytes)
        self._results += piece.results
        self._n_bytes += n_bytes
        if self._n_bytes > self._max_bytes:
            message = (
                f"the answer is larger than {self._max_bytes} bytes: {len(self._results)} of {self._n_queries} queries with "
                f"k = {self._body.k} have {self._n_bytes}; lower k, send fewer queries, or set include_text to false"
            )
            raise RefusedError(422, "invalid_request", message)
        for stage, elapsed_ms in piece.timings_ms.items():
            self.timings_ms[stage] = self.timings_ms.get(stage, 0.0) + elapsed_ms
        for stage, reads in piece.reads.items():
            self._reads.setdefault(stage, ReadCounts()).add(reads)
        self._missing.update(piece.missing_shards)

    def parts(self) -> list[bytes]:
        """Return the whole answer in parts, one for the results of each query."""
        took_ms = (time.perf_counter() - self._started) * 1000
        facts: dict[str, Any] = {"took_ms": took_ms, "timings_ms": None, "reads": None, "missing_shards": None}
        if self._body.partial:
            facts["missing_shards"] = sorted(self._missing)
        if self._body.timings:
            reads = {stage: asdict(each) for stage, each in self._reads.items()}
            facts |= {"timings_ms": self.timings_ms, "reads": reads}
        end = b"," + pydantic_core.to_json(facts)[1:]
        if isinstance(self._body, SearchOne):
            return [b'{"results":', *self._results, end]
        separated = [part for results in self._results for part in (b",", results)][1:]
        return [b'{"results":[', *separated, b"]", end]


@dataclass(frozen=True)
class _Wanted:
    """What results hold of their documents."""

    title: bool
    text: bool
    metadata: bool
    keys: tuple[str, ...]

    @classmethod
    def of(cls, body: Search) -> "_Wanted":
        if body.include is None:
            return cls(title=True, text=body.include_text, metadata=True, keys=())
        keys = tuple(name.removeprefix("metadata.") for name in body.include if name.startswith("metadata."))
        return cls("title" in body.include, "text" in body.include, "metadata" in body.include, keys)

    def metadata_of(self, result: "Result") -> dict[str, Any] | None:
        if self.metadata or not self.keys:
            return dict(result.metadata) if self.metadata else None
        return {key: result.metadata[key] for key in self.keys if key in result.metadata}


def _hit(wanted: _Wanted, result: "Result") -> Hit:
    return Hit(
        doc_id=result.doc_id,
        score=result.score,
        title=result.title if wanted.title else None,
        text=result.text if wanted.text else None,
        metadata=wanted.metadata_of(result),
        explanation=result.explanation,
        unreadable=result.unreadable,
    )
