"""How a command line is read: arguments and options in any order, and one line for what does not fit.

This module is read at every start of the command line, so it imports lightly.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from ...index.nearest import did_you_mean

FORMS = {"NAME=VALUE": re.compile(r"\w+="), "FIELD.NAME=VALUE": re.compile(r"[A-Za-z][\w-]*\.\w+=")}
"""Metavar of options that take settings -> how a setting begins."""


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` that takes ``search IDX -k 3 QUERY`` as it does ``search IDX QUERY -k 3``.

    Attributes
    ----------
    hints : dict of str to str
        What to say about options that are not there.
    """

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.hints: dict[str, str] = {}

    _inside = False  # argparse reads intermixed arguments in two passes through `parse_known_args`

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:  # type: ignore[override]
        """Parse the arguments of a command; what is left over is an error."""
        if self._inside or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        self._inside = True
        try:
            found, rest = self.parse_known_intermixed_args(self._spread(sys.argv[1:] if args is None else args), namespace)
        finally:
            self._inside = False
        if rest:
            self.error(self._not_known(rest))
        return found, []

    def error(self, message: str) -> NoReturn:
        """End with exit status 2 and one line."""
        self.exit(2, f"{self.prog}: {message} (`{self.prog} --help` explains)\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            hint = did_you_mean(str(value), known) or f"; there are {', '.join(known)}"
            raise argparse.ArgumentError(action, f"there is no {value!r}{hint}")

    def _spread(self, args: Sequence[str]) -> list[str]:
        """Repeat an option of settings before each of them: ``--set a=1 b=2`` is ``--set a=1 --set b=2``."""
        forms = {
            name: FORMS[str(each.metavar)] for each in self._actions if each.metavar in FORMS for name in each.option_strings
        }
        spread: list[str] = []
        option = None
        for each in args:
            if option is not None and spread[-1] != option:
                if forms[option].match(each):
                    spread.append(option)
                else:
                    option = None
            spread.append(each)
            option = each if each in forms and option is None else option
        return spread

    def _not_known(self, rest: list[str]) -> str:
        options = [each for each in rest if each.startswith("-")]
        if options:
            option = options[0].partition("=")[0]
            known = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
            return f"there is no option {option}" + (self.hints.get(option) or did_you_mean(option, known))
        return f"{rest[0]!r} is left over: a text of several words stands in quotes"
