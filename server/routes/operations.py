"""What operators ask: metrics."""

from fastapi import FastAPI, Response

from ..observing.metrics import CONTENT_TYPE, Metrics


def add_operation_routes(app: FastAPI, metrics: Metrics) -> None:
    """Add them."""

    @app.get("/metrics", include_in_schema=False)
    async def prometheus() -> Response:
        """Give the metrics in Prometheus's text format."""
        return Response(metrics.text(), media_type=CONTENT_TYPE)
