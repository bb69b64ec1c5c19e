"""Filters of frameworks as filter trees.

Frameworks know two truth values: what is absent differs from every value. In a filter tree, as in SQL, a comparison with an
absent value is neither true nor false. So negations go down to the comparisons, where "or absent" is added to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...index.errors import FilterError
from ...index.filters.plans import OWN_FIELDS

LLAMAINDEX = {sign: sign for sign in ("==", "!=", "<", "<=", ">", ">=", "in", "contains")} | {"nin": "not in"}
LLAMAINDEX_LISTS = {"any": "or", "all": "and"}
OPPOSITES = {"!=": "==", "not in": "in"}
Tree = dict[str, Any]


def metadata_name(name: str) -> str:
    """Return how a filter tree names a metadata field, also one that is called ``title``."""
    return f"metadata.{name}" if name in OWN_FIELDS else name


def compared(name: str, sign: str, value: Any, *, negated: bool = False) -> Tree:
    """Compare a field with a value, or the opposite; ``sign`` is an operator of filter trees."""
    if sign in OPPOSITES:
        return compared(name, OPPOSITES[sign], value, negated=not negated)
    if value is None and sign == "==":
        return {name: {"!=" if negated else "==": None}}
    tree: Tree = {name: {sign: value}}
    return {"or": [{"not": tree}, {name: None}]} if negated else tree


def joined(word: str, trees: Sequence[Tree], *, negated: bool = False) -> Tree:
    """Join trees, which are negated already, by ``and`` or ``or``, or by the opposite."""
    return {("or" if word == "and" else "and") if negated else word: list(trees)}


def tree_of_llamaindex(found: Any, *, negated: bool = False) -> Tree:
    """Return the tree of LlamaIndex's ``MetadataFilters``; raises FilterError for an operator that there is not."""
    if hasattr(found, "filters"):
        condition = "and" if found.condition is None else found.condition.value
        word = "or" if condition == "not" else condition
        inside = negated != (condition == "not")  # none of them: the opposite of "or"
        return joined(word, [tree_of_llamaindex(each, negated=inside) for each in found.filters], negated=inside)
    name, sign, value = metadata_name(found.key), found.operator.value, found.value
    if sign in LLAMAINDEX_LISTS and isinstance(value, list):
        trees = [compared(name, "contains", each, negated=negated) for each in value]
        return joined(LLAMAINDEX_LISTS[sign], trees, negated=negated)
    if sign not in LLAMAINDEX:
        known = ", ".join([*LLAMAINDEX, *LLAMAINDEX_LISTS])
        raise FilterError(f"filter: there is no operator {sign!r} of {found.key!r}; there are {known}")
    return compared(name, LLAMAINDEX[sign], value, negated=negated)


def tree_of_query(query: Any) -> Tree | None:
    """Return the tree of a ``VectorStoreQuery`` of LlamaIndex: its ids of nodes and documents, if any, and its metadata."""
    trees = [] if query.filters is None or not query.filters.filters else [tree_of_llamaindex(query.filters)]
    if query.node_ids:
        trees.append({"doc_id": {"in": query.node_ids}})
    if query.doc_ids:
        trees.append({"ref_doc_id": {"in": query.doc_ids}})
    return {"and": trees} if trees else None
