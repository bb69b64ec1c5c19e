"""One commit of a set of shards, open for reading: what a `Retriever` searches in place of a `Snapshot`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...index import manifest as manifests
from ...index.arguments import path_of, texts_of
from ...index.arrays import Int64s
from ...index.documents import Document
from ...index.errors import IndexFormatError, RepresentationError
from ...index.filters.filter import Filter as ParsedFilter
from ...index.manifest import Manifest
from ...index.metadata import joined_fields
from ...index.multivector.placement import TokenStorage
from ...index.nearest import did_you_mean
from ...index.snapshot import Snapshot
from ...index.sparse.statistics import SparseStatistics
from ..workers import Workers
from . import manifest as sets
from .searcher import MAX_WAITING, ShardedField, ShardedSearcher, ShardRequest
from .shard import Filter, LocalShard, Shard, ShardFacts

logger = logging.getLogger(__name__)
MAX_DOCS = 2**31 - 1
RETRY_S = 5.0
"""A commit of the set replaces its manifest after those of its shards: a reader that comes between waits so long."""


class ShardedSnapshot:
    """Shards that answer as one index; make one with `open`, or of shards that are open. Safe to use from many threads.

    Document numbers run from shard to shard. Attributes are those of `index.snapshot.Snapshot` as far as a set has them.

    Parameters
    ----------
    path : Path
        The set's folder.
    shard_set : ShardManifest
    shards : sequence of Shard
        As many, in its order.
    at_once : bool
        The shards are in other processes, and are asked all at once.
    reopen : callable or None
        Opens a newer commit of the set the same way; None: `open`.

    Raises
    ------
    IndexFormatError
        A shard is another index, or at another commit, than the set names.
    RepresentationError
        Shards have different fields, or trained state of their own in a field whose scores depend on it.
    """

    def __init__(
        self, path: Path, shard_set: sets.ShardManifest, shards: Sequence[Shard], *, at_once: bool = False,
        reopen: Callable[[Path], ShardedSnapshot] | None = None,
    ) -> None:  # fmt: skip
        self.path, self.shard_set, self.shards, self._at_once, self.reopen = path, shard_set, list(shards), at_once, reopen
        self._workers = Workers(MAX_WAITING)
        facts = [shard.facts() for shard in shards]
        _check_commits(path, shard_set, facts)
        _check_fields(path, shard_set, facts)
        self.bases: list[int] = [0, *np.cumsum([each.n_total for each in facts]).tolist()]
        if self.bases[-1] > MAX_DOCS:
            raise RepresentationError(f"{path}: {self.bases[-1]:,} documents: a set has at most {MAX_DOCS:,}")
        names = facts[0].fields
        records = facts[0].manifest.fields
        self.manifest = Manifest(
            fields={name: records[name] for name in names}, search=shard_set.search, generation=shard_set.generation,
            build_id=shard_set.set_id, metadata=joined_fields([each.manifest.metadata for each in facts]),
            segments=[segment for each in facts for segment in each.manifest.segments],
        )  # fmt: skip
        self.fields = {name: ShardedField(path, name, records[name]) for name in names}
        statistics = {name: SparseStatistics.merged([each.statistics[name] for each in facts]) for name in facts[0].statistics}
        for shard in self.shards:
            shard.join(statistics, self.manifest.metadata)

    @classmethod
    def open(
        cls, path: Path | str, *, previous: ShardedSnapshot | None = None, verify: bool = False,
        storage: TokenStorage | None = None,
    ) -> ShardedSnapshot:  # fmt: skip
        """Open the newest commit of a set, all shards in this process.

        Parameters and errors are those of `Snapshot.open` and of `ShardedSnapshot`.
        """
        folder, last = path_of(path), time.monotonic() + RETRY_S
        known = {} if previous is None else dict(zip(_folders(previous.shard_set), previous.shards, strict=True))
        while True:
            shard_set = sets.read(folder)
            shards = []
            for name in _folders(shard_set):
                before = known.get(name)
                snapshot = before.snapshot if isinstance(before, LocalShard) else None
                shards.append(LocalShard.open(folder / name, previous=snapshot, verify=verify, storage=storage))
            try:
                return cls(folder, shard_set, shards)
            except IndexFormatError:
                if time.monotonic() > last:
                    raise
                time.sleep(0.05)

    @property
    def n_docs(self) -> int:
        """Live documents."""
        return self.manifest.n_docs

    @property
    def generation(self) -> int:
        """Number of the set's commit."""
        return self.shard_set.generation

    def field(self, name: str) -> ShardedField:
        """Return a field by name; raises RepresentationError where there is none."""
        if name in self.fields:
            return self.fields[name]
        known = ", ".join(self.fields)
        raise RepresentationError(
            f"{self.path}: there is no field {name!r}; there are {known}{did_you_mean(name, self.fields)}"
        )

    def searcher(self, name: str, encoder: Any) -> ShardedSearcher:
        """Make the searcher of a field; ``encoder`` is for explanations by shards of this process."""
        for shard in self.shards:
            if isinstance(shard, LocalShard):
                shard.explain_with(name, encoder)
        return ShardedSearcher(self.field(name), self.shards, self.bases, at_once=self._at_once, encoder=encoder)

    def masks(self, filter: Filter | None = None, *, partial: bool = False) -> ShardRequest:
        """Check a filter, which the shards apply; returns what takes the place of masks. Raises FilterError."""
        parsed = None if filter is None else ParsedFilter(filter, self.manifest.metadata)
        if parsed and parsed.unseen:
            logger.warning("filter: no document has the field %s", ", ".join(map(repr, parsed.unseen)))
        return ShardRequest.of(filter, partial=partial)

    def find(self, doc_ids: Sequence[str]) -> Int64s:
        """doc_num of each live doc_id, -1 where it is absent."""
        doc_ids = texts_of(doc_ids, "doc_ids")
        numbers = np.full(len(doc_ids), -1, np.int64)
        for shard, base in zip(self.shards, self.bases, strict=False):
            found = shard.find(doc_ids)
            numbers = np.where(found >= 0, found + base, numbers)
        return numbers

    def get_many(self, doc_nums: Sequence[int]) -> list[Document]:
        """Documents by doc_num, in that order."""
        return self._gathered(doc_nums, lambda shard, own: shard.documents(own))

    def doc_ids(self, doc_nums: Sequence[int]) -> list[str]:
        """doc_id of each doc_num."""
        return self._gathered(doc_nums, lambda shard, own: shard.doc_ids(own))

    def info(self) -> dict[str, Any]:
        """Facts about the set, ready for JSON: its fields in all shards, and each shard."""
        infos = [shard.info() for shard in self.shards]
        fields = {}
        for name, record in self.manifest.fields.items():
            n_bytes = sum(each["fields"][name]["n_bytes"] for each in infos)
            encoder = infos[0]["fields"][name]["encoder"]
            warnings = list(dict.fromkeys(text for each in infos for text in each["fields"][name].get("warnings", ())))
            told = {"warnings": warnings} if warnings else {}
            fields[name] = {"representation": record.representation, "encoder": encoder, "n_bytes": n_bytes, **told}
        return {
            "path": str(self.path),
            "generation": self.generation,
            "build_id": self.manifest.build_id,
            "n_docs": self.n_docs,
            "n_deleted": sum(each["n_deleted"] for each in infos),
            "n_bytes": sum(each["n_bytes"] for each in infos),
            "search": self.manifest.search,
            "metadata_fields": self.manifest.metadata,
            "complete": all(each["complete"] for each in infos),
            "fields": fields,
            "shards": [
                {"folder": record.folder, **{name: each[name] for name in ("generation", "n_docs", "n_deleted", "n_bytes")}}
                for record, each in zip(self.shard_set.shards, infos, strict=True)
            ],
        }

    def _gathered(self, doc_nums: Sequence[int], get: Any) -> list[Any]:
        """Ask each shard once for what it has of the documents."""
        numbers = np.asarray(doc_nums, np.int64)
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < self.bases[-1]:
            raise IndexError(f"{self.path}: doc_nums must be 0 to {self.bases[-1] - 1}")
        owners = np.searchsorted(self.bases, numbers, side="right") - 1
        found: list[Any] = [None] * len(numbers)
        asked = np.unique(owners).tolist()

        def ask(number: int) -> None:
            places = np.flatnonzero(owners == asked[number]).tolist()
            own = (numbers[places] - self.bases[asked[number]]).tolist()
            for place, each in zip(places, get(self.shards[asked[number]], own), strict=True):
                found[place] = each

        if asked:
            self._workers.map(ask, len(asked), len(asked) if self._at_once else 1)
        return found


