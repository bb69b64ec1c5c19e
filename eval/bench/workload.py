"""What every engine is given: document rows of 8-bit impacts and queries of integer weights, from three kinds of source."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...index.arrays import Int32s, Int64s
from ...index.errors import DatasetError, RepresentationError
from ...index.representations.sparse import SparseVectors
from ...index.sparse.field import SparseField
from ...index.sparse.quantize import fit_scale, quantize
from ...index.sparse.vocabulary import Vocabulary
from .fields import only_field, undeleted

TOP_WEIGHT = 32
"""The heaviest term of every query: the range of BMP's query weights, which its wheel stretches any other weights to."""
SAMPLED_TERMS = 31


@dataclass(frozen=True, eq=False)
class Rows:
    """Documents: ``indptr (n + 1,)`` int64, ``terms (P,)`` int32 ascending in a row, ``impacts (P,)`` uint8 1..255.

    BM25's judge has larger integers for impacts.
    """

    indptr: Int64s
    terms: Int32s
    impacts: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def n_postings(self) -> int:
        """Number of (document, term) pairs."""
        return len(self.terms)

    def vectors(self, first: int, last: int) -> SparseVectors:
        """Vectors of the documents ``first`` to ``last - 1``, impacts as weights."""
        span = slice(int(self.indptr[first]), int(self.indptr[last]))
        indptr = self.indptr[first : last + 1] - self.indptr[first]
        return SparseVectors(indptr, np.array(self.terms[span]), self.impacts[span].astype(np.float32))

    def document_frequencies(self) -> npt.NDArray[np.int64]:
        """Documents of each term number, up to the largest."""
        return np.bincount(self.terms)

    def save(self, folder: Path) -> None:
        """Write the arrays where the processes that build indexes find them."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("indptr", "terms", "impacts"):
            np.save(folder / f"{name}.npy", getattr(self, name))

    @classmethod
    def load(cls, folder: Path) -> Rows:
        """Map what `save` wrote."""
        return cls(*(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                     for name in ("indptr", "terms", "impacts")))  # fmt: skip


@dataclass(frozen=True, eq=False)
class Query:
    """One query: ``terms (n,)`` int32 ascending, ``weights (n,)`` int64 >= 1."""

    terms: Int32s
    weights: Int64s


def integer_queries(vectors: SparseVectors, frequencies: npt.NDArray[np.int64], n: int) -> list[Query]:
    """Round the first ``n`` queries to weights 1..32, the heaviest 32; terms and queries that no document has are left out."""
    queries: list[Query] = []
    for number in range(len(vectors)):
        terms, weights = vectors.row(number)
        known = (terms < len(frequencies)) & (frequencies[np.minimum(terms, len(frequencies) - 1)] > 0)
        terms, weights = terms[known], weights[known].astype(np.float64)
        if len(terms) and len(queries) < n:
            levels = np.ceil(weights * (TOP_WEIGHT / weights.max()) - 1e-6)
            queries.append(Query(terms, np.clip(levels, 1, TOP_WEIGHT).astype(np.int64)))
    return queries


def sample_queries(rows: Rows, n: int, seed: int) -> SparseVectors:
    """Queries like documents: the heaviest terms of documents drawn at random."""
    drawn = np.random.default_rng(seed).choice(len(rows), min(n, len(rows)), replace=False)
    picked = []
    for doc in drawn.tolist():
        span = slice(int(rows.indptr[doc]), int(rows.indptr[doc + 1]))
        terms, impacts = rows.terms[span], rows.impacts[span]
        heaviest = np.argsort(-impacts.astype(np.int64), kind="stable")[:SAMPLED_TERMS]
        picked.append((terms[heaviest].tolist(), impacts[heaviest].tolist()))
    return SparseVectors.from_rows(picked)


def read_index_rows(path: Path | str) -> Rows:
    """Read the document rows of an index, in the order of its doc_nums.

    Raises
    ------
    RepresentationError
        The index has deleted documents, or not one sparse field.
    """
    field = undeleted(only_field(path, SparseField, "sparse vectors"))
    parts = [segment.inverted.rows() for segment in field.segments]
    widths = np.concatenate([np.empty(0, np.int64), *(np.diff(part.indptr) for part in parts)])
    return Rows(
        np.concatenate([[0], np.cumsum(widths)]).astype(np.int64),
        np.concatenate([np.empty(0, np.int32), *(part.terms for part in parts)]),
        np.concatenate([np.empty(0, np.uint8), *(part.impacts for part in parts)]),
    )


def read_npz(path: Path | str) -> Rows:
    """Read documents x terms from an NPZ in SciPy's CSR layout: ``indptr``, ``indices`` and ``data`` (or ``q``), all > 0.

    Raises
    ------
    DatasetError
        Arrays are missing or do not fit each other.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            indptr, terms = file["indptr"].astype(np.int64), file["indices"].astype(np.int32)
            values = file["data" if "data" in file else "q"]
    except (KeyError, ValueError, OSError) as failure:
        raise DatasetError(f"not an NPZ with indptr, indices and data: {failure}", path=path) from failure
    if len(indptr) == 0 or indptr[-1] > min(len(terms), len(values)):
        raise DatasetError("indptr does not fit indices and data", path=path)
    terms, weights = terms[: indptr[-1]], values[: indptr[-1]].astype(np.float32)
    order = np.argsort(np.repeat(np.arange(len(indptr) - 1), np.diff(indptr)) << 32 | terms, kind="stable")
    try:
        vectors = SparseVectors(indptr, terms[order], weights[order])
    except RepresentationError as failure:
        raise DatasetError(str(failure), path=path) from failure
    return Rows(vectors.indptr, vectors.terms, quantize(vectors.weights, fit_scale(vectors.weights)))


