"""Filter plans: comparisons of metadata fields with values, checked against the fields' types and evaluated by pyarrow.

A plan maps the columns of a segment to one bool or null per document. Null means that a compared value is absent; ``and``,
``or`` and ``not`` are Kleene's, as in SQL, and a null does not match. A field that no document has is absent everywhere.
Values inside nested metadata have no type: one of another type than it is compared with counts as absent.
"""

from __future__ import annotations

import operator
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import cached_property, partial
from math import floor, isfinite, isnan
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import FilterError
from .columns import Columns, FieldRef, class_of

Plan = Callable[[Columns], Any]
"""Columns -> which rows match, with nulls."""

OWN_FIELDS = {"doc_id": "string", "title": "string", "text": "string"}
MAX_PARTS = 250_000
"""Names, values and operators of one filter; an expression may have 32 characters for each of them."""
MAX_COMPARISONS = 10_000
MAX_NESTING = 50
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": pc.equal, "!=": pc.not_equal, "<": pc.less, "<=": pc.less_equal, ">": pc.greater, ">=": pc.greater_equal,
}  # fmt: skip
_NESTED_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_INTEGERS = ("int64", "bigint")
_SHOWN_FIELDS = 30
MAX_UNSEEN = 20
"""Fields of one filter that no document has."""
_TYPO = 0.75  # how alike an unknown name and a known one are, from 0 to 1, to be taken for a mistyped one
_HINTS = {
    "true": "write True", "false": "write False", "null": "write FIELD is None", "none": "write FIELD is None",
    "and": "write and in lower case", "or": "write or in lower case", "not": "write not in lower case",
}  # fmt: skip


