r"""Filter expressions, a small part of Python's syntax, parsed by recursive descent.

::

    filter     := both ( "or" both )*
    both       := negation ( "and" negation )*
    negation   := "not" negation | comparison
    comparison := operand ( ( "==" | "!=" | "<" | "<=" | ">" | ">=" ) operand )+          chained, as in 2010 < year <= 2020
                | FIELD [ "not" ] "in" "(" VALUE, ... ")"  |  VALUE [ "not" ] "in" LIST_FIELD
                | FIELD "is" [ "not" ] "None"  |  BOOL_FIELD  |  "(" filter ")"
    operand    := FIELD | VALUE               FIELD also as field("a-name"); a.b is the key b in the objects of a field a
    VALUE      := a string in quotes, a number, True or False

Lists may stand in any brackets. Strings know the escapes ``\\ \' \" \n \t \r \uXXXX``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NoReturn

from ..errors import FilterError
from .plans import MAX_PARTS, Plan, Planner, joined, negated, shown

MAX_CHARS = 32 * MAX_PARTS
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>"(?:[^"\\\n]++|\\.)*+"|'(?:[^'\\\n]++|\\.)*+')
    | (?P<number>(?:[0-9][0-9_]*+(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?+(?![^\s\x00-/:-@\[-^`{-\x7f]))
    | (?P<name>[^\s\x00-/:-@\[-^`{-\x7f]++(?:\.[^\s\x00-/:-@\[-^`{-\x7f]++)*+)
    | (?P<sign>==|!=|<=|>=|[-+<>()\[\]{},])
    | (?P<end>\Z)
    | (?P<wrong>.)
    )""",
    re.VERBOSE | re.DOTALL,
)
_ITEM = re.compile(r"""\s*+(?:"([^"\\\n]++)"|'([^'\\\n]++)'|(-?[0-9]{1,18}+))\s*+,""")
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_ESCAPES = {"\\": "\\", "'": "'", '"': '"', "n": "\n", "t": "\t", "r": "\r"}
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_MIRROR = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_WORDS = {"and", "or", "not", "in", "is", "True", "False", "None"}
_WRONG = {
    "=": "write == for equality", "&": "write and", "|": "write or", "!": "write not, or !=", "~": "write not",
    '"': "the string has no end", "'": "the string has no end", ".": 'write field("a.name")',
}  # fmt: skip


@dataclass(frozen=True)
class _Name:
    """A field's name, before it is known what it is compared with."""

    text: str


@dataclass(frozen=True)
class _Value:
    """A string, a number, True or False."""

    value: Any


_Operand = _Name | _Value


def parse_expression(planner: Planner, text: str) -> Plan:
    """Return the plan of a filter expression.

    Raises
    ------
    FilterError
        The expression is malformed: what was expected, and where; or `Planner` refuses it.
    """
    if len(text) > MAX_CHARS:
        raise FilterError(f"filter: longer than {MAX_CHARS} characters")
    return _Parser(planner, text).plan()


