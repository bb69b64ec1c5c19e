"""Filters over metadata, evaluated into one bitmap per segment.

An expression (`filter_expressions`) has comparisons, also chained, ``in`` and ``not in`` with a list, ``"x" in tags`` for list
fields, ``is None``, ``and``, ``or``, ``not`` and parentheses: ``year >= 2015 and lang in ("en", "de")``. A tree
(`filter_trees`) is the same as JSON: ``{"year": {">=": 2015}, "lang": {"in": ["en", "de"]}}``. ``doc_id``, ``title`` and
``text`` are fields too.

A comparison with an absent value does not match, and neither does its ``not``, as in SQL: ``is None`` finds absent values.
Integers are compared exactly, numbers of float fields as 64-bit floats, strings by their code points.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .arrays import Mask
from .documents import DocumentStore
from .filter_expressions import parse_expression
from .filter_plans import Planner
from .filter_trees import parse_tree, tree_key

__all__ = ["Filter", "filter_key"]


class Filter:
    """A filter, parsed and checked against the index's metadata fields.

    Parameters
    ----------
    filter : str or mapping
        An expression or a tree.
    fields : mapping
        Metadata field -> type, as the index knows them.

    Raises
    ------
    ValueError
        The filter cannot be parsed, names an unknown field, compares a field with a value of another type, or is too large.
    """

    def __init__(self, filter: str | Mapping[str, Any], fields: Mapping[str, str]) -> None:
        planner = Planner(fields)
        if isinstance(filter, str):
            self._plan = parse_expression(planner, filter)
        elif isinstance(filter, Mapping):
            self._plan = parse_tree(planner, filter)
        else:
            raise ValueError(f"filter: an expression or a tree (an object), not {type(filter).__name__}")
        self._fields = planner.used

    def mask(self, documents: DocumentStore) -> Mask:
        """Which of a segment's documents match: (n_docs,) bool."""
        if len(documents) == 0:
            return np.zeros(0, np.bool_)
        matches = pc.fill_null(self._plan(documents.columns(self._fields)), False)
        if isinstance(matches, pa.ChunkedArray):
            matches = matches.combine_chunks()
        return np.asarray(matches.to_numpy(zero_copy_only=False), np.bool_)


def filter_key(filter: str | Mapping[str, Any]) -> tuple[str, str]:
    """Return a key that equal filters share; raises ValueError for what is no filter."""
    if isinstance(filter, str):
        return "expression", filter
    if isinstance(filter, Mapping):
        return "tree", tree_key(filter)
    raise ValueError(f"filter: an expression or a tree (an object), not {type(filter).__name__}")
