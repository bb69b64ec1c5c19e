"""What the commands of all rooms share: lines on stdout and stderr, progress, packages that are wanted, ``NAME=VALUE``.

This module is read at every start of the command line, so whatever is heavy is imported inside the functions.
"""

from __future__ import annotations

import errno
import json
import math
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import MISSING, fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from ..index.errors import MissingDependencyError

if TYPE_CHECKING:
    from .progress import Bar

WANTED: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number"}


def write(text: str) -> None:
    """Write a line of data, on stdout."""
    if sys.stdout is None:
        raise OSError(errno.EBADF, "closed", "standard output")
    sys.stdout.write(f"{text}\n")


def say(message: str) -> None:
    """Write a line of talk, on stderr; work does not end because nobody listens."""
    with suppress(OSError, AttributeError):  # the latter where stderr is closed
        sys.stderr.write(f"{message}\n")
        sys.stderr.flush()


@contextmanager
def progress_bar(unit: str, *, total: int | None = None, sources: Sequence[str] = ()) -> Iterator[Bar | None]:
    """Show a progress bar when stderr is a terminal; its total is known, or the number of records in ``sources``."""
    if not sys.stderr.isatty():
        yield None
        return
    from .progress import Bar, count_records

    bar = Bar(sys.stderr, unit, count_records(sources) if sources else total)
    try:
        yield bar
    finally:
        bar.close()


@contextmanager
def compiling() -> Iterator[None]:
    """Tell the user when kernels are compiled, once on a machine: a line, and on a terminal how many they are so far."""
    from ..index.kernels import watched

    n, shown = 0, sys.stderr is not None and sys.stderr.isatty()

    def tell(_: str) -> None:
        nonlocal n
        n += 1
        if shown:
            with suppress(OSError):
                sys.stderr.write(f"\rlexmax: compiling kernels for this machine, once: {n} ")
                sys.stderr.flush()
        elif n == 1:
            say("lexmax: compiling kernels for this machine, once; this takes some seconds")

    try:
        with watched(tell):
            yield
    finally:
        if n and shown:
            say("")


def require(package: str, extra: str, what: str) -> None:
    """Raise MissingDependencyError where the package of an extra is not installed, which ``what`` needs."""
    if find_spec(package) is None:
        raise MissingDependencyError(package, extra, what)


def check_picture(path: str | None) -> None:
    """Raise what is wrong with the file of a picture before the work for it begins; None asks for none.

    Raises
    ------
    ValueError
        A suffix of no picture.
    MissingDependencyError
        matplotlib is not installed.
    """
    if path is None:
        return
    if Path(path).suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ValueError(f"--plot {path}: a picture is a .png, .svg or .pdf file")
    require("matplotlib", "plot", "--plot")


def require_models(what: str) -> None:
    """Raise MissingDependencyError where the packages are not installed that models need."""
    for package in ("torch", "transformers"):
        require(package, "encode", what)


def split_setting(text: str, option: str) -> tuple[str, str]:
    """Split ``NAME=VALUE``; ``option`` is what the message calls it, such as "--set".

    Raises
    ------
    ValueError
        A text of another form.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{option} takes NAME=VALUE, not {text!r}")
    return name, value


def audited(record: Mapping[str, Any] | None) -> str:
    """Say in a line what an audit found, as `Field.info` has it."""
    if not record:
        return "none"
    options = ", ".join(f"{name}={value}" for name, value in record["options"].items()) or "defaults"
    outdated = "; OUTDATED: the vectors have changed since" if record["outdated"] else ""
    return (
        f"recall@{record['k']} {record['recall']:.4f} +- {record['error']:.4f} (worst {record['worst']:.2f}, "
        f"{record['n_queries']} queries: {record['queries']}; {options}) at commit {record['generation']}, "
        f"{record['cpu_ms']:.2f} ms, exhaustive {record['exhaustive_cpu_ms']:.2f} ms{outdated}"
    )


def settings_of(config: type[Any], texts: Iterable[str], option: str, *, without: Collection[str] = ()) -> dict[str, Any]:
    """Read settings for a dataclass, of the types of its fields' defaults, or of fields where the default is None.

    Parameters
    ----------
    config : dataclass
        Whose fields can be set, except those without a plain default.
    texts : iterable of str
        ``NAME=VALUE`` each; of the same name the last counts.
    option : str
        What messages call them, such as "--loop".
    without : collection of str
        Fields that cannot be set this way.

    Raises
    ------
    ValueError
        A text of another form, an unknown name, or a value of another type.
    """
    defaults = {each.name: each.default for each in fields(config) if each.default is not MISSING and each.name not in without}
    settings = {}
    for text in texts:
        name, value = split_setting(text, option)
        if name not in defaults:
            raise ValueError(f"{option} does not know {name!r}; there are {', '.join(sorted(defaults))}")
        kind = _optional_kind(config, name) if defaults[name] is None else type(defaults[name])
        settings[name] = _value(value, kind, f"{option} {name}")
    return settings


def _optional_kind(config: type[Any], name: str) -> type:
    """What a field of type ``KIND | None`` takes; the values of a Literal are words."""
    kind = next(each for each in get_args(get_type_hints(config)[name]) if each is not type(None))
    return str if get_origin(kind) is Literal else kind


def json_or_text(text: str) -> Any:
    """Read a value whose type nobody states: what is JSON is read so, and anything else is a bare word."""
    with suppress(ValueError):
        return json.loads(text)
    return text


def _value(text: str, kind: type, where: str) -> Any:
    if kind is str:
        return text
    value = json_or_text(text)  # a bare word is of no kind that is wanted
    if kind is float and type(value) is int:
        value = float(value)
    is_finite = not isinstance(value, float) or math.isfinite(value)
    if type(value) is not kind or not is_finite:
        raise ValueError(f"{where} takes {WANTED[kind]}, not {text!r}")
    return value
