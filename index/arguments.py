"""Checks of what a caller passes in: texts, paths and counts. Each raises TypeError or ValueError that names the argument."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def texts_of(texts: Iterable[str], what: str = "texts") -> list[str]:
    """Return strings of any iterable as a list; raises TypeError for one string, or what is no string."""
    if isinstance(texts, str | bytes | Mapping) or not isinstance(texts, Iterable):
        hint = ": put it in a list" if isinstance(texts, str) else ""
        raise TypeError(f"{what} are a sequence of strings, not {_kind(texts)}{hint}")
    found = list(texts)
    for number, each in enumerate(found):
        if not isinstance(each, str):
            raise TypeError(f"{what} are a sequence of strings: {what}[{number}] is {_kind(each)}")
    return found


def token_lists_of(token_lists: Iterable[Sequence[str]]) -> list[Sequence[str]]:
    """Return lists of words as a list; raises TypeError for what is no list. The words themselves are not looked at."""
    if isinstance(token_lists, str | bytes | Mapping) or not isinstance(token_lists, Iterable):
        raise TypeError(f"token_lists are a sequence of lists of words, not {_kind(token_lists)}")
    found = list(token_lists)
    for kind in set(map(type, found)):
        if issubclass(kind, str | bytes) or not issubclass(kind, Sequence):
            raise TypeError(f"token_lists are a sequence of lists of words: one of them is {kind.__name__}")
    return found


def path_of(path: str | os.PathLike[str], what: str = "path") -> Path:
    """Return a path; raises TypeError for anything else."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{what} is a path, a string or Path, not {_kind(path)}")
    return Path(path)


def count_of(count: int, what: str, *, lowest: int = 1) -> int:
    """Return a whole number; raises TypeError for anything else, ValueError below ``lowest``."""
    if isinstance(count, bool):
        raise TypeError(f"{what} is a whole number, not bool")
    try:
        number = operator.index(count)
    except TypeError:
        raise TypeError(f"{what} is a whole number, not {_kind(count)}") from None
    if number < lowest:
        raise ValueError(f"{what} must be at least {lowest}, not {number}")
    return number


def mapping_of(mapping: Mapping[Any, Any] | None, what: str, form: str) -> dict[Any, Any]:
    """Return a mapping as a dict, None as an empty one; raises TypeError for anything else, with the ``form`` to write."""
    if mapping is not None and not isinstance(mapping, Mapping):
        raise TypeError(f"{what} is a mapping, as in {form}, not {_kind(mapping)}")
    return dict(mapping or {})


def _kind(value: object) -> str:
    return type(value).__name__
