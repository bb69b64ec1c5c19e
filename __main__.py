"""The command line: one door to the engine. Each room brings its own commands; here are their order and their end.

Data goes to stdout and talk to stderr. Exit status: 0; 1 nothing found or check failed; 2 wrong usage or an error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .eval.bench.command import add_commands
from .eval.command import add_eval_command
from .index.errors import LexmaxError
from .retrieval.commands.indexing import add_indexing_commands
from .retrieval.commands.packing import add_packing_command
from .retrieval.commands.searching import add_searching_commands
from .retrieval.commands.upkeep import add_upkeep_commands
from .retrieval.terminal import say, write
from .retrieval.training.command import add_training_commands
from .server.command import add_serve_command

if TYPE_CHECKING:
    from .eval.datasets import Dataset


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = _parsed(arguments)
    try:
        return int(options.run(options))
    except (LexmaxError, ValueError, TypeError, FileExistsError) as failure:
        say(f"lexmax: {failure}")
        return 2
    except (OSError, MemoryError) as failure:
        if isinstance(failure, BrokenPipeError):
            sys.stderr.close()
            return 0
        say(f"lexmax: {_reason(failure)}; what was committed is safe")
        return 2
    except KeyboardInterrupt:
        resumes = getattr(options, "resumes", False)
        say("lexmax: interrupted" + ("; run the same command again to continue" if resumes else ""))
        return 130


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse; a query may stand after the options too, as in ``search IDX -k 3 QUERY``, which argparse alone refuses."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if len(rest) == 1 and not rest[0].startswith("-") and getattr(options, "query", "") is None:
        options.query = rest.pop()
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


def _reason(failure: OSError | MemoryError) -> str:
    if isinstance(failure, MemoryError):
        return "out of memory"
    return f"{failure.filename or 'input or output'}: {failure.strerror or failure}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lexmax",
        description="Learned-sparse and multi-vector retrieval: build an index, search it, serve it, evaluate it.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], summary: str, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        sub.set_defaults(run=run)
        return sub

    add_indexing_commands(command)
    add_searching_commands(command)
    add_upkeep_commands(command)
    add_serve_command(command)
    add_eval_command(command)
    add_training_commands(command, _load_dataset)
    add_packing_command(command)
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
