"""`lexmax bench sparse --bm25 CORPUS`: BM25 on text, lexmax against bm25s (Lù, 2024) and bm25q with their Numba backends.

All get the stems of lexmax's analyser and the same k1 and b, and compute Lucene's BM25, lexmax with 8-bit weights and
the others in float32; all are judged by exact BM25. A timed call goes from a query's stems to ranked documents.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...index.errors import DatasetError, MissingDependencyError
from ...index.representations.sparse import SparseVectors
from ...index.sparse.bm25 import Bm25
from ...index.sparse.field import SparseField
from ...retrieval.build import build_index
from ...retrieval.corpora.reading import read_corpus
from ...retrieval.encoders.lexical import LexicalEncoder
from ...retrieval.searchers.blockmax import BlockMaxSearcher
from ..datasets import load_dataset
from .engines import Opened
from .fields import only_field
from .judge import Judge
from .report import Report, Row, make_row
from .timing import interleave
from .workload import Query, Rows

PEERS = ("bm25s", "bm25q")
WORDS_SAMPLED = 6
FINE = 1 << 20
"""Levels of the exact weights: the judge adds integers."""


@dataclass(frozen=True, eq=False)
class _Counts:
    """A corpus and queries in stems, numbered alike; ``build_s`` is what counting the corpus took."""

    documents: SparseVectors
    stems: Sequence[str]
    queries: Sequence[Query]
    count_s: float


def run_bm25_bench(
    corpus: str, *, n_queries: int = 100, ks: Sequence[int] = (10, 100, 1000), n_passes: int = 3, seed: int = 0,
    say: Callable[[str], None] = lambda message: None,
) -> Report:  # fmt: skip
    """Build all indexes of a corpus, time all and judge all.

    Parameters
    ----------
    corpus : str
        What `lexmax build` takes; the queries of a BEIR folder are used, else words of documents.
    n_queries, ks, n_passes, seed
        As in `sparse.SparseBench`.

    Raises
    ------
    DatasetError
        A malformed corpus, or no query with a word of the corpus.
    MissingDependencyError
        bm25s or bm25q is not installed.
    """
    encoder = LexicalEncoder()
    say(f"reading and counting {corpus}")
    counts = _count(corpus, encoder, n_queries, seed)
    n_docs, facts = len(counts.documents), {}
    with tempfile.TemporaryDirectory(prefix="lexmax-bench-") as folder:
        say("building lexmax")
        start = time.perf_counter()
        build_index([corpus], folder, encoders={"bm25": encoder})
        facts["lexmax"] = (time.perf_counter() - start, sum(p.stat().st_size for p in Path(folder).rglob("inverted.lex")))
        opened = {"lexmax": _open_lexmax(folder, counts)}
        for package in PEERS:
            say(f"building {package}")
            opened[package], build_s, n_bytes = _open_peer(package, counts, encoder.bm25)
            facts[package] = (counts.count_s + build_s, n_bytes)
        rows = _compare(opened, _judge(counts, encoder.bm25, max(ks)), counts, sorted({min(k, n_docs) for k in ks}), n_passes)
    for row in rows:
        seconds, n_bytes = facts[row["engine"]]
        per_posting = round(n_bytes / max(1, counts.documents.n_postings), 2)
        row |= {"build_s": round(seconds, 2), "bytes_per_posting": per_posting, "peak_mb": None}
    setup = {
        "documents": corpus, "n_docs": n_docs, "postings_per_doc": round(counts.documents.n_postings / n_docs, 1),
        "queries": len(counts.queries), "bm25": encoder.settings, "threads": 1, "passes": n_passes,
        "machine": f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "build_s": "from text: reading, analysis, index (lexmax: on disk; the others: in memory)",
    }  # fmt: skip
    return Report(rows=rows, setup=setup)


def _count(corpus: str, encoder: LexicalEncoder, n_queries: int, seed: int) -> _Counts:
    start = time.perf_counter()
    texts = [document.content for document in read_corpus([corpus])]
    documents = encoder.encode_documents(texts)
    elapsed = time.perf_counter() - start
    if not documents.n_postings:
        raise DatasetError("there is not a single word to search", path=corpus)
    stems = documents.vocabulary or []
    number_of = {stem: number for number, stem in enumerate(stems)}
    if (Path(corpus) / "queries.jsonl").is_file():
        asked = list(load_dataset(corpus).queries.values())[:n_queries]
    else:
        drawn = np.random.default_rng(seed).choice(len(texts), min(n_queries, len(texts)), replace=False)
        asked = [" ".join(texts[i].split()[:WORDS_SAMPLED]) for i in drawn.tolist()]
    encoded, queries = encoder.encode_queries(asked), []
    for i in range(len(encoded)):
        terms, weights = encoded.row(i)
        numbers = np.array([number_of.get((encoded.vocabulary or [])[term], -1) for term in terms.tolist()], np.int32)
        order = np.argsort(numbers)[np.sum(numbers < 0) :]
        if len(order):
            queries.append(Query(numbers[order], weights[order].astype(np.int64)))
    if not queries:
        raise DatasetError("none of the queries has a word of the corpus", path=corpus)
    return _Counts(documents, stems, queries, elapsed)


def _judge(counts: _Counts, bm25: Bm25, depth: int) -> Judge:
    """Score by BM25 in integers so fine that only rounding errors of a millionth are lost."""
    documents = counts.documents
    bounds = np.concatenate([[0], np.cumsum(documents.weights, dtype=np.float64)])
    lengths = bounds[documents.indptr[1:]] - bounds[documents.indptr[:-1]]
    norms = bm25.k1 * (1 - bm25.b + bm25.b * lengths / lengths.mean())
    counted = documents.weights.astype(np.float64)
    weights = counted / (counted + np.repeat(norms, np.diff(documents.indptr)))
    df = np.bincount(documents.terms, minlength=len(counts.stems))
    rarity = np.log1p((len(documents) - df + 0.5) / (df + 0.5))
    queries = [Query(q.terms, np.rint(q.weights * rarity[q.terms] * FINE).astype(np.int64)) for q in counts.queries]
    return Judge(Rows(documents.indptr, documents.terms, np.rint(weights * FINE).astype(np.int64)), queries, depth)


def _open_lexmax(folder: str, counts: _Counts) -> Opened:
    field = only_field(folder, SparseField, "sparse vectors")
    searcher = BlockMaxSearcher(field)

    def prepare(query: Query) -> SparseVectors:
        words = [counts.stems[term] for term in query.terms.tolist()]
        indptr, terms = np.array([0, len(words)], np.int64), np.arange(len(words), dtype=np.int32)
        return SparseVectors(indptr, terms, query.weights.astype(np.float32), words)

    return Opened(
        searches={"lexmax": lambda query, k: searcher.search(field.query_vectors(query), k)},
        prepare=prepare,
        documents=lambda hits: np.asarray(hits.doc_nums, np.int64),
    )


def _open_peer(package: str, counts: _Counts, bm25: Bm25) -> tuple[Opened, float, int]:
    """Index with bm25s or bm25q, whose interfaces are the same; bm25q's is exact unless it is told otherwise."""
    try:
        engine_type = import_module(package).BM25
    except ImportError:
        raise MissingDependencyError(package, "bench", "lexmax bench sparse --bm25") from None
    vectors = counts.documents
    tokens = np.repeat(vectors.terms, vectors.weights.astype(np.int64))
    ends = np.concatenate([[0], np.cumsum(vectors.weights, dtype=np.float64)]).astype(np.int64)[vectors.indptr]
    documents = [part.tolist() for part in np.split(tokens, ends[1:-1])]
    start = time.perf_counter()
    engine = engine_type(method="lucene", k1=bm25.k1, b=bm25.b, backend="numba")
    engine.index((documents, {stem: number for number, stem in enumerate(counts.stems)}), show_progress=False)
    elapsed = time.perf_counter() - start
    n_bytes = sum(int(engine.scores[name].nbytes) for name in ("data", "indices", "indptr"))

    def prepare(query: Query) -> list[list[str]]:
        return [[counts.stems[term] for term in np.repeat(query.terms, query.weights).tolist()]]

    def documents_of(found: Any) -> npt.NDArray[np.int64]:
        return np.asarray(found.documents[0], np.int64)

    opened = Opened(
        searches={package: lambda query, k: engine.retrieve(query, k=k, show_progress=False)},
        prepare=prepare,
        documents=documents_of,
    )
    return opened, elapsed, n_bytes


def _compare(opened: dict[str, Opened], judge: Judge, counts: _Counts, ks: Sequence[int], n_passes: int) -> list[Row]:
    searches = {name: engine.searches[name] for name, engine in opened.items()}
    prepared = {name: [engine.prepare(query) for query in counts.queries] for name, engine in opened.items()}
    rows = []
    for k in ks:
        streams = interleave(searches, prepared, k, n_passes)
        for name, stream in streams.items():
            verdict = judge.verdict([opened[name].documents(answer) for answer in stream.answers], k)
            rows.append({"queries": "text", "index": name, **make_row(name, k, stream, streams["lexmax"], verdict)})
    return rows
