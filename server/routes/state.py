"""What is served, and whether it can be."""

from fastapi import FastAPI, Response

from ..indexes import Indexes
from ..schemas.answers import IndexesAnswer, Status
from .common import json_of


def add_state_routes(app: FastAPI, indexes: Indexes) -> None:
    """Add them."""

    @app.get("/v1/indexes", response_model=IndexesAnswer)
    async def list_indexes() -> Response:
        """List the indexes."""
        found = [service.named(name) for name, service in indexes]
        return json_of(IndexesAnswer(indexes=found, default=indexes.default))

    @app.get("/healthz")
    async def healthz() -> Status:
        """Say that the process is alive."""
        return Status()

    @app.get("/readyz")
    async def readyz() -> Status:
        """Say that every index is open and warm."""
        indexes.check_ready()
        return Status()
