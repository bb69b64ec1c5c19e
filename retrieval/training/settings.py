"""Settings as a user types them, ``NAME=VALUE``, for the fields of a configuration."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import MISSING, fields
from typing import Any

WANTED: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number"}


def settings_of(config: type[Any], texts: Iterable[str], option: str, *, without: Collection[str] = ()) -> dict[str, Any]:
    """Read settings for a dataclass, of the types of its fields' defaults.

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
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"{option} takes NAME=VALUE, not {text!r}")
        if name not in defaults:
            raise ValueError(f"{option} does not know {name!r}; there are {', '.join(sorted(defaults))}")
        settings[name] = _value(value, type(defaults[name]), f"{option} {name}")
    return settings


def _value(text: str, kind: type, where: str) -> Any:
    if kind is str:
        return text
    value: Any = text
    with suppress(ValueError):  # a bare word is of no kind that is wanted
        value = json.loads(text)
    if kind is float and type(value) is int:
        value = float(value)
    is_finite = not isinstance(value, float) or math.isfinite(value)
    if type(value) is not kind or not is_finite:
        raise ValueError(f"{where} takes {WANTED[kind]}, not {text!r}")
    return value