AnySnapshot = Snapshot | ShardedSnapshot


def open_snapshot(
    path: Path | str, *, previous: AnySnapshot | None = None, verify: bool = False, storage: TokenStorage | None = None
) -> AnySnapshot:
    """Open the newest commit of an index or of a set of shards; parameters and errors are those of their ``open``."""
    if sets.is_set(path_of(path)):
        known = previous if isinstance(previous, ShardedSnapshot) else None
        if known is not None and known.reopen is not None:
            return known.reopen(path_of(path))
        return ShardedSnapshot.open(path, previous=known, verify=verify, storage=storage)
    return Snapshot.open(
        path, previous=previous if isinstance(previous, Snapshot) else None, verify=verify, storage=storage
    )  # fmt: skip


def open_parts(path: Path | str) -> list[Snapshot]:
    """Open an index, or the indexes of a set in the order of documents; errors are those of `open_snapshot`."""
    snapshot = open_snapshot(path)
    if isinstance(snapshot, Snapshot):
        return [snapshot]
    return [shard.snapshot for shard in snapshot.shards if isinstance(shard, LocalShard)]


def newest_commit(path: Path) -> tuple[str, int]:
    """Identity and generation of the newest commit of an index or a set."""
    if sets.is_set(path):
        shard_set = sets.read(path)
        return shard_set.set_id, shard_set.generation
    manifest = manifests.read(path)
    return manifest.build_id, manifest.generation


