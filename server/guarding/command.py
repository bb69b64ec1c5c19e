"""The command ``keys``. Read at every start of the command line, so the rest is imported inside the functions."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...retrieval.commands.options import Command
from ...retrieval.terminal import say, write


def add_keys_command(command: Command) -> None:
    """Add the command to the command line."""
    parser = command("keys", _keys, "make, list and remove API keys of a server", "lexmax keys add keys.json --name web")
    parser.add_argument("action", choices=["add", "list", "remove"])
    parser.add_argument(
        "file", metavar="FILE", help="the file of keys, for `lexmax serve --keys FILE`; add makes it if need be"
    )
    parser.add_argument("id", metavar="ID", nargs="?", help="of remove: the key's id, as list shows it")
    parser.add_argument("--name", help="of add: whose key it is; the access log shows it")
    parser.add_argument("--scope", choices=["read", "write"], default="read",
                        help="of add: search alone, or change indexes too (default read)")  # fmt: skip


def _keys(options: argparse.Namespace) -> int:
    from .keys import make_key, read_keys, write_keys

    path = Path(options.file)
    if options.action == "add":
        if not options.name:
            raise ValueError("lexmax keys add needs --name: whose key it is")
        keys = read_keys(path) if path.exists() else {}
        text, key = make_key(options.name, options.scope)
        write_keys(path, {**keys, key.id: key})
        write(text)
        say(f"this is all there is to see of the key {key.id} of {key.name}, scope {key.scope}: only its hash is kept")
        return 0
    keys = read_keys(path)
    if options.action == "list":
        for key in keys.values():
            write(f"{key.id}\t{key.scope}\t{key.created}\t{key.name}")
        return 0
    if options.id not in keys:
        raise ValueError(f"{path}: there is no key {options.id!r}: `lexmax keys list {path}` shows their ids")
    write_keys(path, {number: key for number, key in keys.items() if number != options.id})
    say(f"removed the key {options.id}; servers stop taking it within some seconds")
    return 0
