"""JSON values as dataclasses, each value checked against the type hint of its field."""

from __future__ import annotations

import types
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


def typed(kind: type[T], value: Any, where: str) -> T:
    """Return the value as a dataclass, or what its hints name: str, bool, int, float, list, dict of str, None, Any, unions.

    Integers are counts: they are not negative. ``where`` is the value's name in messages.

    Raises
    ------
    ValueError
        A value of another type, a field that is missing or unknown; says where.
    """
    return cast(T, _value(kind, value, where))


def _value(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is types.UnionType:
        return None if value is None else _value(next(each for each in arguments if each is not types.NoneType), value, where)
    if is_dataclass(kind):
        return _record(kind, value, where)
    if origin is list and isinstance(value, list):
        return [_value(arguments[0], each, f"{where}[{number}]") for number, each in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {name: _value(arguments[1], each, f"{where}.{name}") for name, each in value.items()}
    if kind is float and type(value) in (int, float):
        return float(value)
    if origin is None and type(value) is kind and not (kind is int and value < 0):
        return value
    raise ValueError(f"{where} is {str(value)[:60]!r}: it must be of type {getattr(kind, '__name__', kind)}")


def _record(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {str(value)[:60]!r}: it must be an object")
    hints = _hints(kind)
    if unknown := set(value) - set(hints):
        raise ValueError(f"{where} has an unknown {min(unknown)!r}")
    required = {each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING}
    if missing := required - set(value):
        raise ValueError(f"{where} has no {min(missing)!r}")
    return kind(**{name: _value(hints[name], each, f"{where}.{name}") for name, each in value.items()})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)
