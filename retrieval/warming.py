"""Compiling every kernel before anyone waits for it: small indexes of every kind of field are built, searched and merged.

A job is one kind of field, or one encoder. Jobs run in processes of their own, one per core, which share what they compile.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ..index.collection import Collection, NewField
from ..index.dense.config import DenseFieldConfig
from ..index.documents import Document
from ..index.fde.config import FdeConfig
from ..index.manifest import EncoderRecord
from ..index.multivector.config import MultiVectorConfig
from ..index.multivector.placement import TokenStorage
from ..index.nets.config import NetFieldConfig
from ..index.representations import DenseVectors, MultiVectors, SparseMultiVectors, SparseVectors
from ..index.representations.nets import QueryNets
from ..index.snapshot import Snapshot
from .searchers.registry import field_searcher, make_options

DIM, N_TERMS, N_DOCS, N_TOKENS = 64, 400, 1200, 4
"""1,200 documents: some structures are made of 1,024 or more."""
ENCODER = EncoderRecord(kind="vectors", fingerprint="vectors:0000000000000000", settings={})


def _sparse_rows(rng: np.random.Generator, n: int, width: int, vocabulary: list[str] | None = None) -> SparseVectors:
    terms = np.sort(rng.integers(0, N_TERMS - width, (n, width)), axis=1) + np.arange(width)
    weights = rng.integers(1, 17, n * width).astype(np.float32)
    indptr = np.arange(0, n * width + 1, width, dtype=np.int64)
    return SparseVectors(indptr, terms.reshape(-1).astype(np.int32), weights, vocabulary)


def _tokens(rng: np.random.Generator, n: int) -> MultiVectors:
    tokens = rng.standard_normal((n * N_TOKENS, DIM)).astype(np.float32)
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    return MultiVectors(np.arange(0, n * N_TOKENS + 1, N_TOKENS, dtype=np.int64), tokens)


def _dense(rng: np.random.Generator, n: int) -> DenseVectors:
    return DenseVectors(rng.standard_normal((n, DIM)).astype(np.float32))


def _words(rng: np.random.Generator, n: int) -> SparseVectors:
    return _sparse_rows(rng, n, 20, [f"word{i}" for i in range(N_TERMS)])


def _sparse_tokens(rng: np.random.Generator, n: int) -> SparseMultiVectors:
    rows = _sparse_rows(rng, n * N_TOKENS, 4)
    return SparseMultiVectors(np.arange(0, n * N_TOKENS + 1, N_TOKENS, dtype=np.int64), rows)


def _nets(rng: np.random.Generator, n: int) -> QueryNets:
    weights, biases, last = (rng.standard_normal((n, *shape)).astype(np.float32) for shape in ((16, DIM), (16,), (16,)))
    return QueryNets.of([weights], [biases], last)


def _dense_field(**config: Any) -> NewField:
    options = DenseFieldConfig(dim=DIM, **config).options()
    return NewField(encoder=ENCODER, representation="dense", options=options)


def _token_field(nbits: int, *, exact: bool) -> NewField:
    options = vars(MultiVectorConfig(dim=DIM, nbits=nbits, exact=exact, n_centroids=64))
    return NewField(encoder=ENCODER, representation="tokens", options=dict(options))


def _fde_fields() -> dict[str, NewField]:
    fields = {"tokens": _token_field(8, exact=False)}
    learnt = FdeConfig(of="tokens", token_dim=DIM, n_cells=4)
    for encoding in (learnt, FdeConfig(of="tokens", token_dim=DIM, cells="simhash")):
        options = {"encoding": encoding.options(), "vectors": {"dim": encoding.dim, "keep": "float16"}}
        fields[encoding.cells] = NewField(encoder=ENCODER, representation="fde", options=options)
    return fields


def _jobs() -> dict[str, tuple[dict[str, NewField], Callable[..., Any]]]:
    """Fields of each job, and what makes their vectors."""
    nets = vars(NetFieldConfig(dim=DIM, n_neighbours=8))
    bm25 = NewField(encoder=ENCODER, options={"bm25": {"k1": 1.2, "b": 0.75}})
    return {
        "tokens": ({f"t{n}": _token_field(n, exact=n < 8) for n in (1, 2, 4, 8)}, _tokens),
        "dense": (
            {
                "flat": _dense_field(), "wide": _dense_field(keep="float32"), "bytes": _dense_field(keep="int8"),
                "codes": _dense_field(quantise="int8"), "lists": _dense_field(structure="ivf", quantise="opq"),
                "plain": _dense_field(structure="ivf"), "graph": _dense_field(structure="hnsw", ef_construction=32),
            },
            _dense,
        ),
        "fde": (_fde_fields(), _tokens),
        "bm25": ({"words": bm25}, _words),
        "sparse": ({"terms": NewField(encoder=ENCODER)}, lambda rng, n: _sparse_rows(rng, n, 20)),
        "sparse-tokens": ({"slim": NewField(encoder=ENCODER, representation="sparse-tokens")}, _sparse_tokens),
        "nets": ({"nets": NewField(encoder=ENCODER, representation="nets", options=dict(nets))}, _dense),
    }  # fmt: skip


JOBS = tuple(_jobs())


def warm_fields(job: str, folder: Path) -> None:
    """Build, search and compact an index of one kind of field, of which nothing stays but compiled kernels."""
    if job == "bm25":
        warm_encoder("bm25")
    fields, vectors_of = _jobs()[job]
    path, rng = folder / job, np.random.default_rng(1)
    with Collection.create(path, fields) as collection:
        for n in (N_DOCS, 40):
            first = 0 if n == N_DOCS else N_DOCS
            documents = [Document(doc_id=f"d{i}", text=f"text {i}", metadata={"n": i}) for i in range(first, first + n)]
            collection.add(documents, {name: vectors_of(rng, n) for name, field in fields.items() if _is_given(field)})
            collection.commit()
        collection.delete(["d3"])
        collection.commit()
        _search(path, job, vectors_of, TokenStorage())
        if job == "tokens":
            _search(path, job, vectors_of, TokenStorage(place="pread"))
        collection.compact(reorder=job in ("bm25", "sparse", "sparse-tokens"))
    _search(path, job, vectors_of, TokenStorage())  # one segment takes other kernels than several


def _is_given(field: NewField) -> bool:
    return field.representation != "fde"


def _search(path: Path, job: str, vectors_of: Callable[..., Any], storage: TokenStorage) -> None:
    snapshot, rng = Snapshot.open(path, storage=storage), np.random.default_rng(2)
    masks = snapshot.masks("n < 500")
    for field in snapshot.fields.values():
        searcher = field_searcher(field)
        queries = searcher.vectors(_nets(rng, 2) if job == "nets" else vectors_of(rng, 2))
        for algorithm in ("auto", "exhaustive"):
            options = make_options(searcher, {"algorithm": algorithm})
            for allowed in (None, masks):
                searcher.search(queries, 5, allowed=allowed, options=options)
        searcher.score(queries, [np.array([5, 2, 7], np.int32)] * 2)
        searcher.warm()


def warm_encoder(name: str) -> None:
    """Load an encoder and encode documents and queries: long and short ones, alone and together."""
    from .encoders.methods import KINDS
    from .encoders.registry import load_encoder

    encoder = load_encoder(name) if name in KINDS else load_encoder(model=name)
    texts = ["a word " * 60, "a short text", "another one"]
    encoder.encode_documents(texts)
    encoder.encode_queries(texts[1:])
    encoder.encode_queries(texts[1:2])


def _run(job: str, folder: str) -> str:
    """Do a job in a process of its own, which says nothing of its own."""
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    if job in JOBS:
        warm_fields(job, Path(folder))
    else:
        warm_encoder(job)
    return job


def warm(encoders: Sequence[str] = (), jobs: Sequence[str] = JOBS, n_processes: int | None = None) -> Iterator[str]:
    """Compile the kernels of some kinds of fields and encoders, and yield each when it is done.

    Parameters
    ----------
    encoders : sequence of str
        Models, as `load_encoder` takes them.
    jobs : sequence of str
        Of `JOBS`.
    n_processes : int or None
        None: one per core.
    """
    wanted = [*encoders, *jobs]
    n = min(n_processes or os.cpu_count() or 1, len(wanted))
    with (
        TemporaryDirectory(prefix="lexmax-warm-") as folder,
        ProcessPoolExecutor(n, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool,
    ):
        for done in as_completed([pool.submit(_run, job, folder) for job in wanted]):
            yield done.result()
