"""Search expressions: one grammar for fusion and reranking over the vector fields of an index.

::

    search   := fused ( ">" fused [":" depth] )*        rerank, left to right
    fused    := term ( "+" term )*                      no weights: reciprocal rank fusion; weights: scaled scores, summed
    term     := [ weight "*" ] atom [ ":" depth ]       depth: documents that it contributes; no two of a fusion are alike
    atom     := FIELD | "(" search ")"

After ``>`` terms are fields without a depth of their own; a depth at the end limits the candidates.

>>> str(parse("(bm25+splade)>0.3*bm25 + .7*colbert:50"))
'(bm25 + splade) > 0.3*bm25 + 0.7*colbert:50'
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_LENGTH = 10_000
MAX_NESTING = 50
MAX_DEPTH = 1_000_000
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z][A-Za-z0-9_-]*)|(?P<sign>[()+*>:]))"
)


class ExpressionError(ValueError):
    """A malformed search expression.

    Attributes
    ----------
    expression : str
    position : int
        Where it went wrong, in characters from 0.
    reason : str
    """

    def __init__(self, expression: str, position: int, reason: str) -> None:
        super().__init__(f"search expression {expression!r}, character {position + 1}: {reason}")
        self.expression, self.position, self.reason = expression, position, reason


@dataclass(frozen=True)
class Term:
    """One part of a fusion: a field or a search in parentheses, with the weight and depth that were written."""

    source: str | Search
    weight: float | None = None
    depth: int | None = None

    def __str__(self) -> str:
        weight = "" if self.weight is None else f"{_number(self.weight)}*"
        source = self.source if isinstance(self.source, str) else f"({self.source})"
        return f"{weight}{source}{_suffix(self.depth)}"


@dataclass(frozen=True)
class Fused:
    """Terms whose documents are fused, no source twice: all have weights, or none has."""

    terms: tuple[Term, ...]

    @property
    def weights(self) -> tuple[float, ...] | None:
        """Weights of the terms; None for a fusion by ranks."""
        weights = tuple(term.weight for term in self.terms if term.weight is not None)
        return weights or None

    def __str__(self) -> str:
        return " + ".join(map(str, self.terms))


@dataclass(frozen=True)
class Reranker:
    """Fields that score all candidates; ``depth``: how many of the candidates, best first; None for all."""

    fused: Fused
    depth: int | None = None

    def __str__(self) -> str:
        return f"{self.fused}{_suffix(self.depth)}"


@dataclass(frozen=True)
class Search:
    """A first stage, and rerankers that follow one another."""

    first: Fused
    rerankers: tuple[Reranker, ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields, in the order of their first use."""
        return tuple(dict.fromkeys(self._names()))

    def _names(self) -> Iterator[str]:
        for fused in (self.first, *(reranker.fused for reranker in self.rerankers)):
            for term in fused.terms:
                yield from [term.source] if isinstance(term.source, str) else term.source._names()

    def __str__(self) -> str:
        return " > ".join(map(str, (self.first, *self.rerankers)))


def parse(expression: str) -> Search:
    """Read a search expression.

    Raises
    ------
    TypeError
        Not a string.
    ExpressionError
        Another form; says where, and what was expected.
    """
    if not isinstance(expression, str):
        raise TypeError(f"a search expression is a string, not {type(expression).__name__}")
    if len(expression) > MAX_LENGTH:
        raise ExpressionError(expression[:60], 0, f"longer than {MAX_LENGTH} characters")
    parser = _Parser(expression)
    search = parser.search(0)
    parser.expect_end()
    return search


def _number(weight: float) -> str:
    short = f"{weight:g}"
    return short if float(short) == weight else repr(weight)


def _suffix(depth: int | None) -> str:
    return "" if depth is None else f":{depth}"


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    position: int


class _Parser:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, expression: str) -> None:
        self._expression = expression
        self._tokens = list(self._scan())
        self._at = 0

    def search(self, nesting: int) -> Search:
        first = self._fused(nesting)
        rerankers = []
        while self._take(">"):
            rerankers.append(self._reranker(nesting))
        return Search(first, tuple(rerankers))

    def expect_end(self) -> None:
        if self._next.kind != "end":
            raise self._error(f"expected + or > or the end, found {self._next.text!r}")

    def _scan(self) -> Iterator[_Token]:
        at, text = 0, self._expression
        while at < len(text.rstrip()):
            match = _TOKEN.match(text, at)
            if match is None:
                at += len(text[at:]) - len(text[at:].lstrip())
                raise ExpressionError(text, at, f"{text[at]!r} has no meaning here; fields, numbers and + > * : ( ) have")
            kind = str(match.lastgroup)
            yield _Token(kind, match[kind], match.start(kind))
            at = match.end()
        yield _Token("end", "the end", len(text.rstrip()))

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self, sign: str) -> bool:
        if self._next.kind == "sign" and self._next.text == sign:
            self._at += 1
            return True
        return False

    def _error(self, reason: str) -> ExpressionError:
        return ExpressionError(self._expression, self._next.position, reason)

    def _fused(self, nesting: int) -> Fused:
        start = self._at
        terms = [self._term(nesting)]
        while self._take("+"):
            terms.append(self._term(nesting))
        return self._checked(terms, start)

    def _reranker(self, nesting: int) -> Reranker:
        start = self._at
        fused = self._fused(nesting)
        *others, last = fused.terms
        for term in fused.terms:
            if not isinstance(term.source, str):
                self._at = start
                raise self._error("a reranker names fields, whose scores order the candidates, and no searches in parentheses")
        if any(term.depth is not None for term in others):
            self._at = start
            raise self._error("fields of a reranker score all candidates: a depth may only stand at its end")
        return Reranker(Fused((*others, Term(last.source, last.weight))), last.depth)

    def _checked(self, terms: list[Term], start: int) -> Fused:
        weighted = [term.weight is not None for term in terms]
        if any(weighted) and not all(weighted):
            self._at = start
            raise self._error("some terms have a weight and some have none: give all of them one, or none")
        for at, term in enumerate(terms):
            if any(term.source == other.source for other in terms[:at]):
                self._at = start
                raise self._error(f"a fusion names {term.source} twice: name it once, with one weight and depth")
        return Fused(tuple(terms))

    def _term(self, nesting: int) -> Term:
        weight = None
        if self._next.kind == "number":
            weight = float(self._next.text)
            if not 0 < weight < math.inf:
                raise self._error(f"a weight is a number > 0, not {self._next.text}")
            self._at += 1
            if not self._take("*"):
                raise self._error(f"expected * after the weight, found {self._next.text!r}")
        source = self._atom(nesting)
        return Term(source, weight, self._depth())

    def _atom(self, nesting: int) -> str | Search:
        token = self._next
        if token.kind == "name":
            self._at += 1
            return token.text
        if not self._take("("):
            raise self._error(f"expected a field or (, found {token.text!r}")
        if nesting >= MAX_NESTING:
            raise self._error(f"more than {MAX_NESTING} parentheses inside each other")
        search = self.search(nesting + 1)
        if not self._take(")"):
            raise self._error(f"expected ), found {self._next.text!r}")
        return search

    def _depth(self) -> int | None:
        if not self._take(":"):
            return None
        token = self._next
        if token.kind != "number" or not token.text.isdecimal() or not 1 <= int(token.text) <= MAX_DEPTH:
            raise self._error(f"a depth is a whole number from 1 to {MAX_DEPTH}, not {token.text!r}")
        self._at += 1
        return int(token.text)
