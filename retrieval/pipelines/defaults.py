"""The default search expression of an index, by the representations of its fields."""

from __future__ import annotations

from collections.abc import Mapping

RERANKERS = ("tokens",)
"""Representations that order candidates better than they find them."""


def default_search(fields: Mapping[str, str]) -> str:
    """Return the expression that an index with these fields is searched with when nobody gives one.

    Parameters
    ----------
    fields : mapping of str to str
        Field name -> representation.

    Returns
    -------
    str
        One field: its name. Several first stages: their fusion by ranks. Token fields, if there are others, order the best
        documents of those.
    """
    second = [name for name, representation in fields.items() if representation in RERANKERS]
    first = [name for name in fields if name not in second] or second
    fused = " + ".join(first)
    if not second or first == second:
        return fused
    return f"({fused}) > {' + '.join(second)}" if len(first) > 1 else f"{fused} > {' + '.join(second)}"
