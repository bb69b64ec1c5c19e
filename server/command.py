"""The command ``serve``. Read at every start of the command line, so the server is imported inside the function."""

from __future__ import annotations

import argparse

from ..retrieval.commands.options import Command, add_index, add_model_options, add_search_options, open_retriever
from ..retrieval.terminal import compiling, require, say


def add_serve_command(command: Command) -> None:
    """Add the command to the command line."""
    parser = command("serve", _serve, "serve an index over HTTP", "lexmax serve IDX --port 8000")
    add_index(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port (default 8000)")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    add_search_options(parser)
    add_model_options(parser)


def _serve(options: argparse.Namespace) -> int:
    import logging

    require("fastapi", "serve", "lexmax serve")
    from .app import bound, serve

    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    with bound(options.host, options.port) as listener, compiling():
        retriever = open_retriever(options)
        host, port = listener.getsockname()[:2]
        at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        say(f"serving {options.index} on http://{at} (OpenAPI at /openapi.json); stop with Ctrl-C")
        serve(retriever, listener)
    return 0
