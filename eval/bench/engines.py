"""Engines under comparison: how each builds its index in a folder and answers from it.

Here are lexmax, its oracle, and two plain ways that anybody would try first; `peers` has the packages. Building happens in a
process of its own (`build`), which is how memory is measured; opening and answering in the one that measures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...index.arrays import Int32s, Int64s
from ...index.collection import Collection, NewField
from ...index.kernels import kernel
from ...index.manifest import EncoderRecord
from ...index.representations.sparse import SparseVectors
from ...index.sparse.field import SparseField
from ...retrieval.hits import Hits
from ...retrieval.searchers.blockmax import BlockMaxSearcher, SparseOptions
from ...retrieval.searchers.exhaustive import ExhaustiveSearcher
from ...retrieval.searchers.queries import prepare as integer_query
from .fields import only_field, without_text
from .timing import Search
from .workload import Query, Rows

LEXMAX = "lexmax"
ADD_DOCS = 1 << 15
ENCODER = EncoderRecord(kind="splade", fingerprint="bench:0000000000000000", settings={})


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An index ready to answer.

    Attributes
    ----------
    searches : mapping
        Row of the report -> function of a prepared query and k; this is what is timed.
    prepare : callable
        Query -> what the engine's own interface takes; not timed.
    documents : callable
        What a search returned -> document numbers, best first; not timed.
    rounded : callable
        Query -> the integer weights that the engine makes of it; most take it as it is.
    threaded : mapping
        Rows among ``searches`` that use several threads -> their number; they are timed by the clock on the wall.
    batch : callable or None
        All prepared queries -> function of k and threads that share them; for engines whose throughput is reported.
    """

    searches: Mapping[str, Search]
    prepare: Callable[[Query], Any]
    documents: Callable[[Any], npt.NDArray[np.int64]]
    rounded: Callable[[Query], Query] = lambda query: query
    threaded: Mapping[str, int] = field(default_factory=dict)
    batch: Callable[[Sequence[Any]], Callable[[int, int], Any]] | None = None


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One engine with one kind of index.

    Attributes
    ----------
    build : callable
        Rows and an empty folder -> seconds it took to build the index there, without reading or converting the rows.
    open : callable
        Folder -> the open index.
    package : str or None
        The import name of what must be installed.
    versions : tuple of str
        Distributions whose versions belong in the report.
    """

    build: Callable[[Rows, Path], float]
    open: Callable[[Path], Opened]
    package: str | None = None
    distributions: Sequence[str] = field(default=())


def build_lexmax(rows: Rows, folder: Path, *, reorder: bool = False) -> float:
    """Add, commit: durable on disk. With ``reorder``, documents are put in the order of graph bisection."""
    start = time.perf_counter()
    with Collection.create(folder, {"vectors": NewField(encoder=ENCODER)}) as collection:
        for first in range(0, len(rows), ADD_DOCS):
            last = min(first + ADD_DOCS, len(rows))
            collection.add(without_text(first, last), {"vectors": rows.vectors(first, last)})
        if reorder:
            collection.compact(reorder=True)
        collection.commit()
    return time.perf_counter() - start


def open_lexmax(folder: Path, *, n_threads: int = 1) -> Opened:
    """Open for the block-max searcher, each of its ways forced, several threads for one query, and the oracle."""
    field = only_field(folder, SparseField, "sparse vectors")
    fast, oracle = BlockMaxSearcher(field), ExhaustiveSearcher(field)

    def way(algorithm: str) -> Search:
        options = SparseOptions(algorithm=algorithm)
        return lambda vectors, k: fast.search(vectors, k, options=options)

    def prepare(query: Query) -> SparseVectors:
        indptr = np.array([0, len(query.terms)], np.int64)
        return SparseVectors(indptr, query.terms.astype(np.int32), query.weights.astype(np.float32))

    def rounded(query: Query) -> Query:
        integers = integer_query(field, prepare(query), 0)
        known = integers.weights > 0
        return Query(integers.terms[known], integers.weights[known])

    def documents(hits: Hits) -> npt.NDArray[np.int64]:
        return hits.doc_nums.astype(np.int64)

    searches = {
        LEXMAX: way("auto"),
        f"{LEXMAX}-blockmax": way("blockmax"),
        f"{LEXMAX}-scan": way("scan"),
        f"{LEXMAX}-exhaustive": oracle.search,
    }
    threaded = {f"{LEXMAX}-{n_threads}-threads": n_threads} if n_threads > 1 else {}
    searches |= {row: lambda vectors, k: fast.search(vectors, k, n_threads=n_threads) for row in threaded}

    def batch(vectors: Sequence[SparseVectors]) -> Callable[[int, int], Hits]:
        together = SparseVectors.from_rows([each.row(0) for each in vectors])  # type: ignore[misc]
        return lambda k, n: fast.search(together, k, n_threads=n)

    return Opened(
        searches=searches, prepare=prepare, documents=documents, rounded=rounded, threaded=threaded, batch=batch
    )  # fmt: skip


def build_posting_lists(rows: Rows, folder: Path, *, dtype: type[np.generic]) -> float:
    """Plain posting lists: offsets by term, document numbers, and impacts of a given type."""
    start = time.perf_counter()
    starts = np.concatenate([[0], np.cumsum(rows.document_frequencies())]).astype(np.int64)
    documents, impacts = _transpose(rows.indptr, rows.terms, rows.impacts, starts)
    np.save(folder / "starts.npy", starts)
    np.save(folder / "documents.npy", documents)
    np.save(folder / "impacts.npy", impacts.astype(dtype))
    np.save(folder / "n_docs.npy", np.int64(len(rows)))
    return time.perf_counter() - start


def open_naive_scan(folder: Path) -> Opened:
    """Add every posting into an accumulator of the whole collection, then take the top k: the Numba one would write first."""
    starts, documents, impacts, n_docs = _posting_lists(folder)

    def search(query: Query, k: int) -> npt.NDArray[np.int64]:
        return _top(_accumulate(starts, documents, impacts, query.terms, query.weights, int(n_docs)), k)

    return Opened(searches={"naive-scan": search}, prepare=lambda query: query, documents=lambda found: found)


def open_scipy(folder: Path) -> Opened:
    """Multiply the query with the transposed matrix in SciPy, then take the top k."""
    from scipy.sparse import csr_matrix

    starts, documents, impacts, n_docs = _posting_lists(folder)
    matrix = csr_matrix((impacts, documents, starts), shape=(len(starts) - 1, int(n_docs)))

    def prepare(query: Query) -> Any:
        indptr = np.array([0, len(query.terms)])
        return csr_matrix((query.weights.astype(np.float32), query.terms, indptr), shape=(1, matrix.shape[0]))

    def search(query: Any, k: int) -> npt.NDArray[np.int64]:
        return _top((query @ matrix).toarray()[0], k)

    return Opened(searches={"scipy": search}, prepare=prepare, documents=lambda found: found)


def _posting_lists(folder: Path) -> tuple[npt.NDArray[Any], ...]:
    return tuple(np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("starts", "documents", "impacts", "n_docs"))


def _top(scores: npt.NDArray[Any], k: int) -> npt.NDArray[np.int64]:
    """Return the k best, best first; negated, since NumPy selects among many zeros much faster from the small end."""
    k, fallen = min(k, len(scores)), -scores
    best = np.argpartition(fallen, k - 1)[:k]
    return best[np.argsort(fallen[best], kind="stable")]


@kernel
def _accumulate(
    starts: Int64s, documents: Int32s, impacts: npt.NDArray[np.uint8], terms: Int32s, weights: Int64s, n_docs: int
) -> Int32s:
    scores = np.zeros(n_docs, np.int32)
    for i in range(len(terms)):
        weight = np.int32(weights[i])
        for p in range(starts[terms[i]], starts[terms[i] + 1]):
            scores[documents[p]] += weight * np.int32(impacts[p])
    return scores


@kernel
def _transpose(
    indptr: Int64s, terms: Int32s, impacts: npt.NDArray[np.uint8], starts: Int64s
) -> tuple[Int32s, npt.NDArray[np.uint8]]:
    """Rows of documents -> rows of terms, documents ascending."""
    ends = starts.copy()
    documents, moved = np.empty(len(terms), np.int32), np.empty(len(terms), np.uint8)
    for d in range(len(indptr) - 1):
        for p in range(indptr[d], indptr[d + 1]):
            at = ends[terms[p]]
            documents[at], moved[at] = d, impacts[p]
            ends[terms[p]] += 1
    return documents, moved
