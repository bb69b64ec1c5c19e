"""The searcher of one field of a set of shards: asks every shard, and merges their answers by score."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ...index.arrays import Floats, Int32s, Mask
from ...index.errors import ShardError
from ...index.manifest import FieldRecord
from ...index.representations.dense import DenseVectors
from ...index.representations.sparse import SparseVectors
from ..hits import Hits, ReadCounts, Scores, best
from ..searchers.explanation import FieldExplanation
from ..searchers.registry import searcher_type
from ..searchers.tokens import token_vectors
from ..workers import Workers
from .shard import Filter, Shard

logger = logging.getLogger(__name__)
T = TypeVar("T")
MAX_WAITING = 64
"""Threads of a field that wait for shards of other processes, for all searches at once."""


class ShardRequest(tuple[None, ...]):
    """What a search asks of all shards besides its queries, in place of the masks that `Snapshot.masks` makes.

    Attributes
    ----------
    filter : Filter or None
        A filter that was checked, which each shard applies.
    partial : bool
        Answer without shards that fail, rather than not at all.
    missing : set of str
        Names of shards that did so, for the answer to tell.
    """

    filter: Filter | None
    partial: bool
    missing: set[str]

    @classmethod
    def of(cls, filter: Filter | None = None, *, partial: bool = False) -> ShardRequest:
        """Make the request of one search."""
        request = cls()
        request.filter, request.partial, request.missing = filter, partial, set()
        return request


@dataclass(frozen=True)
class ShardedField:
    """A field of a set of shards; what `index.fields.Field` tells without its segments."""

    path: Path
    name: str
    record: FieldRecord

    @property
    def representation(self) -> str:
        """What the field holds."""
        return self.record.representation


class ShardedSearcher:
    """The `FieldSearcher` of a field of a set; safe to use from many threads.

    Parameters
    ----------
    field : ShardedField
    shards : sequence of Shard
    bases : sequence of int
        Number of each shard's first document, and after them that of all documents.
    at_once : bool
        Ask all shards at once, as those of other processes; else no more than a search has threads.
    encoder : Encoder or None
    """

    def __init__(
        self, field: ShardedField, shards: Sequence[Shard], bases: Sequence[int], *, at_once: bool, encoder: Any = None
    ) -> None:  # fmt: skip
        self.field, self.encoder = field, encoder
        self.options_type: type[Any] = searcher_type(field.representation).options_type
        self._shards, self._at_once = list(shards), at_once
        self._workers = Workers(MAX_WAITING if at_once else None)
        self._bases = np.asarray(bases, np.int64)

    def check(self, options: Any) -> None:
        """Raise ValueError for options that the field does not have."""
        self._shards[0].check(self.field.name, options)

    def vectors(self, queries: object) -> Any:
        """Bring encoded queries into one batch, which each shard brings into its own form; see `FieldSearcher.vectors`."""
        where = f"{self.field.path}, field {self.field.name}"
        options = self.field.record.options
        if self.field.representation == "sparse" and not isinstance(queries, SparseVectors):
            from ..exchange.vectors import to_sparse_vectors

            return to_sparse_vectors(queries)
        if self.field.representation == "tokens":
            return token_vectors(queries, options["dim"], where)
        if self.field.representation == "fde" and not isinstance(queries, DenseVectors):
            return token_vectors(queries, options["encoding"]["token_dim"], where)
        if isinstance(queries, np.ndarray):
            return DenseVectors(np.atleast_2d(queries).astype(np.float32))
        return queries

    def search(
        self, queries: Any, k: int, *, allowed: Sequence[Mask | None] | None = None, options: Any = None, n_threads: int = 1
    ) -> Hits:
        """Return the k best documents of each query, in the order that one index would give; see `FieldSearcher.search`."""
        request = allowed if isinstance(allowed, ShardRequest) else ShardRequest.of()
        each_threads = max(1, n_threads // len(self._shards))

        def ask(number: int) -> Hits | None:
            shard = self._shards[number]
            try:
                return shard.search(self.field.name, queries, k, request.filter, options, each_threads)
            except ShardError as error:
                if not request.partial:
                    raise
                logger.warning("a partial answer: %s", error)
                request.missing.add(shard.name)
                return None

        asked = self._ask(ask, n_threads)
        if not any(asked):
            raise ShardError(f"{self.field.path}: no shard answers")
        found, bases = zip(*((hits, base) for hits, base in zip(asked, self._bases, strict=False) if hits), strict=True)
        merged = []
        for number in range(len(queries)):
            answers = [hits.query(number) for hits in found]
            doc_nums = np.concatenate([doc_nums + base for (doc_nums, _), base in zip(answers, bases, strict=True)])
            merged.append(best(doc_nums, np.concatenate([scores for _, scores in answers]), k))
        hits = Hits.of(merged)
        counts = [each.n_scored for each in found if each.n_scored is not None]
        reads = [each.reads for each in found if each.reads is not None]
        return Hits(
            hits.offsets, hits.doc_nums, hits.scores, np.sum(counts, axis=0) if counts else None,
            ReadCounts.total(reads) if reads else None,
        )  # fmt: skip

    def score(
        self, queries: Any, doc_nums: Sequence[Int32s], *, options: Any = None, n_threads: int = 1
    ) -> list[Floats]:  # fmt: skip
        """Score given documents; see `FieldSearcher.score`."""
        if len(doc_nums) != len(queries):
            raise ValueError(f"{len(queries)} queries with {len(doc_nums)} lists of documents")
        for each in doc_nums:
            if len(each) and not 0 <= each.min() <= each.max() < self._bases[-1]:
                raise ValueError(f"{self.field.path}: doc_nums must be 0 to {self._bases[-1] - 1}")
        owners = [np.searchsorted(self._bases, each, side="right") - 1 for each in doc_nums]
        each_threads = max(1, n_threads // len(self._shards))

        def ask(number: int) -> list[Floats] | None:
            chosen = [
                (wanted[owner == number] - self._bases[number]).astype(np.int32)
                for wanted, owner in zip(doc_nums, owners, strict=True)
            ]
            if not any(len(some) for some in chosen):
                return None
            return self._shards[number].score(self.field.name, queries, chosen, options, each_threads)

        found = self._ask(ask, n_threads)
        scores: list[Floats] = [np.zeros(len(each), np.float32) for each in doc_nums]
        reads = []
        for number, answer in enumerate(found):
            if isinstance(answer, Scores):
                reads.append(answer.reads)
            for out, owner, some in zip(scores, owners, answer or (), strict=False):
                out[owner == number] = some
        return Scores(scores, ReadCounts.total(reads)) if reads else scores

    def explain(self, queries: Any, number: int, query_text: str, doc_num: int, document_text: str) -> FieldExplanation:
        """Explain the score of one document; see `FieldSearcher.explain`."""
        shard = int(np.searchsorted(self._bases, doc_num, side="right")) - 1
        own = int(doc_num - self._bases[shard])
        return self._shards[shard].explain(self.field.name, queries, number, query_text, own, document_text)

    def warm(self) -> None:
        """Load or compile every kernel that a query can need, in every shard."""
        self._ask(lambda number: self._shards[number].warm(self.field.name), 1)

    def _ask(self, question: Callable[[int], T], n_threads: int) -> list[T]:
        """Ask every shard, by number; an answer each, in their order. The first error of any is raised."""
        n_at_once = len(self._shards) if self._at_once else n_threads
        return self._workers.map(question, len(self._shards), n_at_once)
