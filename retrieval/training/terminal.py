"""What the training commands share: a progress bar, talk on stderr, and the packages that models need."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ...index.errors import MissingDependencyError

if TYPE_CHECKING:
    from ..progress import Bar


def require_models(what: str) -> None:
    """Raise MissingDependencyError where the packages are not installed that models need."""
    for package in ("torch", "transformers"):
        if find_spec(package) is None:
            raise MissingDependencyError(package, "encode", what)


@contextmanager
def showing(unit: str, total: int | None) -> Iterator[Bar | None]:
    """A progress bar when stderr is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from ..progress import Bar

    bar = Bar(sys.stderr, unit, total)
    try:
        yield bar
    finally:
        bar.close()


def say(message: str) -> None:
    """Write a line on stderr."""
    sys.stderr.write(f"{message}\n")
