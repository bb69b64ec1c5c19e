"""The command ``serve``. Read at every start of the command line, so the server is imported inside the function."""

from __future__ import annotations

import argparse

from ..retrieval.commands.options import Command, add_index, add_model_options, add_search_options, open_retriever
from ..retrieval.terminal import compiling, require, say
from .limits import add_limit_options, limits_of


def add_serve_command(command: Command) -> None:
    """Add the command to the command line."""
    parser = command("serve", _serve, "serve an index over HTTP", "lexmax serve IDX --port 8000")
    add_index(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port (default 8000)")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    parser.add_argument("--feedback", metavar="LOG", help="keep queries and clicks of POST /v1/feedback in this file, which is "
                        "made if need be, and move searches with `feedback` by them (default: nothing is kept)")  # fmt: skip
    add_search_options(parser)
    add_model_options(parser)
    add_limit_options(parser)


def _serve(options: argparse.Namespace) -> int:
    import logging
    from pathlib import Path

    require("fastapi", "serve", "lexmax serve")
    from ..index import manifest
    from ..retrieval.feedback.log import ClickLog
    from .process import bound, serve

    limits = limits_of(options)
    clicks = ClickLog(options.feedback, create=True, max_bytes=limits.max_feedback_bytes) if options.feedback else None
    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    with bound(options.host, options.port) as listener, compiling():
        manifest.read(Path(options.index))  # where no index is, that is all there is to tell
        host, port = listener.getsockname()[:2]
        at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        say(f"serving {options.index} on http://{at} (try /docs; /readyz tells when the index is open); stop with Ctrl-C")
        serve(lambda: open_retriever(options, clicks), listener, limits)
    return 0