def _folders(shard_set: sets.ShardManifest) -> list[str]:
    return [shard.folder for shard in shard_set.shards]


def _check_commits(path: Path, shard_set: sets.ShardManifest, facts: Sequence[ShardFacts]) -> None:
    """See that each shard is the one that the set names."""
    for record, each in zip(shard_set.shards, facts, strict=True):
        expected, found = (record.build_id, record.generation), (each.manifest.build_id, each.manifest.generation)
        if expected != found:
            raise IndexFormatError(
                path / record.folder, expected="commit {1} of the index {0:.8}".format(*expected),
                found="commit {1} of {0:.8}".format(*found),
                advice=f"a shard was changed by itself: `lexmax shards {path} --commit` takes it as it is",
            )  # fmt: skip


def _check_fields(path: Path, shard_set: sets.ShardManifest, facts: Sequence[ShardFacts]) -> None:
    """See that scores of all shards can be compared: one encoder, one set of options, one trained state of each field."""
    first = facts[0]
    for record, each in zip(shard_set.shards, facts, strict=True):
        if each.fields != first.fields:
            here, there = ", ".join(each.fields), ", ".join(first.fields)
            raise RepresentationError(f"{path / record.folder}: has the fields {here}, and the first shard {there}")
        for name in first.fields:
            one, other = first.manifest.fields[name], each.manifest.fields[name]
            trained = [_trained(x, facts_of) for x, facts_of in ((one, first), (other, each))]
            if (one.encoder.fingerprint, one.options) != (other.encoder.fingerprint, other.options):
                raise RepresentationError(f"{path / record.folder}, field {name}: another encoder or other options")
            if None not in trained and trained[0] != trained[1]:
                raise RepresentationError(
                    f"{path / record.folder}, field {name}: was trained by itself, so its scores cannot be compared: build the "
                    "shards together with `lexmax build --shards`"
                )


def _trained(record: manifests.FieldRecord, facts: ShardFacts) -> str | None:
    """What scores of a field depend on besides documents; None where it is nothing, or the shard is empty."""
    if record.representation not in ("tokens", "fde") or not facts.n_total:
        return None
    return str(record.state.get("shared") or f"{facts.manifest.build_id}: {record.state.get('codec')}")
