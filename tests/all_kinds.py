"""An index of all kinds of files, and everything that a reader does with it, for programs that damage it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from corpora import ENCODER
from dense_vectors import dense_vectors, new_dense_field
from net_queries import new_net_field, random_nets
from sparse_token_vectors import SLIM_ENCODER
from token_vectors import TOKEN_ENCODER

from lexmax import Collection, SparseVectors
from lexmax.index.collection import NewField
from lexmax.index.documents import Document
from lexmax.index.fde.config import FdeConfig
from lexmax.index.representations import MultiVectors, SparseMultiVectors
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.searchers.registry import field_searcher, make_options

BM25 = {"bm25": {"k1": 1.2, "b": 0.75}}
DIM, DENSE_DIM = 64, 256
N_TERMS = 2000
ENCODING = FdeConfig(of="colbert", token_dim=DIM, n_cells=4, n_samples=256)
FIELDS = {
    "bm25": NewField(encoder=ENCODER, options=BM25),
    "splade": NewField(encoder=ENCODER),
    "colbert": NewField(encoder=TOKEN_ENCODER, representation="tokens", options={"dim": DIM, "nbits": 8, "n_centroids": 64}),
    "slim": NewField(encoder=SLIM_ENCODER, representation="sparse-tokens"),
    "dense": new_dense_field(DENSE_DIM, keep="float32"),
}
STRUCTURES = {
    "lists": new_dense_field(DENSE_DIM, structure="ivf", quantise="opq"),
    "bytes": new_dense_field(DENSE_DIM, quantise="int8"),
    "graph": new_dense_field(DENSE_DIM, structure="hnsw", ef_construction=32),
    "nets": new_net_field(DENSE_DIM, n_neighbours=8),
    "fde": NewField(
        encoder=TOKEN_ENCODER,
        representation="fde",
        options={"encoding": ENCODING.options(), "vectors": {"dim": ENCODING.dim, "keep": "float16"}},
    ),
}
"""More ways to keep and search vectors; some are only made of 1,024 documents or more."""
ALL = (*FIELDS, *STRUCTURES)

BANKS = {"bytes": "bytes", "fde": "colbert"}
"""Field that has a query bank -> whose vectors its queries are."""


def sparse_rows(rng: np.random.Generator, n: int, width: int) -> SparseVectors:
    """``n`` rows of ``width`` random terms with weights of 16 levels; every second row has a term that gets a column."""
    terms = np.sort(rng.integers(0, N_TERMS - width, (n, width)), axis=1) + np.arange(width)
    terms[::2, -1] = N_TERMS
    weights = rng.integers(1, 17, n * width).astype(np.float32)
    return SparseVectors(np.arange(0, n * width + 1, width, dtype=np.int64), terms.reshape(-1).astype(np.int32), weights)


def vectors_of(rng: np.random.Generator, n: int, width: int, n_tokens: int) -> dict[str, Any]:
    """Vectors of ``n`` documents: ``width`` terms and ``n_tokens`` tokens each."""
    counts = sparse_rows(rng, n, width)
    tokens = rng.standard_normal((n * n_tokens, DIM)).astype(np.float32)
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    offsets = np.arange(0, n * n_tokens + 1, n_tokens, dtype=np.int64)
    rows = sparse_rows(rng, n * n_tokens, max(2, width // 8))
    return {
        "bm25": SparseVectors(counts.indptr, counts.terms, counts.weights, [f"word{i}" for i in range(N_TERMS + 1)]),
        "splade": sparse_rows(rng, n, width),
        "colbert": MultiVectors(offsets, tokens),
        "slim": SparseMultiVectors(offsets, rows),
        **dict.fromkeys(("dense", "lists", "bytes", "graph", "nets"), dense_vectors(rng, n, DENSE_DIM)),
    }


def build(
    path: Path, *, n: int, width: int, n_tokens: int, text_bytes: int, id_bytes: int, names: Iterable[str] = tuple(FIELDS),
) -> None:  # fmt: skip
    """Build an index of two segments, with deleted documents and the fields of these names."""
    rng = np.random.default_rng(5)
    fields = {name: {**FIELDS, **STRUCTURES}[name] for name in names}
    with Collection.create(path, fields) as collection:
        for first, last in ((0, n - n // 8), (n - n // 8, n)):
            documents = [
                Document(
                    doc_id=f"d{i}".ljust(id_bytes, "-"), title=f"title {i}", text=f"text {i} ".ljust(text_bytes, "x"),
                    metadata={"year": 1990 + i % 30, "tags": [f"t{i % 7}"], "nested": {"a": i}},
                )
                for i in range(first, last)
            ]  # fmt: skip
            vectors = vectors_of(rng, last - first, width, n_tokens)
            collection.add(documents, {name: vectors[name] for name in fields if name in vectors})
            collection.commit()
        for name, made in BANKS.items():
            if name in fields:
                collection.set_query_bank(name, vectors_of(rng, 20, width, n_tokens)[made])
        collection.delete([f"d{i}".ljust(id_bytes, "-") for i in range(0, n, 50)])
        collection.commit()


def queries_of(n: int, k: int, *, exhaustive: bool) -> dict[str, Any]:
    """Queries of each field, and how deep they go."""
    rng = np.random.default_rng(6)
    vectors = vectors_of(rng, n, 6, 4)
    vectors |= {"fde": vectors["colbert"], "nets": random_nets(rng, n, (DENSE_DIM, 16))}
    return {"vectors": vectors, "k": k, "algorithms": ["auto", "exhaustive"] if exhaustive else ["auto"]}


def use(path: Path, queries: dict[str, Any]) -> list[Any]:
    """Open, search every field, filter, score and fetch; returns the answers, to be compared with those of a sound index."""
    snapshot = Snapshot.open(path)
    snapshot.info()
    answers: list[Any] = [snapshot.n_docs, sorted(snapshot.fields)]
    masks = snapshot.masks("year >= 2000 and 't3' in tags")
    for name, field in snapshot.fields.items():
        searcher = field_searcher(field)
        vectors = searcher.vectors(queries["vectors"][name])
        for algorithm in [*queries["algorithms"], *{"nets": ["graph"], "splade": ["blockmax"]}.get(name, [])]:
            banked = {"bank_beta": 5.0} if field.record.state.get("bank") else {}
            options = make_options(searcher, {"algorithm": algorithm, **banked})
            for allowed in (None, masks):
                hits = searcher.search(vectors, queries["k"], allowed=allowed, options=options)
                for number in range(len(vectors)):
                    doc_nums, scores = hits.query(number)
                    answers.append((doc_nums.tolist(), scores.tolist()))
        found = hits.query(0)[0]
        answers.append([scores.tolist() for scores in searcher.score(vectors, [found] * len(vectors))])
        answers.append([(d.doc_id, d.title, d.text, dict(d.metadata)) for d in snapshot.get_many(found.tolist())])
        if len(found):
            searcher.explain(vectors, 0, "", int(found[0]), "")
    return answers
