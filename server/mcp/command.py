"""The command ``mcp``. Read at every start of the command line, so the rest is imported inside the functions."""

from __future__ import annotations

import argparse

from ...retrieval.commands.options import Command, add_model_options, add_search_options
from ...retrieval.terminal import require, say


def add_mcp_command(command: Command) -> None:
    """Add the command to the command line."""
    summary = "serve indexes as tools of language models (Model Context Protocol)"
    parser = command("mcp", _mcp, summary, "lexmax mcp IDX")
    parser.add_argument("indexes", metavar="[NAME=]IDX", nargs="+",
                        help="folder of an index, or of several; each is known by its folder's name or by NAME")  # fmt: skip
    parser.add_argument("--http", action="store_true", help="over streamable HTTP at /mcp (default: over stdin and stdout)")
    parser.add_argument("--host", default="127.0.0.1", help="with --http: address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8001, help="with --http: port (default 8001)")
    parser.add_argument("--keys", metavar="FILE", help="with --http: answer only who brings a key, see `lexmax keys`")
    parser.set_defaults(feedback=None)
    add_search_options(parser)
    add_model_options(parser)


def _mcp(options: argparse.Namespace) -> int:
    require("mcp", "mcp", "lexmax mcp")
    from contextlib import ExitStack

    from ..indexes import named_folders
    from ..opening import Opener
    from .tools import mcp_server

    if options.keys and not options.http:
        raise ValueError("--keys is for --http: over stdin and stdout nobody else asks")
    folders = named_folders(options.indexes)
    opener = Opener(options, folders, 0)
    with ExitStack() as opened:
        retrievers = {name: opened.enter_context(opener.open(name, folder)) for name, folder in folders.items()}
        for retriever in retrievers.values():
            retriever.warm()
        server = mcp_server(retrievers)
        if options.http:
            _serve(server, options)
        else:
            say(f"{', '.join(folders)} as tools over stdin and stdout; stop with Ctrl-C")
            server.run("stdio")
    return 0


def _serve(server: object, options: argparse.Namespace) -> None:
    from pathlib import Path

    import uvicorn

    from ..errors import OneErrorShape
    from ..guarding.guard import Guard
    from ..guarding.keys import KeyFile
    from ..transport.process import bound

    app = server.streamable_http_app(host=options.host)  # type: ignore[attr-defined]
    if options.keys:
        app.add_middleware(Guard, keys=KeyFile(Path(options.keys)))
        app.add_middleware(OneErrorShape)
    with bound(options.host, options.port) as listener:
        host, port = listener.getsockname()[:2]
        say(f"tools on http://{host}:{port}/mcp; stop with Ctrl-C")
        config = uvicorn.Config(app, log_config=None, server_header=False, ws="none")
        uvicorn.Server(config).run(sockets=[listener])
