"""The API's description as Swagger UI, which comes with the package fastapi-offline: nothing is loaded from elsewhere."""

from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI, Response

from ...index.errors import MissingDependencyError

TYPES = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
KEPT = {"Cache-Control": "max-age=3600"}
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>lexmax: the API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="api"><noscript>This page needs scripts; <a href="openapi.json">openapi.json</a> says the same.</noscript></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
START = 'SwaggerUIBundle({url: "openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null});\n'


def add_docs_routes(app: FastAPI) -> None:
    """Add them."""

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(PAGE, media_type="text/html", headers={"Content-Security-Policy": POLICY})

    @app.get("/docs/start.js", include_in_schema=False)
    async def start() -> Response:
        return Response(START, media_type="text/javascript", headers=KEPT)

    def add_file(name: str, kind: str) -> None:
        @app.get(f"/docs/{name}", include_in_schema=False)
        def file() -> Response:
            return Response((_folder() / name).read_bytes(), media_type=kind, headers=KEPT)

    for name, kind in TYPES.items():
        add_file(name, kind)


def _folder() -> Path:
    spec = find_spec("fastapi_offline")
    if spec is None or spec.origin is None:
        raise MissingDependencyError("fastapi-offline", "serve", "/docs")
    return Path(spec.origin).parent / "static"
