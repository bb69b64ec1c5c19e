"""The access log: a line of JSON for every request, without texts of queries or documents.

::

    {"time": "2026-11-29T12:00:00.123Z", "id": "...", "client": "10.0.0.7", "key": "web", "method": "POST",
     "path": "/v1/search", "status": 200, "bytes": 1834, "ms": 3.1, "index": "news", "queries": 1, "k": 10,
     "stages_ms": {"encode": 0.4, "bm25": 0.9}}

``index``, ``queries``, ``k`` and ``stages_ms`` are there for searches.
"""

import json
import logging
import logging.handlers
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.types import Scope

from ...index.refusals import storage_errors
from .notes import Notes


class AccessLog:
    """Writes to a file, which may be moved away under it, or to stderr as ``-``.

    Raises
    ------
    StorageError
        The file cannot be written.
    """

    def __init__(self, place: str) -> None:
        self._handler: logging.Handler
        if place == "-":
            self._handler = logging.StreamHandler(sys.stderr)
        else:
            with storage_errors(Path(place)):
                self._handler = logging.handlers.WatchedFileHandler(place, encoding="utf-8")

    def __call__(self, scope: Scope, notes: Notes, seconds: float) -> None:
        """Write the line of a request."""
        client = scope.get("client")
        line: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "id": notes.request_id,
            "client": client[0] if client else "",
            "key": notes.key,
            "method": notes.method,
            "path": scope["path"],
            "status": notes.status,
            "bytes": notes.n_bytes,
            "ms": round(seconds * 1000, 2),
        }
        if notes.index:
            line["index"] = notes.index
        if notes.n_queries:
            stages = {stage: round(elapsed_ms, 2) for stage, elapsed_ms in notes.stages_ms.items()}
            line |= {"queries": notes.n_queries, "k": notes.k, "stages_ms": stages}
        text = json.dumps(line)
        self._handler.emit(logging.LogRecord("lexmax.access", logging.INFO, "", 0, text, None, None))

    def close(self) -> None:
        """Close the file."""
        self._handler.close()
