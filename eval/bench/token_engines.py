"""Engines of `lexmax bench multivector` that run in this environment: lexmax, its oracle, and tachiom."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...index.arrays import Floats, Int64s
from ...index.collection import Collection, NewField
from ...index.manifest import EncoderRecord
from ...index.multivector.config import MultiVectorConfig
from ...index.multivector.field import TokenField
from ...index.representations.multivectors import MultiVectors
from ...retrieval.searchers.centroid import CentroidOptions, CentroidSearcher
from ...retrieval.searchers.maxsim import MaxSimSearcher
from .fields import only_field, without_text
from .token_sets import TokenSet
from .token_worker import timed

ADD_DOCS = 1024
ENCODER = EncoderRecord(kind="colbert", fingerprint="bench:0000000000000000", settings={})
WARM_DOCS = 64
ORACLE = "lexmax-exhaustive"
GRID = (
    (2, 128, 32, 16), (4, 256, 64, 16), (8, 256, 128, 32), (16, 512, 256, 32), (16, 1024, 384, 32), (32, 1024, 256, 32),
    (32, 2048, 512, 64), (64, 4096, 1024, 64), (128, 8192, 2048, 128),
)  # fmt: skip
"""n_probe, n_gathered, n_candidates and n_exact of `CentroidOptions`, from fast to thorough."""
TACHIOM_GRID = ((5, 50, 10, 0.45), (10, 100, 16, 0.45), (20, 300, 30, 0.45), (40, 1000, 60, 0.3), (80, 2000, 100, None))
"""k_centroids, k_docs_to_score, ef_search and alpha, from fast to thorough, beside the package's defaults."""


class OpenedTokens(Protocol):
    """An index ready to answer.

    Attributes
    ----------
    rows : mapping
        Row of the report -> the curve that it is a point of.
    slow : bool
        Answers take so long that fewer queries are asked.
    """

    @property
    def rows(self) -> Mapping[str, str]:
        """Row of the report -> its curve."""
        ...

    @property
    def slow(self) -> bool:
        """Whether fewer queries are asked."""
        ...

    def prepare(self, number: int, tokens: Floats) -> Any:
        """Make of query ``number`` what `search` takes; not timed."""
        ...

    def search(self, row: str, query: Any, k: int) -> Int64s:
        """Answer one query in the calling thread: document numbers, best first."""
        ...

    def search_all(self, row: str, queries: Sequence[Any], k: int, n_threads: int) -> Mapping[str, float]:
        """Answer all queries by some threads; returns ``cpu_us`` of all of them and ``wall_us``."""
        ...


@dataclass(frozen=True, kw_only=True)
class TokenEngine:
    """One engine with one kind of index.

    Attributes
    ----------
    build : callable
        Folder of a `TokenSet` and an empty folder -> ``build_cpu_s`` and ``build_wall_s``.
    open : callable
        The same folders -> the open index.
    package : str or None
        The import name of what must be installed.
    distributions : sequence of str
        Whose versions belong in the report.
    needs_token_ids : bool
    """

    build: Callable[[Path, Path], Mapping[str, float]]
    open: Callable[[Path, Path], OpenedTokens]
    package: str | None = None
    distributions: Sequence[str] = field(default=())
    needs_token_ids: bool = False


def build_lexmax(tokens: Path, index: Path, *, nbits: int, exact: bool) -> Mapping[str, float]:
    """Add and commit, durable on disk; kernels are compiled before, on some documents."""
    found = TokenSet.load(tokens)
    config = MultiVectorConfig(dim=found.queries.dim, nbits=nbits, exact=exact)
    _write(found, index / "warm", config, min(WARM_DOCS, len(found)))
    shutil.rmtree(index / "warm")
    return _seconds(timed(lambda: _write(found, index / "index", config, len(found)))[1])


def _write(tokens: TokenSet, folder: Path, config: MultiVectorConfig, n_docs: int) -> None:
    new = NewField(encoder=ENCODER, representation="tokens", options=asdict(config))
    with Collection.create(folder, {"tokens": new}) as collection:
        for first in range(0, n_docs, ADD_DOCS):
            last = min(first + ADD_DOCS, n_docs)
            collection.add(without_text(first, last), {"tokens": tokens.rows(first, last)})
        collection.commit()


def _seconds(times: Mapping[str, float]) -> Mapping[str, float]:
    return {"build_cpu_s": times["cpu_us"] / 1e6, "build_wall_s": times["wall_us"] / 1e6}


