"""Systems to compare on test collections: an encoder and its index, a reranking, a fusion.

A system is typed ``NAME=SPEC``::

    bm25                  BM25 with its defaults
    FOLDER or ID          a model of any kind that `retrieval.encoders.loader` recognises
    rerank:FIRST>SECOND   the best of system FIRST, ordered by the token vectors of system SECOND
    fusion:A+B+C          systems fused by reciprocal rank, `retrieval.fusion`

FIRST, SECOND, A, B and C are names of systems before it. Indexes are kept in a folder, each under its collection, the digest of
its corpus and the fingerprint of its encoder, so that what comes again is not built again.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from ..index.errors import DatasetError, IndexNotFoundError, RepresentationError
from ..index.manifest import read as read_manifest
from ..index.representations import SparseVectors
from ..retrieval.build import build_index
from ..retrieval.corpus import read_corpus
from ..retrieval.encoders.base import Encoder, makes_tokens
from ..retrieval.encoders.registry import load_encoder
from ..retrieval.fusion import reciprocal_rank_fusion
from ..retrieval.retriever import Retriever
from .datasets import COLLECTIONS, Dataset, load_dataset

DEPTH = 100
"""Documents of a ranking: what is reranked and fused."""
SAMPLE_DOCUMENTS, SAMPLE_QUERIES = 64, 256
"""Texts by which encoding is timed, the first of a collection."""
QUERIES_AT_ONCE = 256

Rankings = list[list[tuple[str, float]]]
"""A ranking for each query, in the order of the dataset's."""
Say = Callable[[str], None]
"""Told what is going on, in lines."""