class _Parser:
    """One expression; ``kind`` and ``piece`` are those at ``start``, ``end`` is where the next one begins."""

    def __init__(self, planner: Planner, text: str) -> None:
        self._planner, self._text = planner, text
        self._start = self._end = self._nesting = 0
        self._kind = self._piece = ""
        self._advance()

    def plan(self) -> Plan:
        """Parse all of the expression."""
        plan = self._finished(self._either())
        if self._kind != "end":
            self._fail("and, or, or the end")
        return plan

    # --- grammar ---

    def _either(self) -> Plan | _Operand:
        return self._joined("or", self._both)

    def _both(self) -> Plan | _Operand:
        return self._joined("and", self._negation)

    def _joined(self, word: str, part: Any) -> Plan | _Operand:
        first = part()
        if not self._at(word):
            operand: Plan | _Operand = first
            return operand
        plans = [self._finished(first)]
        while self._take(word):
            plans.append(self._finished(part()))
        return joined(plans, word)

    def _negation(self) -> Plan | _Operand:
        if not self._take("not"):
            return self._comparison()
        self._deeper()
        plan = negated(self._finished(self._negation()))
        self._nesting -= 1
        return plan

    def _comparison(self) -> Plan | _Operand:
        left = self._operand()
        plans: list[Plan] = []
        while True:
            plan, right = self._compared(left)
            if plan is None:
                return joined(plans, "and") if plans else left
            plans.append(plan)
            left = right

    def _compared(self, left: Plan | _Operand) -> tuple[Plan | None, Plan | _Operand]:
        """Parse an operator and what follows; no plan where there is no operator."""
        planner = self._planner
        if self._kind == "sign" and self._piece in _MIRROR:
            sign = self._piece
            self._advance()
            right = self._operand()
            if isinstance(left, _Name) and isinstance(right, _Value):
                return planner.compare(left.text, sign, right.value), right
            if isinstance(left, _Value) and isinstance(right, _Name):
                return planner.compare(right.text, _MIRROR[sign], left.value), right
            names = [planner.use(side.text) for side in (left, right) if isinstance(side, _Name)]
            what = "two fields" if len(names) == 2 else "no field with a value"
            hint = ", a text in quotes" if len(names) == 2 else ""
            raise FilterError(f"filter: {sign} compares {what}: compare a field with a value{hint}")
        if self._at("is"):
            self._advance()
            negate = self._take("not")
            if not isinstance(left, _Name) or not self._take("None"):
                raise FilterError("filter: write FIELD is None or FIELD is not None")
            plan = planner.absent(left.text)
            return (negated(plan) if negate else plan), plan
        negate = self._take("not")
        if not negate and not self._at("in"):
            return None, left
        if not self._take("in"):
            self._fail("in")
        plan = self._membership(left)
        return (negated(plan) if negate else plan), plan

    def _membership(self, left: Plan | _Operand) -> Plan:
        if isinstance(left, _Name) and self._kind == "sign" and self._piece in _CLOSING:
            return self._planner.among(left.text, self._list())
        if isinstance(left, _Value) and self._kind == "name":
            right = self._operand()
            if isinstance(right, _Name):
                return self._planner.contains(right.text, left.value)
        raise FilterError("filter: write FIELD in (VALUE, VALUE) or VALUE in LIST_FIELD")

    def _operand(self) -> Plan | _Operand:
        if self._kind == "sign" and self._piece in "([{":
            return self._group()
        if self._kind == "name" and self._piece not in _WORDS:
            return self._name()
        return _Value(self._value())

    def _group(self) -> Plan | _Operand:
        self._deeper()
        if not self._take("("):
            self._fail("a field or a value; lists follow in")
        inner = self._either()
        if not self._take(")"):
            self._fail("and, or, or )")
        self._nesting -= 1
        return inner

    def _name(self) -> _Name:
        name = self._piece
        self._advance()
        if name != "field" or not self._at("("):
            return _Name(name)
        self._advance()
        quoted = self._value() if self._kind == "string" else None
        if quoted is None or not self._take(")"):
            raise FilterError('filter: write field("NAME")')
        return _Name(quoted)

    def _list(self) -> list[Any]:
        closing = _CLOSING[self._piece]
        self._advance()
        values = self._items()
        while not self._take(closing):
            values.append(self._value())
            if not self._take(",") and not self._at(closing):
                self._fail(f", or {closing}")
        return values

    def _items(self) -> list[Any]:
        """Read the plain strings and integers that a list begins with, each up to its comma: lists may be long."""
        values: list[Any] = []
        end = self._start
        while found := _ITEM.match(self._text, end):
            values.append(found[1] or found[2] or int(found[3]))
            end = found.end()
        self._planner.count(len(values))
        self._end = end
        self._advance()
        return values

    def _value(self) -> Any:
        kind, piece = self._kind, self._piece
        if kind == "sign" and piece in "-+":
            self._advance()
            if self._kind != "number":
                self._fail("a number")
            number = self._number(self._piece)
            self._advance()
            return -number if piece == "-" else number
        value: Any = None
        if kind == "string":
            value = _ESCAPE.sub(self._unescaped, piece[1:-1]) if "\\" in piece else piece[1:-1]
        elif kind == "number":
            value = self._number(piece)
        elif piece in ("True", "False"):
            value = piece == "True"
        if value is None:
            self._fail("a string in quotes, a number, True or False" if piece != "None" else "is None, not ==,")
        self._advance()
        return value

    def _number(self, piece: str) -> int | float:
        try:
            return int(piece) if piece.replace("_", "").isdigit() else float(piece)
        except ValueError:
            raise FilterError(f"filter: {shown(piece)} is no number that a field could have") from None

    def _unescaped(self, found: re.Match[str]) -> str:
        code = found[1]
        if len(code) > 1:
            return chr(int(code[1:], 16))
        if code not in _ESCAPES:
            raise FilterError(f"filter: unknown escape \\{ascii(code)[1:-1]} in a string; write \\\\ for a backslash")
        return _ESCAPES[code]

    # --- tokens ---

    def _advance(self) -> None:
        found = _TOKEN.match(self._text, self._end)
        if found is None or found.lastgroup is None:  # the last alternative takes any character
            raise FilterError("filter: cannot parse the expression")
        self._kind = found.lastgroup
        self._piece, self._start, self._end = found[self._kind], found.start(self._kind), found.end()
        if self._piece != ",":
            self._planner.count(1)
        if self._kind == "wrong":
            self._fail("a field, a value or an operator")

    def _at(self, piece: str) -> bool:
        return self._piece == piece and self._kind in ("name", "sign")

    def _take(self, piece: str) -> bool:
        if not self._at(piece):
            return False
        self._advance()
        return True

    def _deeper(self) -> None:
        self._nesting += 1
        self._planner.count(0, self._nesting)

    def _finished(self, part: Plan | _Operand) -> Plan:
        """Return a plan; a name alone must be a bool field's."""
        if isinstance(part, _Name):
            starts = self._kind == "name" and self._piece not in _WORDS
            if starts or self._kind in ("number", "string") or (self._kind == "sign" and self._piece in "([{-+"):
                self._planner.use(part.text)
                self._fail("an operator")
            return self._planner.truth(part.text)
        if isinstance(part, _Value):
            raise FilterError(f"filter: {shown(part.value)} is not a comparison")
        return part

    def _fail(self, expected: str) -> NoReturn:
        piece = self._piece
        found = "the end" if self._kind == "end" else shown(piece)
        hint = _WRONG.get(piece, "") if self._kind == "wrong" else ""
        if piece in ("AND", "OR", "NOT", "IN", "IS"):
            hint = f"write {piece.lower()} in lower case"
        elif piece in ("true", "false", "null"):
            hint = "write True, False, None"
        elif piece in ("-", "+") and not hint:
            hint = 'a name with a dash is written field("a-name")'
        first = max(0, self._start - 30)
        near = shown(self._text[first : self._start + 30])
        where = f"at character {self._start + 1}, near {near}"
        raise FilterError(f"filter: cannot parse: expected {expected}, found {found} {where}" + (f"; {hint}" if hint else ""))
