"""Filters over metadata, evaluated into one bitmap per segment.

An expression (`expressions`) has comparisons, also chained, ``in`` and ``not in`` with a list, ``"x" in tags`` for list
fields, ``is None``, ``and``, ``or``, ``not`` and parentheses: ``year >= 2015 and lang in ("en", "de")``. A tree
(`trees`) is the same as JSON: ``{"year": {">=": 2015}, "lang": {"in": ["en", "de"]}}``. ``doc_id``, ``title`` and
``text`` are fields too; metadata of the same name is ``metadata.title``. ``author.name`` is a key of the objects in ``author``.

A comparison with an absent value does not match, and neither does its ``not``, as in SQL: ``is None`` finds absent values. A
field that no document has is absent everywhere. Integers are compared exactly, numbers of float fields as 64-bit floats,
strings by their code points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..arrays import Mask
from ..documents import DocumentStore
from ..errors import FilterError
from .columns import Columns
from .expressions import parse_expression
from .plans import Planner
from .trees import parse_tree, tree_key, tree_of

__all__ = ["Filter", "filter_key"]

MAX_READ_BYTES = 8 << 30
"""Bytes of columns that the comparisons of one filter read, some seconds of work."""
FREE_COMPARISONS = 16
"""So many comparisons are answered however large the index is."""


class Filter:
    """A filter, parsed and checked against the index's metadata fields.

    Parameters
    ----------
    filter : str or mapping
        An expression, or a tree as it is or as JSON.
    fields : mapping
        Metadata field -> type, as the index knows them.

    Attributes
    ----------
    unseen : list of str
        Fields of the filter that no document has.

    Raises
    ------
    FilterError
        The filter cannot be parsed, compares a field with a value of another type, has a name that is nearly that of a field,
        or is too large.
    """

    def __init__(self, filter: str | Mapping[str, Any], fields: Mapping[str, str]) -> None:
        planner = Planner(fields)
        if isinstance(filter, str) and not filter.lstrip().startswith("{"):
            self._plan = parse_expression(planner, filter)
        elif isinstance(filter, str | Mapping):
            self._plan = parse_tree(planner, tree_of(filter) if isinstance(filter, str) else filter)
        else:
            raise FilterError(_no_filter(filter))
        self._reads = planner.reads
        self.unseen = [ref.name for ref in planner.reads if ref.kind is None]

    def masks(self, stores: Sequence[DocumentStore]) -> list[Mask]:
        """Which documents of each segment match: (n_docs,) bool.

        Raises
        ------
        FilterError
            Many comparisons of large columns: it would take long.
        """
        segments = [Columns(documents) for documents in stores]
        n_comparisons = self._reads.total()
        if n_comparisons > FREE_COMPARISONS:
            cost = sum(n * segment.cost(ref) for segment in segments for ref, n in self._reads.items())
            if cost > MAX_READ_BYTES:
                raise FilterError(
                    f"filter: {n_comparisons} comparisons would read {cost / 2**30:.0f} GiB of this index, at most "
                    f"{MAX_READ_BYTES >> 30}: ask whether a field is in a list of values instead of comparing it with each"
                )
        return [self._mask(columns) for columns in segments]

    def _mask(self, columns: Columns) -> Mask:
        if len(columns) == 0:
            return np.zeros(0, np.bool_)
        matches = pc.fill_null(self._plan(columns), False)
        if isinstance(matches, pa.ChunkedArray):
            matches = matches.combine_chunks()
        return np.asarray(matches.to_numpy(zero_copy_only=False), np.bool_)


def filter_key(filter: str | Mapping[str, Any]) -> tuple[str, str]:
    """Return a key that equal filters share; raises FilterError for what is no filter."""
    if isinstance(filter, str):
        return "text", filter
    if isinstance(filter, Mapping):
        return "tree", tree_key(filter)
    raise FilterError(_no_filter(filter))


def _no_filter(filter: object) -> str:
    return f"filter: an expression or a tree (an object), not {type(filter).__name__}"