class Planner:
    """Makes plans over the fields of an index, and notes what they read.

    Attributes
    ----------
    fields : Mapping of str to str
        Metadata field -> type.
    reads : Counter of FieldRef
        How many comparisons read each field.
    """

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.fields = fields
        self.reads: Counter[FieldRef] = Counter()
        self._refs: dict[str, FieldRef] = {}
        self._n_parts = self._n_comparisons = 0

    def count(self, n_parts: int, nesting: int = 0) -> None:
        """Raise FilterError for a filter of too many parts, or too deep a one."""
        self._n_parts += n_parts
        if self._n_parts > MAX_PARTS:
            raise FilterError(f"filter: more than {MAX_PARTS} names, values and operators")
        if nesting > MAX_NESTING:
            raise FilterError(f"filter: more than {MAX_NESTING} levels inside each other")

    # --- comparisons ---

    def compare(self, name: str, sign: str, value: Any) -> Plan:
        """Compare a field with a value; ``sign`` is a key of ``_COMPARISONS``."""
        ref = self.use(name)
        _check_scalars(ref)
        checked = _checked(ref, value)
        if ref.kind in (None, "empty"):
            return _nowhere
        if ref.kind == "json":
            holds = _NESTED_COMPARISONS[sign]
            return _nested(ref, lambda found: holds(found, checked), class_of(checked))
        if ref.kind in _INTEGERS and isinstance(checked, float):
            if not checked.is_integer():
                return _with_fraction(ref, sign, checked)
            sign, checked = _in_64_bits(sign, int(checked))
        return partial(_compared, ref, _COMPARISONS[sign], checked)

    def truth(self, name: str) -> Plan:
        """Take a bool field as it is."""
        ref = self.use(name)
        if ref.kind is None:
            raise FilterError(self._unknown(name))
        if ref.kind == "json":
            return _nested(ref, bool, "bool")
        if ref.kind != "bool":
            raise FilterError(f"filter: field {ref} is {ref.kind}: compare it with something")
        return lambda columns: columns[ref]

    def absent(self, name: str) -> Plan:
        """Whether a field has no value."""
        ref = self.use(name)
        if ref.kind is None:
            return lambda columns: pa.array(np.ones(len(columns), np.bool_))
        if ref.kind == "json":
            return lambda columns: pa.array([found is None for found in columns.values(ref)], pa.bool_())
        return lambda columns: pc.is_null(columns[ref])

    def among(self, name: str, values: Iterable[Any]) -> Plan:
        """Whether a field's value is one of those given."""
        ref = self.use(name)
        _check_scalars(ref)
        checked = [_checked(ref, value) for value in values]
        if ref.kind in (None, "empty"):
            return _nowhere
        if ref.kind == "json":
            known = {(class_of(value), value) for value in checked}
            classes = {kind for kind, _ in known} or {"bool", "number", "string"}
            return _nested(ref, lambda found: (kind, found) in known if (kind := class_of(found)) in classes else None)
        if ref.kind in _INTEGERS:
            whole = [int(value) for value in checked if isinstance(value, int) or value.is_integer()]
            checked = [value for value in whole if -(2**63) <= value < 2**63]

        def plan(columns: Columns) -> Any:
            column = columns[ref]
            inside = pc.is_in(column, value_set=pa.array(checked, column.type))
            return pc.if_else(pc.is_valid(column), inside, None)

        return plan

    def contains(self, name: str, value: Any) -> Plan:
        """Whether a list field holds a value."""
        ref = self.use(name)
        if ref.kind is None or ref.kind == "json":
            wanted = class_of(_checked(ref, value))
            if ref.kind is None:
                return _nowhere
            return _nested(ref, lambda found: any(class_of(item) == wanted and item == value for item in found)
                           if isinstance(found, list) else None)  # fmt: skip
        if ref.kind not in ("list<string>", "empty"):
            raise FilterError(f"filter: field {ref} is {ref.kind}, not a list")
        if not isinstance(value, str):
            raise FilterError(f"filter: field {ref} holds strings and cannot hold {shown(value)}")
        text = _text(value)

        return lambda columns: pa.chunked_array([_holds(chunk, text) for chunk in columns[ref].chunks], pa.bool_())

    # --- names ---

    def knows(self, name: str) -> bool:
        """Whether a field has this name, spelled the same."""
        return name in OWN_FIELDS or name in self.fields

    def use(self, name: str) -> FieldRef:
        """Return what a name stands for, and note that it is read; raises FilterError for one that is likely mistyped."""
        if name not in self._refs:
            ref = FieldRef(name, OWN_FIELDS[name], own=True) if name in OWN_FIELDS else self._metadata(name)
            if ref is None and name.startswith("metadata."):
                ref = self._metadata(name.removeprefix("metadata."))
            self._refs[name] = ref or self._unseen(name)
        self._n_comparisons += 1
        if self._n_comparisons > MAX_COMPARISONS:
            raise FilterError(f"filter: more than {MAX_COMPARISONS} comparisons")
        self.reads[self._refs[name]] += 1
        return self._refs[name]

    def _metadata(self, name: str) -> FieldRef | None:
        """Find a metadata field, or the longest one that a dotted name begins with, whose objects have the other keys."""
        parts = name.split(".")
        for n in range(len(parts), 0, -1) if len(parts) <= MAX_NESTING else ():
            known, path = self._spelled(".".join(parts[:n])), tuple(parts[n:])
            if known is None:
                continue
            kind = self.fields[known]
            if path and kind not in ("json", "empty"):
                raise FilterError(f"filter: field {known!r} is {kind} and has no keys; found {shown(name)}")
            return FieldRef(known, None if path and kind == "empty" else kind, path=path)
        return None

    def _spelled(self, name: str) -> str | None:
        """Return the field of this name, or the only one that Unicode holds for the same."""
        if name in self.fields or name.isascii():
            return name if name in self.fields else None
        same = self._normalized.get(unicodedata.normalize("NFC", name), [])
        return same[0] if len(same) == 1 else None

    @cached_property
    def _normalized(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for name in self.fields:
            names.setdefault(unicodedata.normalize("NFC", name), []).append(name)
        return names

    def _unseen(self, name: str) -> FieldRef:
        _text(name)
        if name.lower() in _HINTS or get_close_matches(name[:100], [*self.fields, *OWN_FIELDS], 1, _TYPO):
            raise FilterError(self._unknown(name))
        if sum(ref.kind is None for ref in self._refs.values()) == MAX_UNSEEN:
            raise FilterError(f"filter: more than {MAX_UNSEEN} fields that no document has, {shown(name)} among them")
        return FieldRef(name, None)

    def _unknown(self, name: str) -> str:
        names = sorted({*self.fields, *OWN_FIELDS})
        listed = ", ".join(each[:60] for each in names[:_SHOWN_FIELDS]) + (", ..." if len(names) > _SHOWN_FIELDS else "")
        near = get_close_matches(name[:100], names, 1)
        hint = _HINTS.get(name.lower()) or (f"did you mean {near[0]!r}?" if near else "")
        advice = hint or "a field is known once a document has it"
        return f"filter: unknown field {shown(name)}; this index has {listed}; {advice}"


def _check_scalars(ref: FieldRef) -> None:
    if ref.kind == "list<string>":
        raise FilterError(
            f'filter: field {ref} is a list: write VALUE in {ref.name}, or {{"{ref.name}": {{"contains": VALUE}}}}'
        )


def _checked(ref: FieldRef, value: Any) -> Any:
    """Return a value as its field's type takes it; raises FilterError for another type."""
    kind = ref.kind
    wanted = {"bool": "bool", "string": "string", "int64": "number", "bigint": "number", "float64": "number"}.get(kind or "")
    found = class_of(value)
    if found is None or wanted not in (None, found):
        raise FilterError(f"filter: field {ref} is {kind or 'unknown'} and cannot be compared with {shown(value)}")
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float) and isnan(value):
        raise FilterError(f"filter: field {ref} cannot be compared with NaN")
    if kind in _INTEGERS and isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise FilterError(f"filter: an integer for field {ref} is beyond 64 bits")
    if kind == "float64":
        try:
            return float(value)
        except OverflowError:
            raise FilterError(f"filter: a number for field {ref} is beyond 64-bit floats") from None
    return value


