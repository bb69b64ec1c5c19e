"""The command ``serve``. Read at every start of the command line, so the server is imported inside the function."""

from __future__ import annotations

import argparse

from ..retrieval.commands.options import Command, add_model_options, add_search_options
from ..retrieval.terminal import compiling, require, say
from .limits import add_limit_options, limits_of
from .settings import add_setting_options, settings_of


def add_serve_command(command: Command) -> None:
    """Add the command to the command line."""
    parser = command("serve", _serve, "serve indexes over HTTP", "lexmax serve IDX --port 8000")
    parser.add_argument("indexes", metavar="[NAME=]IDX", nargs="+",
                        help="folder of an index, or of several; each is served by its folder's name or by NAME")  # fmt: skip
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port (default 8000)")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    parser.add_argument("--feedback", metavar="LOG", help="keep queries and clicks of POST /v1/feedback in this file, which is "
                        "made if need be, and move searches with `feedback` by them (default: nothing is kept); with "
                        "several indexes a folder, with one file for each")  # fmt: skip
    shards = parser.add_argument_group("sets of shards on Ray (lexmax[ray])")
    shards.add_argument("--ray", nargs="?", const="", metavar="ADDRESS",
                        help="open shards in processes of Ray: of this address, or else on this machine")  # fmt: skip
    shards.add_argument("--replicas", type=int, default=1, metavar="N", help="processes of each shard (default 1)")
    shards.add_argument("--shard-deadline", type=float, default=30.0, metavar="S",
                        help="seconds within which a shard must answer, else the request is refused (default 30)")  # fmt: skip
    add_search_options(parser)
    add_model_options(parser)
    add_limit_options(parser)
    add_setting_options(parser)


def _serve(options: argparse.Namespace) -> int:
    import logging

    require("fastapi", "serve", "lexmax serve")
    from .indexes import named_folders
    from .opening import Opener, home_of
    from .transport.process import bound, serve

    limits, settings = limits_of(options), settings_of(options)
    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    with bound(options.host, options.port) as listener, compiling():
        folders = named_folders(options.indexes, may_be_empty=settings.writable)
        opener = Opener(options, folders, limits.max_feedback_bytes)
        home = home_of(options.indexes, opener) if settings.writable else None
        host, port = listener.getsockname()[:2]
        at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        served = ", ".join(options.indexes)
        say(f"serving {served} on http://{at} (try /docs; /readyz tells when all is open); stop with Ctrl-C")
        serve(opener.opens, listener, limits, settings, home)
    return 0
