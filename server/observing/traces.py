"""A span of OpenTelemetry for each request, in the trace that the client's ``traceparent`` names.

Stages of a search are attributes, in milliseconds. Texts of queries and documents, and addresses with ids, are not in spans.
"""

import asyncio
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.types import Scope

from ...index.errors import MissingDependencyError
from .notes import Notes, stage_kind
from .watch import route_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

logger = logging.getLogger(__name__)

UNWATCHED = frozenset({"/healthz", "/readyz", "/metrics"})
"""Addresses that machines ask all the time: they have no spans."""
CLOSE_S = 5.0  # what spans that wait get to be sent at the end


def sent_to_collector() -> "SpanProcessor":
    """Return what sends spans in batches over HTTP, to where the variables ``OTEL_EXPORTER_OTLP_*`` say.

    Raises
    ------
    MissingDependencyError
        The packages of the extra are not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as problem:
        raise MissingDependencyError("opentelemetry", "traces", "--traces") from problem
    return BatchSpanProcessor(OTLPSpanExporter())


class Traces:
    """Makes the spans of one server.

    Parameters
    ----------
    processor : SpanProcessor
        What is done with spans; `sent_to_collector` makes the usual one.
    fields : callable
        Name of an index -> names of its fields.
    """

    def __init__(self, processor: "SpanProcessor", fields: Callable[[str], Collection[str]]) -> None:
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        named = Resource({SERVICE_NAME: "lexmax"}).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=named, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("lexmax.server")
        self._fields = fields
        self._propagator, self._kind = TraceContextTextMapPropagator(), SpanKind.SERVER

    def __call__(self, scope: Scope, notes: Notes, seconds: float) -> None:
        """Make the span of a request that has ended."""
        if scope["path"] in UNWATCHED:
            return
        end = time.time_ns()
        route, headers = route_of(scope), Headers(scope=scope)
        parent = self._propagator.extract({name: headers[name] for name in ("traceparent", "tracestate") if name in headers})
        attributes: dict[str, str | int | float] = {
            "http.request.method": notes.method,
            "http.route": route,
            "http.response.status_code": notes.status,
            "http.response.body.size": notes.n_bytes,
            "lexmax.request_id": notes.request_id,
        }
        if notes.index:
            attributes["lexmax.index"] = notes.index
        if notes.n_queries:
            attributes |= {"lexmax.queries": notes.n_queries, "lexmax.k": notes.k}
            stages: dict[str, float] = defaultdict(float)
            for stage, elapsed_ms in notes.stages_ms.items():
                stages[stage_kind(stage, self._fields(notes.index))] += elapsed_ms
            attributes |= {f"lexmax.stage_ms.{stage}": round(elapsed_ms, 3) for stage, elapsed_ms in stages.items()}
        span = self._tracer.start_span(
            f"{notes.method} {route}".strip(), parent, self._kind, attributes, start_time=end - int(seconds * 1e9)
        )
        if notes.status >= 500 or notes.status == 0:
            span.set_attribute("error.type", str(notes.status))
        span.end(end)

    async def close(self) -> None:
        """Send what waits; a collector that does not answer is not waited for."""
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        deadline = time.monotonic() + CLOSE_S
        while sending.is_alive() and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        if sending.is_alive():
            logger.warning("spans that waited were not sent within %g s", CLOSE_S)
