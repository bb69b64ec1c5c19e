"""Filter plans: comparisons of metadata fields with values, checked against the fields' types and evaluated by pyarrow.

A plan maps the columns of a segment to one bool or null per document. Null means that a compared value is absent; ``and``,
``or`` and ``not`` are Kleene's, as in SQL, and a null does not match.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import partial
from math import floor, isfinite, isnan
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Plan = Callable[[pa.Table], Any]
"""Columns -> which rows match, with nulls."""

OWN_FIELDS = {"doc_id": "string", "title": "string", "text": "string"}
MAX_PARTS = 250_000
"""Names, values and operators of one filter; an expression may have 32 characters for each of them."""
MAX_NESTING = 50
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": pc.equal, "!=": pc.not_equal, "<": pc.less, "<=": pc.less_equal, ">": pc.greater, ">=": pc.greater_equal,
}  # fmt: skip
_INTEGERS = ("int64", "bigint")
_SHOWN_FIELDS = 30
_HINTS = {
    "true": "write True", "false": "write False", "null": "write FIELD is None", "none": "write FIELD is None",
    "and": "write and in lower case", "or": "write or in lower case", "not": "write not in lower case",
}  # fmt: skip


class Planner:
    """Makes plans over the fields of an index, and notes which of them are read.

    Attributes
    ----------
    fields : dict of str to str
        Field -> type, a document's own fields included.
    used : dict of str to str
        Those that plans read.
    """

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.fields = {**fields, **OWN_FIELDS}
        self.used: dict[str, str] = {}
        self._n_parts = 0

    def count(self, n_parts: int, nesting: int = 0) -> None:
        """Raise ValueError for a filter of too many parts, or too deep a one."""
        self._n_parts += n_parts
        if self._n_parts > MAX_PARTS:
            raise ValueError(f"filter: more than {MAX_PARTS} names, values and operators")
        if nesting > MAX_NESTING:
            raise ValueError(f"filter: more than {MAX_NESTING} levels inside each other")

    def compare(self, name: str, sign: str, value: Any) -> Plan:
        """Compare a field with a value; ``sign`` is a key of ``_COMPARISONS``."""
        name = self.use(name)
        checked = self._value(name, value)
        if self.fields[name] in _INTEGERS and isinstance(checked, float):
            if not checked.is_integer():
                return _with_fraction(name, sign, checked)
            sign, checked = _in_64_bits(sign, int(checked))
        return partial(_compared, name, _COMPARISONS[sign], checked)

    def truth(self, name: str) -> Plan:
        """Take a bool field as it is."""
        name = self.use(name)
        if self.fields[name] != "bool":
            raise ValueError(f"filter: field {name!r} is {self.fields[name]}: compare it with something")
        return lambda table: table[name]

    def absent(self, name: str) -> Plan:
        """Whether a field has no value."""
        name = self.use(name)
        return lambda table: pc.is_null(table[name])

    def among(self, name: str, values: Iterable[Any]) -> Plan:
        """Whether a field's value is one of those given."""
        name = self.use(name)
        checked = [self._value(name, value) for value in values]
        if self.fields[name] in _INTEGERS:
            whole = [int(value) for value in checked if isinstance(value, int) or value.is_integer()]
            checked = [value for value in whole if -(2**63) <= value < 2**63]

        def plan(table: pa.Table) -> Any:
            column = table[name]
            inside = pc.is_in(column, value_set=pa.array(checked, column.type))
            return pc.if_else(pc.is_valid(column), inside, None)

        return plan

    def contains(self, name: str, value: Any) -> Plan:
        """Whether a list field holds a value."""
        name = self.use(name)
        if self.fields[name] != "list<string>":
            raise ValueError(f"filter: field {name!r} is {self.fields[name]}, not a list")
        if not isinstance(value, str):
            raise ValueError(f"filter: field {name!r} holds strings and cannot hold {shown(value)}")
        wanted = _text(value)

        def plan(table: pa.Table) -> Any:
            column = table[name].combine_chunks()
            parents = pc.list_parent_indices(column).to_numpy(zero_copy_only=False)
            equal = pc.fill_null(pc.equal(pc.list_flatten(column), wanted), False).to_numpy(zero_copy_only=False)
            holds = np.zeros(len(column), np.bool_)
            holds[parents[equal]] = True
            return pc.if_else(pc.is_valid(column), pa.array(holds), None)

        return plan

    def use(self, name: str) -> str:
        """Note that a field is read; raises ValueError for an unknown one or one that cannot be filtered."""
        if name not in self.fields:
            plain = unicodedata.normalize("NFC", name)
            same = [known for known in self.fields if unicodedata.normalize("NFC", known) == plain]
            if len(same) != 1:
                raise ValueError(self._unknown(name))
            name = same[0]
        if self.fields[name] == "json":
            raise ValueError(f"filter: field {name!r} holds nested values and cannot be filtered")
        self.used[name] = self.fields[name]
        return name

    def _unknown(self, name: str) -> str:
        names = sorted(self.fields)
        listed = ", ".join(names[:_SHOWN_FIELDS]) + (", ..." if len(names) > _SHOWN_FIELDS else "")
        near = get_close_matches(name[:100], names, 1)
        hint = _HINTS.get(name.lower()) or (f"did you mean {near[0]!r}?" if near else "")
        advice = hint or "a field is known once a document has it"
        return f"filter: unknown field {shown(name)}; this index has {listed}; {advice}"

    def _value(self, name: str, value: Any) -> Any:
        """Return a value as its field's type takes it; raises ValueError for another type."""
        kind = self.fields[name]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if kind == "list<string>":
            raise ValueError(f'filter: field {name!r} is a list: write VALUE in {name}, or {{"{name}": {{"contains": VALUE}}}}')
        fits = isinstance(value, {"bool": bool, "string": str}[kind]) if kind in ("bool", "string") else is_number
        if not fits:
            raise ValueError(f"filter: field {name!r} is {kind} and cannot be compared with {shown(value)}")
        if isinstance(value, str):
            return _text(value)
        if isinstance(value, float) and isnan(value):
            raise ValueError(f"filter: field {name!r} cannot be compared with NaN")
        if kind in _INTEGERS and isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError(f"filter: an integer for field {name!r} is beyond 64 bits")
        if kind == "float64":
            try:
                return float(value)
            except OverflowError:
                raise ValueError(f"filter: a number for field {name!r} is beyond 64-bit floats") from None
        return value