@dataclass(frozen=True, kw_only=True)
class System:
    """What is compared.

    Attributes
    ----------
    name : str
    kind : {"encoder", "rerank", "fusion"}
    model : str or None
        Of an encoder; None: BM25.
    parts : tuple of str
        Names of the systems that a reranking or a fusion is made of.
    """

    name: str
    kind: Literal["encoder", "rerank", "fusion"]
    model: str | None = None
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How an encoder sees a collection.

    Attributes
    ----------
    unit : {"terms", "tokens"}
        What texts become: weights of terms, or token vectors.
    per_document, per_query : float
        Units on average; of queries, over the first `SAMPLE_QUERIES`.
    documents_per_s, queries_per_s : float
        Encoding alone, over the first `SAMPLE_DOCUMENTS` and `SAMPLE_QUERIES`.
    """

    unit: Literal["terms", "tokens"]
    per_document: float
    per_query: float
    documents_per_s: float
    queries_per_s: float


@dataclass(frozen=True, kw_only=True)
class Collection:
    """A BEIR folder: its corpus, and what is asked of it.

    Attributes
    ----------
    folder : Path
    digest : str
        Hash of the corpus.
    dataset : Dataset
    """

    folder: Path
    digest: str
    dataset: Dataset


def parse_systems(texts: Iterable[str]) -> list[System]:
    """Read systems as the module's table has them.

    Raises
    ------
    ValueError
        A text of another form, a name that is taken, or a part that is no system before it.
    """
    systems: dict[str, System] = {}
    for text in texts:
        name, _, spec = text.partition("=")
        if not re.fullmatch(r"[^\s=+>|]+", name) or not spec:
            raise ValueError(f"a system is NAME=SPEC, with a name without spaces and the signs + > |, not {text!r}")
        if name in systems:
            raise ValueError(f"two systems are called {name!r}")
        system = _parse(name, spec)
        unknown = [part for part in system.parts if part not in systems]
        if unknown:
            raise ValueError(f"{text!r}: {unknown[0]!r} is no system before it; there are {', '.join(systems) or 'none'}")
        if system.kind == "rerank" and systems[system.parts[1]].kind != "encoder":
            raise ValueError(f"{text!r}: {system.parts[1]!r} has no vectors of its own to rerank with")
        systems[name] = system
    if not systems:
        raise ValueError("nothing to compare: name systems, as in bm25=bm25")
    return list(systems.values())


def _parse(name: str, spec: str) -> System:
    kind, _, rest = spec.partition(":")
    if kind == "rerank":
        parts = rest.split(">")
        if len(parts) != 2:
            raise ValueError(f"{spec!r}: a reranking is rerank:FIRST>SECOND")
        return System(name=name, kind="rerank", parts=tuple(parts))
    if kind == "fusion":
        parts = rest.split("+")
        if len(parts) < 2:
            raise ValueError(f"{spec!r}: a fusion is fusion:A+B, of two systems or more")
        return System(name=name, kind="fusion", parts=tuple(parts))
    return System(name=name, kind="encoder", model=None if spec == "bm25" else spec)


def load_encoders(systems: Sequence[System], *, device: str = "cpu") -> dict[str, Encoder]:
    """Make the encoders of all systems that have one, by name.

    Raises
    ------
    RepresentationError
        A model is not recognised, or one that is to rerank makes no token vectors.
    """
    encoders = {
        system.name: load_encoder() if system.model is None else load_encoder(model=system.model, device=device)
        for system in systems
        if system.kind == "encoder"
    }
    for system in systems:
        if system.kind == "rerank" and not makes_tokens(encoders[system.parts[1]]):
            raise RepresentationError(f"{system.name}: {system.parts[1]} makes no token vectors, which reranking is done with")
    return encoders


def load_collection(name: str, split: str = "test") -> Collection:
    """Load queries and judgments of a BEIR folder, or of one in the repository's ``eval/collections``.

    Raises
    ------
    DatasetError
        There is no such folder or corpus, or a file is malformed.
    """
    folders = [folder.resolve() for folder in (Path(name), COLLECTIONS / name) if folder.is_dir()]
    if not folders:
        raise DatasetError("no such folder; a suite is made of BEIR folders", path=name)
    corpora = [folders[0] / file for file in ("corpus.jsonl", "corpus.jsonl.gz") if (folders[0] / file).is_file()]
    if not corpora:
        raise DatasetError("the folder has no corpus.jsonl or corpus.jsonl.gz", path=folders[0])
    with corpora[0].open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Collection(folder=folders[0], digest=digest, dataset=load_dataset(folders[0], split))


def open_system(encoder: Encoder, collection: Collection, work: Path, *, say: Say | None = None) -> Retriever:
    """Open the index of a collection, which is built when it is not there yet, or finished when it is not whole.

    Errors are those of `build_index` and `Retriever.open`.
    """
    name = f"{collection.folder.name}-{collection.digest[:12]}-{encoder.fingerprint.replace(':', '-')}"
    path = work / name
    try:
        complete = read_manifest(path).build is None
    except IndexNotFoundError:
        complete = False
    if not complete:
        if say:
            say(f"building {path}")
        build_index([str(collection.folder)], path, encoder=encoder)
    return Retriever.open(path, encoder=encoder)


def measure_encoding(retriever: Retriever, collection: Collection) -> Encoding:
    """Count what texts become, and time it."""
    documents = [document.content for document in islice(read_corpus([str(collection.folder)]), SAMPLE_DOCUMENTS)]
    queries = list(islice(collection.dataset.queries.values(), SAMPLE_QUERIES))
    encoder, info = retriever.encoder, retriever.info()
    encoder.encode_documents(documents[:1])  # reads the weights
    start = time.perf_counter()
    encoder.encode_documents(documents)
    documents_s = time.perf_counter() - start
    start = time.perf_counter()
    encoded = encoder.encode_queries(queries)
    queries_s = time.perf_counter() - start
    sparse = isinstance(encoded, SparseVectors)
    return Encoding(
        unit="terms" if sparse else "tokens",
        per_document=info["postings_per_doc" if sparse else "tokens_per_doc"],
        per_query=(encoded.n_postings if isinstance(encoded, SparseVectors) else encoded.n_tokens) / len(queries),
        documents_per_s=len(documents) / documents_s,
        queries_per_s=len(queries) / queries_s,
    )


def rank_all(
    systems: Sequence[System], retrievers: Mapping[str, Retriever], dataset: Dataset
) -> dict[str, Rankings]:  # fmt: skip
    """Ask every query of every system; a document whose id is the query's own is left out, as BEIR does.

    Parameters
    ----------
    retrievers : mapping of str to Retriever
        By the names of the systems that have an encoder.

    Returns
    -------
    dict of str to list of rankings
        By the names of all systems; `DEPTH` documents a query.
    """
    texts = list(dataset.queries.values())
    rankings: dict[str, Rankings] = {}
    for system in systems:
        if system.kind == "encoder":
            found = _rank(retrievers[system.name], texts)
            rankings[system.name] = [
                [(doc_id, score) for doc_id, score in ranking if doc_id != query_id][:DEPTH]
                for query_id, ranking in zip(dataset.queries, found, strict=True)
            ]
        elif system.kind == "rerank":
            first, second = system.parts
            rankings[system.name] = retrievers[second].rerank(texts, rankings[first], DEPTH)
        else:
            runs = zip(*(rankings[part] for part in system.parts), strict=True)
            rankings[system.name] = [reciprocal_rank_fusion(of_query, DEPTH) for of_query in runs]
    return rankings


def _rank(retriever: Retriever, texts: Sequence[str]) -> Rankings:
    rankings: Rankings = []
    for first in range(0, len(texts), QUERIES_AT_ONCE):
        rankings += retriever.rank(texts[first : first + QUERIES_AT_ONCE], DEPTH + 1)
    return rankings