class LexmaxTokens:
    """lexmax's index under several settings: with the last stage over exact tokens, without it, or without exact tokens."""

    slow = False

    def __init__(self, tokens: Path, index: Path, *, name: str) -> None:
        self._searcher = CentroidSearcher(only_field(index / "index", TokenField, "token vectors"))
        self._options = {name: CentroidOptions()}
        self.rows = {name: name}
        exact = any(segment.part.small is not None for segment in self._searcher.field.segments)
        for probe, gathered, candidates, n_exact in GRID:
            for last in (n_exact, 0) if exact else (0,):
                row = f"{name}-{probe}-{gathered}-{candidates}-{last}"
                self._options[row] = CentroidOptions(
                    n_probe=probe, n_gathered=gathered, n_candidates=candidates, n_exact=last
                )  # fmt: skip
                self.rows[row] = f"{name}, codes only" if exact and not last else name

    def prepare(self, number: int, tokens: Floats) -> MultiVectors:
        """Wrap the query's tokens."""
        return MultiVectors.of([tokens], tokens.shape[1])

    def search(self, row: str, query: MultiVectors, k: int) -> Int64s:
        """Answer with the row's options."""
        return self._searcher.search(query, k, options=self._options[row]).doc_nums.astype(np.int64)

    def search_all(self, row: str, queries: Sequence[MultiVectors], k: int, n_threads: int) -> Mapping[str, float]:
        """Answer one batch."""
        batch = MultiVectors.of([query.tokens for query in queries], queries[0].dim)
        return timed(lambda: self._searcher.search(batch, k, options=self._options[row], n_threads=n_threads))[1]


class Oracle:
    """lexmax's own exhaustive search, over all tokens decoded from 8 bits."""

    slow = True

    def __init__(self, tokens: Path, index: Path) -> None:
        self._searcher = MaxSimSearcher(only_field(index / "index", TokenField, "token vectors"))
        self.rows = {ORACLE: ORACLE}

    def prepare(self, number: int, tokens: Floats) -> MultiVectors:
        """Wrap the query's tokens."""
        return MultiVectors.of([tokens], tokens.shape[1])

    def search(self, row: str, query: MultiVectors, k: int) -> Int64s:
        """Score every document."""
        return self._searcher.search(query, k).doc_nums.astype(np.int64)

    def search_all(self, row: str, queries: Sequence[MultiVectors], k: int, n_threads: int) -> Mapping[str, float]:
        """Score every document for the whole batch, in the calling thread."""
        batch = MultiVectors.of([query.tokens for query in queries], queries[0].dim)
        return timed(lambda: self._searcher.search(batch, k))[1]


def build_tachiom(tokens: Path, index: Path) -> Mapping[str, float]:
    """Build with the package's defaults and save."""
    tachiom = import_module("tachiom").Tachiom
    files = [str(tokens / f"{name}.npy") for name in ("tokens", "token_ids", "widths")]
    with _talk_on_stderr():
        return _seconds(timed(lambda: tachiom.build(*files).save(str(index / "index.bin")))[1])


@contextmanager
def _talk_on_stderr() -> Iterator[None]:
    """Keep what Rust prints out of standard output, where the report goes."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


class TachiomTokens:
    """tachiom's index, in memory, under the package's defaults and some other settings."""

    slow = False

    def __init__(self, tokens: Path, index: Path) -> None:
        self._index = import_module("tachiom").Tachiom.load(str(index / "index.bin"))
        self._n_docs = int(self._index.len)
        self._settings: dict[str, dict[str, Any]] = {"tachiom": {}}
        for centroids, documents, ef, alpha in TACHIOM_GRID:
            settings = {"k_centroids": centroids, "k_docs_to_score": documents, "ef_search": ef, "alpha": alpha}
            self._settings[f"tachiom-{centroids}-{documents}"] = settings
        self.rows = dict.fromkeys(self._settings, "tachiom")

    def prepare(self, number: int, tokens: Floats) -> Floats:
        """Copy the query's tokens."""
        return np.ascontiguousarray(tokens)

    def search(self, row: str, query: Floats, k: int) -> Int64s:
        """Answer with the row's settings; never fewer documents than k are scored."""
        documents = np.asarray(self._index.search(query, k=k, **self._at_least(row, k))[1], np.int64)
        known = (documents >= 0) & (documents < self._n_docs)
        return documents[known]

    def search_all(self, row: str, queries: Sequence[Floats], k: int, n_threads: int) -> Mapping[str, float]:
        """Answer one batch."""
        offsets = np.cumsum([0, *map(len, queries)]).astype(np.uint64)
        search = partial(self._index.batch_search, np.concatenate(queries), len(queries), k=k, offsets=offsets)
        return timed(lambda: search(num_threads=n_threads, **self._at_least(row, k)))[1]

    def _at_least(self, row: str, k: int) -> dict[str, Any]:
        settings = self._settings[row]
        return settings | {"k_docs_to_score": max(k, settings["k_docs_to_score"])} if settings else settings


ENGINES: dict[str, TokenEngine] = {
    "lexmax": TokenEngine(
        build=partial(build_lexmax, nbits=2, exact=True),
        open=partial(LexmaxTokens, name="lexmax"),
        distributions=["lexmax", "numba", "numpy", "faiss-cpu"],
    ),
    "lexmax-4bit": TokenEngine(
        build=partial(build_lexmax, nbits=4, exact=False), open=partial(LexmaxTokens, name="lexmax-4bit")
    ),
    "tachiom": TokenEngine(
        build=build_tachiom, open=TachiomTokens, package="tachiom", distributions=["tachiom"], needs_token_ids=True
    ),
}
"""Every engine of this environment, by the name that ``--engines`` takes."""
