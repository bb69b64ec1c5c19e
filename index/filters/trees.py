"""Filter trees: filters as JSON, which programs build more easily than expressions.

::

    {"year": {">=": 2015, "<": 2020}, "lang": {"in": ["en", "de"]}}      all keys must hold
    {"and": [TREE, ...]}   {"or": [TREE, ...]}   {"not": TREE}
    {"lang": "en"}   {"venue": null}   {"venue": {"!=": null}}   {"tags": {"contains": "cancer"}}   {"author.name": "Ada"}

Operators are ``==  !=  <  <=  >  >=  in  not in  contains``; ``$eq``, ``$gte``, ``$in``, ``$and`` and the other spellings of
vector databases mean the same. Where a field is called ``and``, ``or`` or ``not``, write ``$and``, ``$or``, ``$not`` for the
word.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import FilterError
from .plans import Plan, Planner, joined, negated, shown

OPERATORS = {
    "==": "==", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">=", "in": "in", "not in": "not in", "contains": "contains",
    "$eq": "==", "$ne": "!=", "$lt": "<", "$lte": "<=", "$gt": ">", "$gte": ">=", "$in": "in", "$nin": "not in",
    "$contains": "contains",
}  # fmt: skip
WORDS = {"and": "and", "or": "or", "not": "not", "$and": "and", "$or": "or", "$not": "not"}


def tree_of(text: str) -> Any:
    """Return the tree that a JSON text holds; raises FilterError for what is not JSON."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number in JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as problem:
        what = "too deep" if isinstance(problem, RecursionError) else problem
        raise FilterError(f"filter: a text that begins with {{ is a tree as JSON: {what}") from None


def parse_tree(planner: Planner, tree: Any, nesting: int = 0) -> Plan:
    """Return the plan of a filter tree.

    Raises
    ------
    FilterError
        The tree is malformed, or `Planner` refuses it.
    """
    planner.count(1, nesting)
    if not isinstance(tree, Mapping) or not tree:
        found = "an empty one" if isinstance(tree, Mapping) else shown(tree)
        raise FilterError(f"filter: a tree is an object with fields, or with and, or, not; found {found}")
    return joined([_part(planner, key, value, nesting) for key, value in tree.items()], "and")


def tree_key(tree: Mapping[str, Any]) -> str:
    """Return a text that equal trees share; raises FilterError for what JSON cannot hold."""
    try:
        return json.dumps(tree, sort_keys=True, default=_plain)
    except (TypeError, ValueError, RecursionError) as problem:
        what = "too deep" if isinstance(problem, RecursionError) else problem
        raise FilterError(f"filter: a tree holds what JSON can hold: {what}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if _is_list(value):
        return list(value)
    raise TypeError(f"not {shown(value)}")


def _part(planner: Planner, key: Any, value: Any, nesting: int) -> Plan:
    if not isinstance(key, str):
        raise FilterError(f"filter: keys of a tree are strings, not {shown(key)}")
    word = None if planner.knows(key) else WORDS.get(key)
    if word == "not":
        return negated(parse_tree(planner, value, nesting + 1))
    if word is not None:
        if not _is_list(value) or not value:
            raise FilterError(f"filter: {key!r} takes a list of trees")
        return joined([parse_tree(planner, each, nesting + 1) for each in value], word)
    if not isinstance(value, Mapping):
        return _compared(planner, key, "==", value)
    if not value:
        raise FilterError(f"filter: {shown(key)} takes a value, or operators with values")
    return joined([_compared(planner, key, operator, operand) for operator, operand in value.items()], "and")


def _compared(planner: Planner, name: str, operator: Any, value: Any) -> Plan:
    planner.count(2)
    sign = OPERATORS.get(operator) if isinstance(operator, str) else None
    if sign is None:
        raise FilterError(f"filter: unknown operator {shown(operator)}; there are {', '.join(OPERATORS)}")
    if value is None and sign in ("==", "!="):
        return planner.absent(name) if sign == "==" else negated(planner.absent(name))
    if sign == "contains":
        return planner.contains(name, value)
    if sign in ("in", "not in"):
        if not _is_list(value):
            raise FilterError(f"filter: {operator!r} takes a list")
        planner.count(len(value))
        plan = planner.among(name, value)
        return plan if sign == "in" else negated(plan)
    return planner.compare(name, sign, value)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