def read_query_vectors(path: Path | str, n: int) -> list[dict[str, float]]:
    """Read up to ``n`` queries, a JSON object a line with the term weights under ``vector`` or ``terms``; .gz is unpacked.

    Raises
    ------
    DatasetError
        A line is not such an object.
    """
    queries: list[dict[str, float]] = []
    with gzip.open(path, "rt") if str(path).endswith(".gz") else Path(path).open() as lines:
        for number, line in enumerate(lines, 1):
            if len(queries) == n:
                break
            try:
                record: dict[str, Any] = json.loads(line)
                weights: Mapping[str, Any] = record["vector"] if "vector" in record else record["terms"]
                queries.append({term: float(weight) for term, weight in weights.items() if float(weight) > 0})
            except (ValueError, KeyError, TypeError, AttributeError) as failure:
                message = f'expected {{"vector": {{term: weight, ...}}}}: {failure!r}'
                raise DatasetError(message, path=path, line=number) from failure
    return queries


def number_terms(
    queries: Sequence[Mapping[str, float]], vocabulary: Vocabulary | None, frequencies: npt.NDArray[np.int64]
) -> tuple[SparseVectors, str]:
    """Turn term strings into term numbers, and say how.

    With a vocabulary a term is looked up and dropped when unknown; decimal strings are the numbers themselves; else the
    term that most queries hold becomes the one that most documents hold, the next the next, and so on: lengths of posting
    lists are then plausible, and which terms come together is not.
    """
    strings = [term for term, _ in Counter(term for query in queries for term in query).most_common()]
    if vocabulary is not None and len(vocabulary):
        numbers, how = vocabulary.find(strings).tolist(), "terms looked up in the vocabulary of the index"
    elif all(string.isdecimal() for string in strings):
        numbers, how = [int(string) for string in strings], "terms are numbers"
    else:
        numbers = np.argsort(-frequencies, kind="stable").tolist()
        how = "no vocabulary: query terms stand for document terms of the same rank in frequency"
    number_of = dict(zip(strings, numbers, strict=False))
    rows = []
    for query in queries:
        known = [(number_of[term], weight) for term, weight in query.items() if number_of.get(term, -1) >= 0]
        rows.append(([number for number, _ in known], [weight for _, weight in known]))
    return SparseVectors.from_rows(rows), how
