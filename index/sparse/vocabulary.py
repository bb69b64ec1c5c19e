"""The vocabulary: term strings by term number, kept in immutable tables that are read one after another.

A learned-sparse encoder's vocabulary is written once; BM25's grows, each commit adding a table of the new terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np

from ..arrays import Floats, Int32s, Int64s
from ..kernels import read_only
from ..kernels.terms import renumber_rows
from ..representations.sparse import SparseVectors
from ..strings import StringTable

MAX_TABLES = 8
"""More tables than this are merged into one at the next commit."""


class Vocabulary:
    """A read-only list of term strings."""

    def __init__(self, tables: Sequence[StringTable]) -> None:
        self.tables = list(tables)
        self._bases = [0, *accumulate(map(len, self.tables))]

    @classmethod
    def open(cls, index: Path, names: Sequence[str]) -> Vocabulary:
        """Map the tables of an index; raises IndexFormatError for damaged ones."""
        return cls([StringTable.open(index / name) for name in names])

    def __len__(self) -> int:
        return self._bases[-1]

    def find(self, strings: Sequence[str]) -> Int32s:
        """Term number of each string, -1 when it is unknown."""
        if not self.tables:
            return np.full(len(strings), -1, np.int32)
        numbers = self.tables[0].find(strings)
        for base, table in zip(self._bases[1:], self.tables[1:], strict=False):
            found = table.find(strings)
            numbers = np.where((numbers < 0) & (found >= 0), found + base, numbers).astype(np.int32)
        return numbers

    def strings(self, numbers: Int32s) -> list[str]:
        """Return the strings of term numbers; ``#n`` for a number past the end, as in an index of imported vectors."""
        result = []
        for number in numbers.tolist():
            at = int(np.searchsorted(self._bases, number, side="right")) - 1
            known = at < len(self.tables)
            result.append(self.tables[at][number - self._bases[at]] if known else f"#{number}")
        return result


class GrowingVocabulary:
    """A vocabulary under a writer: unknown strings get the next numbers, to be written at the commit."""

    def __init__(self, known: Vocabulary) -> None:
        self.known = known
        self.new: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, strings: Sequence[str]) -> Int32s:
        """Term number of each string, new ones included."""
        numbers = self._numbers
        found = [numbers.get(string, -1) for string in strings]
        places = [place for place, number in enumerate(found) if number < 0]
        unseen = [strings[place] for place in places]
        for place, string, number in zip(places, unseen, self.known.find(unseen).tolist(), strict=True):
            if number < 0 and string not in numbers:
                number = len(self.known) + len(self.new)
                self.new.append(string)
            found[place] = numbers.setdefault(string, number)
        return np.array(found, np.int32)


def renumber(vectors: SparseVectors, numbers: Int32s) -> SparseVectors:
    """Replace batch term numbers ``t`` by ``numbers[t]``; terms whose new number is negative are dropped."""
    return SparseVectors(*renumbered(vectors, numbers, vectors.weights))


def renumbered(vectors: SparseVectors, numbers: Int32s, weights: Floats) -> tuple[Int64s, Int32s, Floats]:
    """Do the same with other weights, and return the arrays alone."""
    return renumber_rows(read_only(vectors.indptr), read_only(vectors.terms), read_only(weights), read_only(numbers))
