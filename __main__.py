"""The command line: one door to the engine. Each room brings its own commands; here are their order and their end.

Data goes to stdout and talk to stderr. Exit status: 0; 1 nothing found or check failed; 2 wrong usage or an error, in one line;
130 and 143 when Ctrl-C or SIGTERM ended the command. A reader that closes the pipe, as ``| head`` does, ends it quietly.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from .eval.bench.command import add_commands
from .eval.command import add_eval_command
from .index.errors import LexmaxError, StorageError
from .index.refusals import is_refusal, reason_of
from .retrieval.commands.feedback import add_feedback_command
from .retrieval.commands.hub import add_hub_commands
from .retrieval.commands.indexing import add_indexing_commands
from .retrieval.commands.packing import add_packing_command
from .retrieval.commands.parsing import Parser
from .retrieval.commands.searching import add_searching_commands
from .retrieval.commands.upkeep import add_upkeep_commands
from .retrieval.terminal import say, write
from .retrieval.training.command import add_training_commands
from .server.command import add_serve_command
from .server.guarding.command import add_keys_command
from .server.mcp.command import add_mcp_command

if TYPE_CHECKING:
    from .eval.datasets import Dataset


class Terminated(KeyboardInterrupt):
    """SIGTERM came: the command ends as after Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    resumes = ""
    try:
        try:
            with _stopped_by_sigterm(), _plain_warnings():
                options = _parser().parse_args(arguments)
                if getattr(options, "resumes", False):
                    resumes = "; run the same command again to continue"
                return int(options.run(options))
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where a full disk or a closed pipe can still be told
    except BrokenPipeError:
        _discard_output()
        return 0
    except KeyboardInterrupt as stop:
        terminated = isinstance(stop, Terminated)
        say(f"lexmax: {'terminated' if terminated else 'interrupted'}{resumes}")
        return 143 if terminated else 130
    except Exception as failure:
        refused = isinstance(failure, StorageError) or (is_refusal(failure) and not isinstance(failure, FileExistsError))
        say(f"lexmax: {_told(failure)}{resumes if refused else ''}")
        _discard_output()
        if sys.flags.dev_mode:
            raise
        return 2


def _told(failure: Exception) -> str:
    """Say in one line what went wrong."""
    if isinstance(failure, OSError) and failure.errno and not failure.filename:
        return f"input or output: {reason_of(failure)}"
    if is_refusal(failure):
        return reason_of(failure)
    line = " ".join(str(failure).split("\n"))
    if isinstance(failure, LexmaxError | ValueError | TypeError):
        return line
    return f"an error of its own, {type(failure).__name__}: {line} (`python -X dev -m lexmax` shows where; please report it)"


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end a command in order: what no commit names is removed, the lock released."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show lexmax's own warnings in one line, without the place in the code."""
    before = warnings.formatwarning

    def shown(message: Warning | str, category: type[Warning], *place: Any, **source: Any) -> str:
        own = category.__module__.partition(".")[0] == __package__
        return f"lexmax: warning: {message}\n" if own else before(message, category, *place, **source)

    warnings.formatwarning = shown
    try:
        yield
    finally:
        warnings.formatwarning = before


def _discard_output() -> None:
    """Send what stdout still holds nowhere if it is refused: Python would try again, and fail aloud, at its end."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        with suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)


def _parser() -> Parser:
    parser = Parser(
        prog="lexmax",
        description="Learned-sparse and multi-vector retrieval: build an index, search it, serve it, evaluate it.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], summary: str, example: str) -> Parser:
        sub = commands.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        sub.set_defaults(run=run)
        return sub

    add_indexing_commands(command)
    add_searching_commands(command)
    add_feedback_command(command)
    add_upkeep_commands(command)
    add_serve_command(command)
    add_keys_command(command)
    add_mcp_command(command)
    add_eval_command(command)
    add_training_commands(command, _load_dataset)
    add_packing_command(command)
    add_hub_commands(command)
    about = "compare speed with other engines"
    bench = commands.add_parser("bench", help=about, description=f"{about.capitalize()}.")
    add_commands(bench.add_subparsers(title="comparisons", required=True, metavar="COMPARISON"))
    return parser


class _Version(argparse.Action):
    """Print the version, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from . import __version__

        write(f"lexmax {__version__}")
        parser.exit()


def _load_dataset(name: str, split: str) -> Dataset:
    from .eval.datasets import load_dataset

    return load_dataset(name, split)


if __name__ == "__main__":
    sys.exit(main())
