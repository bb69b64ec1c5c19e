"""The commands ``push`` and ``pull``: indexes and models on the Hugging Face Hub."""

from __future__ import annotations

import argparse

from ..terminal import require, say
from .options import Command


def add_hub_commands(command: Command) -> None:
    """Add the commands to the command line."""
    push = command("push", _push, "verify an index or a model's folder and push it to the Hugging Face Hub",
                   "lexmax push IDX USER/NAME --private")  # fmt: skip
    push.add_argument("folder", metavar="FOLDER", help="an index or a model's folder")
    push.add_argument("repository", metavar="USER/NAME")
    push.add_argument("--private", action="store_true", help="where the repository is made: for its owner alone")
    push.add_argument("--message", default="", help="of the commit")
    pull = command("pull", _pull, "pull an index or a model from the Hugging Face Hub, and verify it",
                   "lexmax pull USER/NAME --out IDX")  # fmt: skip
    pull.add_argument("repository", metavar="USER/NAME")
    pull.add_argument("--out", required=True, metavar="FOLDER", help="the new folder")
    pull.add_argument("--kind", choices=["index", "model"], default="index", help="what is there (default index)")
    pull.add_argument("--revision", metavar="REV", help="a branch, tag or commit (default: the newest)")
    for each in (push, pull):
        each.add_argument(
            "--endpoint", metavar="URL", help="the hub's address (default https://huggingface.co, or HF_ENDPOINT)"
        )


def _push(options: argparse.Namespace) -> int:
    require("huggingface_hub", "hub", "lexmax push")
    from ..integrations.hub import push

    commit = push(
        options.folder, options.repository, private=options.private, message=options.message, endpoint=options.endpoint
    )
    say(f"pushed {options.folder} to {options.repository}, commit {commit}")
    return 0


def _pull(options: argparse.Namespace) -> int:
    require("huggingface_hub", "hub", "lexmax pull")
    from ..integrations.hub import pull

    commit = pull(options.repository, options.out, kind=options.kind, revision=options.revision, endpoint=options.endpoint)
    say(f"pulled {options.repository} to {options.out}, commit {commit}")
    return 0