def joined(plans: list[Plan], word: str) -> Plan:
    """Join plans by "and" or "or"."""
    join = pc.and_kleene if word == "and" else pc.or_kleene

    def plan(table: pa.Table) -> Any:
        result = plans[0](table)
        for each in plans[1:]:
            result = join(result, each(table))
        return result

    return plans[0] if len(plans) == 1 else plan


def negated(plan: Plan) -> Plan:
    """``not``; absent values stay absent."""
    return lambda table: pc.invert(plan(table))


def shown(value: object) -> str:
    """Show a value in a message, shortened."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**40:
        return "an integer of more than 40 digits"
    if isinstance(value, str | int | float | bool) or value is None:
        value = value[:61] if isinstance(value, str) else value
        text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
        return text if len(text) <= 62 else text[:60] + "..."
    return f"a value of type {type(value).__name__}"


def _compared(name: str, compare: Callable[[Any, Any], Any], value: Any, table: pa.Table) -> Any:
    column = table[name]
    return compare(column, pa.scalar(value, column.type))


def _in_64_bits(sign: str, value: int) -> tuple[str, int]:
    """Compare with the nearest integer of 64 bits: 1e30 and the like are beyond all of them."""
    low, high = -(2**63), 2**63 - 1
    if value > high:
        return {"==": (">", high), "!=": ("<=", high), "<": ("<=", high), "<=": ("<=", high)}.get(sign, (">", high))
    if value < low:
        return {"==": ("<", low), "!=": (">=", low), ">": (">=", low), ">=": (">=", low)}.get(sign, ("<", low))
    return sign, value


def _with_fraction(name: str, sign: str, value: float) -> Plan:
    """Compare integers with a number that is none, by the integer below; comparing as floats would round large integers."""
    if not isfinite(value):
        sign, below = _in_64_bits(sign, 2**64 if value > 0 else -(2**64))
    else:
        sign, below = {"<": "<=", ">=": ">"}.get(sign, sign), floor(value)
        if sign in ("==", "!="):
            return lambda table: pc.if_else(pc.is_valid(table[name]), sign == "!=", None)
    return partial(_compared, name, _COMPARISONS[sign], below)


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("filter: a string holds half of a surrogate pair, which no text has") from None
    return value
