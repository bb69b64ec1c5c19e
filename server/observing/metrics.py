"""Metrics for Prometheus: counted as requests end and batches are encoded, and read off the server when they are asked for.

::

    lexmax_requests_total{route, method, status}         lexmax_request_seconds{route}
    lexmax_stage_seconds{index, stage}                   lexmax_encode_batch_queries{index}
    lexmax_waiting_queries, lexmax_held_bytes, lexmax_connections
    lexmax_index_ready{index}, lexmax_index_documents, lexmax_index_generation, lexmax_index_segments, lexmax_index_bytes
    process_resident_memory_bytes, process_cpu_seconds_total, ...

A label has one value for each route, index and field at most: what clients write never becomes one.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from starlette.types import Scope

from .notes import Notes, stage_kind
from .watch import route_of

if TYPE_CHECKING:
    from ..indexes import Indexes

SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.25, 0.5, 1, 2, 4, 8)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "PUT", "OPTIONS"})
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The metrics of one server.

    Parameters
    ----------
    indexes : Indexes
    gauges : mapping of str to callable
        Name -> what gives a number of the whole server.
    """

    def __init__(self, indexes: "Indexes", gauges: Mapping[str, Callable[[], float]]) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._indexes, self._gauges = indexes, gauges
        self._requests = Counter(
            "lexmax_requests", "Requests that have ended.", ["route", "method", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "lexmax_request_seconds", "From the head of a request to the end of its answer.", ["route"],
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self._stages = Histogram(
            "lexmax_stage_seconds", "Stages of searches: encode, a field, fusion, rerank.", ["index", "stage"],
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self._batches = Histogram(
            "lexmax_encode_batch_queries", "Queries that were encoded together.", ["index"],
            buckets=BATCHES, registry=self.registry,
        )  # fmt: skip
        ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def __call__(self, scope: Scope, notes: Notes, seconds: float) -> None:
        """Count a request that has ended."""
        route = route_of(scope) or "none"
        method = notes.method if notes.method in METHODS else "other"
        self._requests.labels(route, method, str(notes.status)).inc()
        self._seconds.labels(route).observe(seconds)
        for stage, elapsed_ms in notes.stages_ms.items():
            kind = stage_kind(stage, self._indexes.fields(notes.index))
            self._stages.labels(notes.index, kind).observe(elapsed_ms / 1000)

    def batch(self, index: str, n_queries: int) -> None:
        """Count a batch that was encoded."""
        self._batches.labels(index).observe(n_queries)

    def text(self) -> bytes:
        """Return all of them in Prometheus's text format."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """Yield what is read off the server now."""
        for name, value in self._gauges.items():
            yield GaugeMetricFamily(f"lexmax_{name}", name.replace("_", " "), value=value())
        about = {
            "ready": "Whether the index is open and warm.",
            "documents": "Live documents.",
            "generation": "The commit that is searched.",
            "segments": "Segments.",
            "bytes": "Bytes of its files.",
        }
        families = {name: GaugeMetricFamily(f"lexmax_index_{name}", text, labels=["index"]) for name, text in about.items()}
        for name, service in self._indexes:
            families["ready"].add_metric([name], float(service.ready))
            for fact, number in service.numbers().items():
                families[fact].add_metric([name], number)
        yield from families.values()
