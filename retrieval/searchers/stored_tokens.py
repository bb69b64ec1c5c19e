"""Scores documents from token stores: where they are in memory or mapped at once, where they are on disk as records arrive.

A score depends on the record alone, so it is the same wherever and in whatever order records come from, and whatever was read
before it was known to be needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np

from ...index.arrays import Bytes, Floats, Int32s, Int64s
from ...index.errors import StorageError
from ...index.kernels.checksums import DAMAGED
from ...index.kernels.records import SCALAR_BYTES
from ...index.multivector.field import TokenField
from ...index.multivector.reads import Come, RecordReads
from ...index.multivector.residual import Codec
from ...index.multivector.store import Places, TokenStore
from ..hits import NO_SCORE, UNREADABLE, ReadCounts
from ..kernels.maxsim import score_records, score_unverified
from .common import parts
from .lanes import Lanes


def stores_of(field: TokenField, doc_nums: Int32s) -> Iterator[tuple[TokenStore, Int32s, slice]]:
    """Stores that hold some of the ascending doc_nums, positions in each, and where in ``doc_nums`` those are."""
    for segment, positions, span in parts(field.segments, doc_nums):
        yield segment.part.store, positions, span


def lent_reads(field: TokenField, *, wait: bool) -> RecordReads | None:
    """Return reads of a field with a session of its own.

    None where nothing is read from disk, or, unless they are waited for, no session is free.
    """
    readers = (segment.part.store.reader for segment in field.segments)
    reader = next((each for each in readers if each is not None), None)
    if reader is None:
        return None
    session = reader.sessions.take(wait=wait)
    return None if session is None else RecordReads(reader.sessions, session)


class StoreScorer:
    """Scores documents for one query.

    Parameters
    ----------
    lanes : callable
        Makes the query's tokens ready, once, while the first reads are on their way.
    codec : Codec
    counts : ReadCounts
        What is read is counted here.
    keep_unreadable : bool
        Give `UNREADABLE` to a document whose record cannot be read; else that is an error.
    """

    def __init__(
        self, lanes: Callable[[], Sequence[Lanes]], codec: Codec, counts: ReadCounts, *, keep_unreadable: bool = False
    ) -> None:  # fmt: skip
        self._lanes, self.codec, self.counts, self._keep = lanes, codec, counts, keep_unreadable
        self._constants: dict[int, list[Floats]] = {}

    @cached_property
    def lanes(self) -> Sequence[Lanes]:
        """The query's tokens."""
        return self._lanes()

    def score(self, field: TokenField, doc_nums: Int32s, reads: RecordReads | None = None) -> Floats:
        """Return the MaxSim of documents; `NO_SCORE` without tokens.

        Parameters
        ----------
        field : TokenField
        doc_nums : (n,) int32
            Ascending, each once.
        reads : RecordReads or None
            What is on its way already; closed at the end. None: nothing is.

        Raises
        ------
        IndexFormatError
            A record is damaged, or the file was cut short.
        StorageError
            The system refuses to read.
        """
        scores = np.zeros(len(doc_nums), np.float32)
        found = list(stores_of(field, doc_nums))
        if reads is None and any(store.reader is not None for store, _, _ in found):
            reads = lent_reads(field, wait=True)
        try:
            if reads is not None:
                for store, positions, span in found:
                    if store.reader is not None:
                        reads.want(store, positions, span.start)
                reads.drop_unwanted()
                reads.begin()
            for store, positions, span in found:
                if store.reader is None:
                    self._look_up(store, positions, scores[span])
            if reads is not None:
                self._read(reads, scores)
        finally:
            if reads is not None:
                reads.close()
        for store, positions, span in found:
            scores[span][store.n_tokens(positions) == 0] = NO_SCORE
        return scores

    def _look_up(self, store: TokenStore, positions: Int32s, scores: Floats) -> None:
        """Score what is in memory or mapped."""
        places, states = store.looked_up(positions)
        at, numbers = places.firsts * store.token_bytes, np.arange(len(states))
        bad = np.flatnonzero(states == DAMAGED)
        if len(bad):
            self._damaged(store, places, bad, store.records, at)
            scores[bad] = UNREADABLE
            numbers = np.flatnonzero(states != DAMAGED)
        self._add(store, numbers, np.arange(len(states)), store.records, at, places, scores, first_lane=0)

    def _read(self, reads: RecordReads, scores: Floats) -> None:
        """Score what comes."""
        for come in reads.arrivals():
            if len(come.extents):
                self._score_come(come, reads.arena, scores)
            for extent, code in come.failed.items():
                self._refused(come, extent, code, scores)
        self.counts.add(
            ReadCounts(
                n_records=reads.n_records, n_reads=reads.n_reads, n_bytes=reads.n_bytes, n_guessed=reads.n_guessed,
                n_hits=reads.n_hits,
            )
        )  # fmt: skip

    def _score_come(self, come: Come, arena: Bytes, scores: Floats) -> None:
        store, places, at = come.store, come.places, come.wave.record_at
        damaged = np.empty(len(at), np.int64)
        lane, constants = self.lanes[0], self._constants_of(store)[0]
        n_damaged = score_unverified(
            come.extents, come.wave.first_record, places.documents, places.firsts, places.checks, store.n_centroids, damaged,
            come.targets, arena, at, places.n_tokens, store.nbits, store.token_bytes - SCALAR_BYTES, lane.dots, lane.packed,
            constants, lane.weights, scores,
        )  # fmt: skip
        damaged = damaged[:n_damaged]
        if n_damaged:
            self._damaged(store, places, damaged, arena, at)
            scores[come.targets[damaged]] = UNREADABLE
        if len(self.lanes) > 1:
            numbers = np.setdiff1d(come.wave.records(come.extents), damaged)
            self._add(store, numbers, come.targets, arena, at, places, scores, first_lane=1)

    def _add(
        self, store: TokenStore, numbers: Int64s, targets: Int64s, source: Bytes, at: Int64s, places: Places, scores: Floats, *,
        first_lane: int,
    ) -> None:  # fmt: skip
        for lane, constants in list(zip(self.lanes, self._constants_of(store), strict=True))[first_lane:]:
            score_records(
                numbers, targets, source, at, places.n_tokens, store.nbits, store.token_bytes - SCALAR_BYTES, lane.dots,
                lane.packed, constants, lane.weights, scores,
            )  # fmt: skip

    def _constants_of(self, store: TokenStore) -> list[Floats]:
        if store.nbits not in self._constants:
            self._constants[store.nbits] = [lane.constants(self.codec, store.nbits) for lane in self.lanes]
        return self._constants[store.nbits]

    def _refused(self, come: Come, extent: int, code: int, scores: Floats) -> None:
        """Note the records of an extent that did not come, or raise."""
        numbers = come.wave.records(np.array([extent]))
        numbers = numbers[come.targets[numbers] >= 0]
        if len(numbers) and not self._keep:
            if code:
                raise StorageError(f"{come.store.file.path}: cannot be read: {os.strerror(code)}")
            raise come.store.damage(come.places, int(numbers[0]))
        self.counts.n_unreadable += len(numbers)
        scores[come.targets[numbers]] = UNREADABLE

    def _damaged(self, store: TokenStore, places: Places, numbers: Int64s, source: Bytes, at: Int64s) -> None:
        """Count records that are not what they must be, or raise."""
        if not self._keep:
            raise store.damage(places, int(numbers[0]), source, int(at[numbers[0]]))
        self.counts.n_unreadable += len(numbers)