def joined(plans: list[Plan], word: str) -> Plan:
    """Join plans by "and" or "or"."""
    join = pc.and_kleene if word == "and" else pc.or_kleene

    def plan(columns: Columns) -> Any:
        result = plans[0](columns)
        for each in plans[1:]:
            result = join(result, each(columns))
        return result

    return plans[0] if len(plans) == 1 else plan


def negated(plan: Plan) -> Plan:
    """``not``; absent values stay absent."""
    return lambda columns: pc.invert(plan(columns))


def shown(value: object) -> str:
    """Show a value in a message, shortened."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**40:
        return "an integer of more than 40 digits"
    if isinstance(value, str | int | float | bool) or value is None:
        value = value[:61] if isinstance(value, str) else value
        text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
        return text if len(text) <= 62 else text[:60] + "..."
    return f"a value of type {type(value).__name__}"


def _nowhere(columns: Columns) -> Any:
    return pa.nulls(len(columns), pa.bool_())


def _nested(ref: FieldRef, holds: Callable[[Any], bool | None], kind: str | None = None) -> Plan:
    """Ask each value of a json field that is of a class; where there is none, the answer is null."""

    def plan(columns: Columns) -> Any:
        return pa.array([None if found is None else holds(found) for found in columns.values(ref, kind)], pa.bool_())

    return plan


def _holds(lists: pa.ListArray, text: str) -> pa.Array:
    parents = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    equal = pc.fill_null(pc.equal(pc.list_flatten(lists), text), False).to_numpy(zero_copy_only=False)
    holds = np.zeros(len(lists), np.bool_)
    holds[parents[equal]] = True
    return pc.if_else(pc.is_valid(lists), pa.array(holds), None)


def _compared(ref: FieldRef, compare: Callable[[Any, Any], Any], value: Any, columns: Columns) -> Any:
    column = columns[ref]
    return compare(column, pa.scalar(value, column.type))


def _in_64_bits(sign: str, value: int) -> tuple[str, int]:
    """Compare with the nearest integer of 64 bits: 1e30 and the like are beyond all of them."""
    low, high = -(2**63), 2**63 - 1
    if value > high:
        return {"==": (">", high), "!=": ("<=", high), "<": ("<=", high), "<=": ("<=", high)}.get(sign, (">", high))
    if value < low:
        return {"==": ("<", low), "!=": (">=", low), ">": (">=", low), ">=": (">=", low)}.get(sign, ("<", low))
    return sign, value


def _with_fraction(ref: FieldRef, sign: str, value: float) -> Plan:
    """Compare integers with a number that is none, by the integer below; comparing as floats would round large integers."""
    if not isfinite(value):
        sign, below = _in_64_bits(sign, 2**64 if value > 0 else -(2**64))
    else:
        sign, below = {"<": "<=", ">=": ">"}.get(sign, sign), floor(value)
        if sign in ("==", "!="):
            return lambda columns: pc.if_else(pc.is_valid(columns[ref]), sign == "!=", None)
    return partial(_compared, ref, _COMPARISONS[sign], below)


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise FilterError("filter: a string holds half of a surrogate pair, which no text has") from None
    return value
