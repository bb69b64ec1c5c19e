"""What a score depends on besides the document and the query: facts of the whole collection, which parts of it can be given.

Parts of one collection that are weighed with its scale and average length, and searched with its statistics, give each document
the score, to the bit, that one index of the whole collection gives it: their answers merge by score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from ..arrays import Int32s, Int64s
from ..errors import RepresentationError
from ..strings import StringTable


@dataclass(frozen=True, kw_only=True, eq=False)
class SparseStatistics:
    """Statistics of a sparse field, or of the fields of several parts of a collection.

    Attributes
    ----------
    n_docs, total_length : int
        Live documents, and BM25's tokens in them (0 otherwise).
    scale : float
        Impact = weight x scale.
    terms : StringTable or None
        Terms that the arrays are of; None: positions are term numbers.
    frequencies : (n_terms,) int64
        Live documents that hold each term.
    reaches : (n_terms,) int64
        Bound of each term's impacts (see `kernels.postings.look_up`); query weights are rounded by it.
    weighed_lengths : frozenset of float
        Average lengths that BM25's documents were weighed with: one, where scores of all can be compared.
    """

    n_docs: int
    total_length: int
    scale: float
    terms: StringTable | None
    frequencies: Int64s
    reaches: Int64s
    weighed_lengths: frozenset[float] = frozenset()

    @property
    def average_length(self) -> float:
        """Average length in tokens of BM25's documents."""
        return self.total_length / max(1, self.n_docs)

    def places(self, strings: Sequence[str]) -> Int32s:
        """Positions of terms, -1 where they are absent; raises RepresentationError where terms are numbers."""
        if self.terms is None:
            raise RepresentationError("these statistics are of term numbers, not of strings")
        return self.terms.find(strings)

    def frequencies_at(self, places: Int32s) -> Int64s:
        """Frequencies at positions, 0 for one that is not there."""
        return _at(self.frequencies, places)

    def reaches_at(self, places: Int32s) -> Int64s:
        """Reaches at positions, 0 for one that is not there."""
        return _at(self.reaches, places)

    @classmethod
    def merged(cls, parts: Sequence[SparseStatistics]) -> SparseStatistics:
        """Statistics of a collection from those of its parts.

        Raises
        ------
        RepresentationError
            The parts have several scales, or some name terms as strings and some do not.
        """
        scales = sorted({part.scale for part in parts})
        if len(scales) != 1:
            raise RepresentationError(f"parts of a collection need one scale, given when they are created, not {scales}")
        filled = [part for part in parts if len(part.reaches)]  # one without terms names them in neither way
        strings = [part.terms.to_arrow().to_pylist() for part in filled if part.terms is not None]
        if strings and len(strings) < len(filled):
            raise RepresentationError("some parts name terms as strings, and some as numbers")
        terms = StringTable.of(list(dict.fromkeys(chain.from_iterable(strings)))) if strings else None
        n_terms = max((len(part.reaches) for part in filled), default=0) if terms is None else len(terms)
        frequencies, reaches = np.zeros(n_terms, np.int64), np.zeros(n_terms, np.int64)
        for i, part in enumerate(filled):
            at = np.arange(len(part.reaches)) if terms is None else terms.find(strings[i])
            frequencies[at] += part.frequencies
            reaches[at] = np.maximum(reaches[at], part.reaches)
        return cls(
            n_docs=sum(part.n_docs for part in parts), total_length=sum(part.total_length for part in parts), scale=scales[0],
            terms=terms, frequencies=frequencies, reaches=reaches,
            weighed_lengths=frozenset().union(*(part.weighed_lengths for part in parts)),
        )  # fmt: skip


def _at(values: Int64s, places: Int32s) -> Int64s:
    found = np.zeros(len(places), np.int64)
    present = (places >= 0) & (places < len(values))
    found[present] = values[places[present]]
    return found
