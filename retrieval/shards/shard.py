"""One shard: what a set of shards asks it, and the shard of this process.

Document numbers here are the shard's own. All that goes in and out can be pickled, so a shard may live in another process.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ...index.arrays import Floats, Int32s, Int64s
from ...index.documents import Document
from ...index.manifest import Manifest
from ...index.multivector.placement import TokenStorage
from ...index.snapshot import Snapshot
from ...index.sparse.field import SparseField
from ...index.sparse.statistics import SparseStatistics
from ..hits import Hits
from ..searchers.explanation import FieldExplanation
from ..searchers.registry import FieldSearcher, field_searcher

Filter = str | Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ShardFacts:
    """What a set must know of a shard.

    Attributes
    ----------
    manifest : Manifest
        Of the commit that is open.
    n_total : int
        Documents, deleted ones included: the next shard's first number.
    fields : tuple of str
        The complete fields.
    statistics : dict of str to SparseStatistics
        Of the sparse fields.
    """

    manifest: Manifest
    n_total: int
    fields: tuple[str, ...]
    statistics: dict[str, SparseStatistics]


class Shard(Protocol):
    """A shard of a set, in this process or another; ``name`` is its folder's."""

    name: str

    def facts(self) -> ShardFacts:
        """Return what the set must know."""
        ...

    def join(self, statistics: Mapping[str, SparseStatistics], metadata: Mapping[str, str]) -> None:
        """Take the statistics of the whole collection, and the types of its metadata; before any search."""
        ...

    def search(self, name: str, queries: Any, k: int, filter: Filter | None, options: Any, n_threads: int) -> Hits:
        """Search one field with queries as an encoder makes them."""
        ...

    def score(self, name: str, queries: Any, doc_nums: Sequence[Int32s], options: Any, n_threads: int) -> list[Floats]:
        """Score given documents by one field."""
        ...

    def explain(
        self, name: str, queries: Any, number: int, query_text: str, doc_num: int, document_text: str
    ) -> FieldExplanation:
        """Explain the score of one document."""
        ...

    def check(self, name: str, options: Any) -> None:
        """Raise ValueError for options that the field does not have."""
        ...

    def find(self, doc_ids: Sequence[str]) -> Int64s:
        """doc_num of each live doc_id, -1 where it is absent."""
        ...

    def documents(self, doc_nums: Sequence[int]) -> list[Document]:
        """Documents by number."""
        ...

    def doc_ids(self, doc_nums: Sequence[int]) -> list[str]:
        """doc_ids by number."""
        ...

    def info(self) -> dict[str, Any]:
        """Facts, ready for JSON."""
        ...

    def warm(self, name: str) -> None:
        """Load or compile what a query of one field can need."""
        ...


class LocalShard:
    """A shard of this process; safe to use from many threads."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.name, self.snapshot = snapshot.path.name, snapshot
        self._statistics: Mapping[str, SparseStatistics] = {}
        self._encoders: dict[str, Any] = {}
        self._searchers: dict[str, FieldSearcher] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls, path: Path, *, previous: Snapshot | None = None, verify: bool = False, storage: TokenStorage | None = None
    ) -> LocalShard:
        """Open the newest commit of a shard; parameters and errors are those of `Snapshot.open`."""
        return cls(Snapshot.open(path, previous=previous, verify=verify, storage=storage))

    def facts(self) -> ShardFacts:
        """See `Shard.facts`."""
        fields = self.snapshot.fields
        return ShardFacts(
            manifest=self.snapshot.manifest, n_total=sum(segment.n_docs for segment in self.snapshot.segments),
            fields=tuple(fields),
            statistics={name: each.statistics() for name, each in fields.items() if isinstance(each, SparseField)},
        )  # fmt: skip

    def join(self, statistics: Mapping[str, SparseStatistics], metadata: Mapping[str, str]) -> None:
        """See `Shard.join`."""
        self._statistics = statistics
        self.snapshot.manifest = replace(self.snapshot.manifest, metadata=dict(metadata))

    def explain_with(self, name: str, encoder: Any) -> None:
        """Take the encoder of a field, which explanations name surface terms and tokens by; before its first search."""
        self._encoders[name] = encoder

    def search(self, name: str, queries: Any, k: int, filter: Filter | None, options: Any, n_threads: int) -> Hits:
        """See `Shard.search`."""
        allowed = None if filter is None else self.snapshot.masks(filter)
        searcher = self._searcher(name)
        return searcher.search(searcher.vectors(queries), k, allowed=allowed, options=options, n_threads=n_threads)

    def score(self, name: str, queries: Any, doc_nums: Sequence[Int32s], options: Any, n_threads: int) -> list[Floats]:
        """See `Shard.score`."""
        searcher = self._searcher(name)
        return searcher.score(searcher.vectors(queries), doc_nums, options=options, n_threads=n_threads)

    def explain(
        self, name: str, queries: Any, number: int, query_text: str, doc_num: int, document_text: str
    ) -> FieldExplanation:
        """See `Shard.explain`."""
        searcher = self._searcher(name)
        return searcher.explain(searcher.vectors(queries), number, query_text, doc_num, document_text)

    def check(self, name: str, options: Any) -> None:
        """See `Shard.check`."""
        check = getattr(self._searcher(name), "check", None)
        if check is not None:
            check(options)

    def find(self, doc_ids: Sequence[str]) -> Int64s:
        """See `Shard.find`."""
        return self.snapshot.find(doc_ids)

    def documents(self, doc_nums: Sequence[int]) -> list[Document]:
        """See `Shard.documents`."""
        return self.snapshot.get_many(doc_nums)

    def doc_ids(self, doc_nums: Sequence[int]) -> list[str]:
        """See `Shard.doc_ids`."""
        return self.snapshot.doc_ids(doc_nums)

    def info(self) -> dict[str, Any]:
        """See `Shard.info`."""
        return self.snapshot.info()

    def warm(self, name: str) -> None:
        """See `Shard.warm`."""
        self._searcher(name).warm()

    def _searcher(self, name: str) -> FieldSearcher:
        with self._lock:
            if name not in self._searchers:
                field: Any = self.snapshot.field(name)
                if name in self._statistics:
                    field = field.with_statistics(self._statistics[name])
                self._searchers[name] = field_searcher(field, self._encoders.get(name))
            return self._searchers[name]
