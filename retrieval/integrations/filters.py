"""Filters of frameworks as filter trees.

Frameworks know two truth values: what is absent differs from every value. In a filter tree, as in SQL, a comparison with an
absent value is neither true nor false. So negations go down to the comparisons, where "or absent" is added to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from ...index.errors import FilterError
from ...index.filters.plans import OWN_FIELDS
from ...index.filters.trees import WORDS

LLAMAINDEX = {sign: sign for sign in ("==", "!=", "<", "<=", ">", ">=", "in", "contains")} | {"nin": "not in"}
LLAMAINDEX_LISTS = {"any": "or", "all": "and"}
HAYSTACK = ("==", "!=", "<", "<=", ">", ">=", "in", "not in")
OPPOSITES = {"!=": "==", "not in": "in"}
Tree = dict[str, Any]


def metadata_name(name: str) -> str:
    """Return how a filter tree names a metadata field, also one that is called ``title``."""
    return f"metadata.{name}" if name in OWN_FIELDS else name


def of_metadata(filter: Any) -> Any:
    """Return a filter tree whose names are all of metadata, as in LangChain; expressions are left as they are."""
    if not isinstance(filter, Mapping):
        return filter
    words = {name: each for name, each in filter.items() if name in WORDS}
    inside = {
        name: [of_metadata(x) for x in each] if isinstance(each, list) else of_metadata(each) for name, each in words.items()
    }
    return {**inside, **{metadata_name(name): each for name, each in filter.items() if name not in WORDS}}


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


def tree_of_haystack(found: Any, *, negated: bool = False) -> Tree:
    """Return the tree of a filter of Haystack; raises FilterError for a malformed one."""
    if not isinstance(found, Mapping) or not ("conditions" in found or "field" in found):
        raise FilterError(f"filter: expected a mapping with 'field' or 'conditions', found {str(found)[:80]}")
    operator = found.get("operator")
    if "field" not in found:
        if operator not in ("AND", "OR", "NOT") or not isinstance(found["conditions"], list):
            raise FilterError(f"filter: conditions are a list, with the operator AND, OR or NOT, not {operator!r}")
        inside = negated != (operator == "NOT")
        trees = [tree_of_haystack(each, negated=inside) for each in found["conditions"]]
        return joined("or" if operator == "OR" else "and", trees, negated=inside)
    if operator not in HAYSTACK or "value" not in found:
        raise FilterError(f"filter: a comparison has a value and one of {', '.join(HAYSTACK)}, not {operator!r}: {dict(found)}")
    name, value = _haystack_name(found["field"]), found["value"]
    value = value.isoformat() if isinstance(value, date) else value
    if operator in ("in", "not in") and not isinstance(value, list):
        raise FilterError(f"filter: {operator!r} takes a list, not {type(value).__name__}")
    if operator in ("<", "<=", ">", ">="):
        if value is None:  # never true
            nowhere = [{name: {"==": None}}, {name: {"!=": None}}]
            return {"or" if negated else "and": nowhere}
        if isinstance(value, list) or (isinstance(value, str) and not _is_date(value)):
            raise FilterError(f"filter: {operator!r} compares numbers, and dates as ISO texts, not {value!r}")
    return compared(name, operator, value, negated=negated)


def _haystack_name(name: Any) -> str:
    if not isinstance(name, str):
        raise FilterError(f"filter: a field has a name, not {name!r}")
    if name in ("id", "content"):
        return {"id": "doc_id", "content": "text"}[name]
    return metadata_name(name.removeprefix("meta."))


def _is_date(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
