"""Filter expressions over metadata, evaluated by pyarrow into a bitmap.

Grammar: comparisons (``==  !=  <  <=  >  >=``, also chained), ``in`` and ``not in`` with a list, ``"x" in tags`` for list
fields, ``and``, ``or``, ``not``, parentheses; strings in quotes, numbers, ``True`` and ``False``. ``doc_id``, ``title`` and
``text`` are fields too; ``field("a-name")`` names one that is no identifier. A comparison with an absent value is
false, and so is its ``not``: absent values never match, as in SQL.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .documents import DocumentStore

Mask = npt.NDArray[np.bool_]

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}
_MIRROR: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
}
_OWN_FIELDS = {"doc_id": "string", "title": "string", "text": "string"}
MAX_CHARS = 10_000


class Filter:
    """A parsed filter.

    Parameters
    ----------
    expression : str
        As in ``year >= 2015 and lang in ("en", "de")``.
    fields : mapping
        Metadata field -> type, as the index knows them.

    Raises
    ------
    ValueError
        The expression cannot be parsed, names an unknown field, or compares a field with a value of another type.
    """

    def __init__(self, expression: str, fields: Mapping[str, str]) -> None:
        self.expression = expression
        self._fields = {**fields, **_OWN_FIELDS}
        if len(expression) > MAX_CHARS:
            raise ValueError(f"filter: longer than {MAX_CHARS} characters")
        try:
            self._tree = ast.parse(expression.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            hint = "; write == for equality" if "=" in expression else ""
            raise ValueError(f"filter: cannot parse {expression!r}{hint}") from None
        self._names: dict[str, None] = {}
        self._plan = self._compile(self._tree)

    def mask(self, documents: DocumentStore) -> Mask:
        """Which of a segment's documents match: (n_docs,) bool."""
        if len(documents) == 0:
            return np.zeros(0, np.bool_)
        table = documents.columns({name: self._fields[name] for name in self._names} or {"doc_id": "string"})
        matches = pc.fill_null(self._plan(table), False)
        if isinstance(matches, pa.ChunkedArray):
            matches = matches.combine_chunks()
        return np.asarray(matches.to_numpy(zero_copy_only=False), np.bool_)

    def _compile(self, node: ast.expr) -> Callable[[pa.Table], Any]:
        if isinstance(node, ast.BoolOp):
            parts = [self._compile(value) for value in node.values]
            join = pc.and_kleene if isinstance(node.op, ast.And) else pc.or_kleene

            def joined(table: pa.Table) -> Any:
                result = parts[0](table)
                for part in parts[1:]:
                    result = join(result, part(table))
                return result

            return joined
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self._compile(node.operand)
            return lambda table: pc.invert(inner(table))
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            parts = [self._compare(*part) for part in zip(operands, node.ops, operands[1:], strict=False)]
            return parts[0] if len(parts) == 1 else self._all(parts)
        name = self._field(node)
        if name is not None:
            if self._fields[name] != "bool":
                raise ValueError(f"filter: field {name!r} is {self._fields[name]}: compare it with something")
            return lambda table: table[name]
        raise ValueError(f"filter: {ast.unparse(node)!r} is not a comparison")

    @staticmethod
    def _all(parts: list[Callable[[pa.Table], Any]]) -> Callable[[pa.Table], Any]:
        def chained(table: pa.Table) -> Any:
            result = parts[0](table)
            for part in parts[1:]:
                result = pc.and_kleene(result, part(table))
            return result

        return chained

    def _compare(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> Callable[[pa.Table], Any]:
        if isinstance(operator, ast.In | ast.NotIn):
            return self._membership(left, right, negate=isinstance(operator, ast.NotIn))
        name, other = self._field(left), right
        if name is None:
            name, other = self._field(right), left
            operator = _MIRROR.get(type(operator), type(operator))()
        compare = _COMPARISONS.get(type(operator))
        if name is None or compare is None:
            raise ValueError(f"filter: {ast.unparse(left)!r} ... {ast.unparse(right)!r} compares no field")
        value = self._value(name, other)
        return lambda table: compare(table[name], value)

    def _membership(self, left: ast.expr, right: ast.expr, *, negate: bool) -> Callable[[pa.Table], Any]:
        plan: Callable[[pa.Table], Any]
        listed = self._field(right)
        if listed is not None:  # "x" in tags
            if self._fields[listed] != "list<string>":
                raise ValueError(f"filter: field {listed!r} is {self._fields[listed]}, not a list")
            wanted = _literal(left)

            def plan(table: pa.Table) -> Any:
                column = table[listed]
                rows = column.to_pylist()
                return pa.array([None if row is None else wanted in row for row in rows], pa.bool_())
        else:
            name = self._field(left)
            if name is None or not isinstance(right, ast.Tuple | ast.List | ast.Set):
                raise ValueError("filter: write FIELD in (VALUE, VALUE) or VALUE in LIST_FIELD")
            values = [self._value(name, item) for item in right.elts]
            kind = None if values else pa.string()

            def plan(table: pa.Table) -> Any:
                column = table[name]
                inside = pc.is_in(column, value_set=pa.array(values, kind).cast(column.type))
                return pc.if_else(pc.is_valid(column), inside, None)

        return (lambda table: pc.invert(plan(table))) if negate else plan

    def _field(self, node: ast.expr) -> str | None:
        name = None
        if isinstance(node, ast.Name):
            name = node.id
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "field":
            if len(node.args) != 1 or not isinstance(_literal(node.args[0]), str):
                raise ValueError('filter: write field("NAME")')
            name = str(_literal(node.args[0]))
        if name is None:
            return None
        if name not in self._fields:
            raise ValueError(f"filter: unknown field {name!r}; this index has {', '.join(sorted(self._fields))}")
        if self._fields[name] == "json":
            raise ValueError(f"filter: field {name!r} holds nested values and cannot be filtered")
        self._names[name] = None
        return name

    def _value(self, name: str, node: ast.expr) -> Any:
        value, kind = _literal(node), self._fields[name]
        fits = {
            "bool": isinstance(value, bool),
            "int64": isinstance(value, int | float) and not isinstance(value, bool),
            "bigint": isinstance(value, int | float) and not isinstance(value, bool),
            "float64": isinstance(value, int | float) and not isinstance(value, bool),
            "string": isinstance(value, str),
        }.get(kind, False)
        if not fits:
            raise ValueError(f"filter: field {name!r} is {kind} and cannot be compared with {value!r}")
        if kind in ("int64", "bigint") and isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError(f"filter: {value} is beyond 64 bits")
        return float(value) if kind == "float64" else value


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _literal(node.operand)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return -value
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float | str):
        return node.value
    raise ValueError(f"filter: {ast.unparse(node)!r} is not a string, a number, True or False")
