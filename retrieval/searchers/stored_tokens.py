"""Scores documents from a token store: where it is in memory or mapped at once, where it is on disk as records arrive.

The records of a query's candidates are asked for together; those that have come are verified and scored while the others are on
their way. A score depends on the record alone, so it is the same wherever and in whatever order records come from.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing

import numpy as np

from ...index.arrays import Bytes, Floats, Int32s, Int64s
from ...index.errors import StorageError
from ...index.kernels.checksums import DAMAGED
from ...index.kernels.records import SCALAR_BYTES, verify_records
from ...index.multivector.residual import Codec
from ...index.multivector.store import Places, TokenStore
from ...index.reading.reader import FileReader
from ...index.reading.sessions import Session
from ..hits import NO_SCORE, UNREADABLE, ReadCounts
from ..kernels.maxsim import score_records
from .lanes import Lanes


class StoreScorer:
    """Scores documents for one query.

    Parameters
    ----------
    lanes : sequence of Lanes
        The query's tokens.
    codec : Codec
    reads : ReadCounts
        What is read is counted here.
    keep_unreadable : bool
        Give `UNREADABLE` to a document whose record cannot be read; else that is an error.
    """

    def __init__(self, lanes: Sequence[Lanes], codec: Codec, reads: ReadCounts, *, keep_unreadable: bool = False) -> None:
        self.lanes, self.codec, self.reads, self._keep = lanes, codec, reads, keep_unreadable
        self._constants: dict[int, list[Floats]] = {}

    def score(self, store: TokenStore, positions: Int32s, scores: Floats) -> None:
        """Write the MaxSim of documents at some positions into ``scores``, zeros; `NO_SCORE` without tokens.

        Raises
        ------
        IndexFormatError
            A record is damaged, or the file was cut short.
        StorageError
            The system refuses to read.
        """
        if store.reader is None:
            places, states = store.looked_up(positions)
            at = places.firsts * store.token_bytes
            numbers, bad = np.arange(len(states)), np.flatnonzero(states == DAMAGED)
            if len(bad):
                numbers = np.flatnonzero(states != DAMAGED)
                self._damaged(store, places, bad, store.records, at, scores)
            self._add(store, numbers, store.records, at, places, scores)
        else:
            places = store.places(positions)
            order = np.argsort(places.firsts, kind="stable")
            order = order[places.n_tokens[order] > 0]
            found = np.zeros(len(order), np.float32)
            self._read(store, store.reader, places.take(order), found)
            scores[order] = found
        scores[places.n_tokens == 0] = NO_SCORE

    def _read(self, store: TokenStore, reader: FileReader, places: Places, scores: Floats) -> None:
        """Score documents in the order of their records."""
        with reader.sessions.borrow() as session:
            first = 0
            while first < len(scores):
                first += self._wave(store, reader, session, places.take(slice(first, None)), scores[first:])

    def _wave(self, store: TokenStore, reader: FileReader, session: Session, places: Places, scores: Floats) -> int:
        """Score the first documents, as many as the session's memory holds; returns how many."""
        n_bytes = places.n_tokens * store.token_bytes
        plan = reader.plan(store.origin + places.firsts * store.token_bytes, n_bytes, session)
        states = np.zeros(len(plan.record_at), np.uint8)
        with closing(reader.arrivals(session, plan)) as arrivals:
            for extents, failed in arrivals:
                numbers = plan.records(extents)
                sound = verify_records(
                    numbers, places.documents, plan.record_at, places.n_tokens, places.firsts, places.checks, session.arena,
                    store.token_bytes, store.n_centroids, states,
                )  # fmt: skip
                for extent, code in failed.items():
                    self._refused(store, places, plan.records(np.array([extent])), code, scores)
                if not sound:
                    bad = numbers[states[numbers] == DAMAGED]
                    numbers = numbers[states[numbers] != DAMAGED]
                    self._damaged(store, places, bad, session.arena, plan.record_at, scores)
                self._add(store, numbers, session.arena, plan.record_at, places, scores)
        self.reads.add(ReadCounts(n_records=len(states), n_reads=len(plan.offsets), n_bytes=int(plan.lengths.sum())))
        return len(states)

    def _add(self, store: TokenStore, numbers: Int64s, source: Bytes, at: Int64s, places: Places, scores: Floats) -> None:
        if store.nbits not in self._constants:
            self._constants[store.nbits] = [lane.constants(self.codec, store.nbits) for lane in self.lanes]
        for lane, constants in zip(self.lanes, self._constants[store.nbits], strict=True):
            score_records(
                numbers, source, at, places.n_tokens, store.nbits, store.token_bytes - SCALAR_BYTES, lane.dots, lane.packed,
                constants, lane.weights, scores,
            )  # fmt: skip

    def _refused(self, store: TokenStore, places: Places, numbers: Int64s, code: int, scores: Floats) -> None:
        """Note records that did not come, or raise."""
        if self._keep:
            self._note(numbers, scores)
        elif code:
            raise StorageError(f"{store.file.path}: cannot be read: {os.strerror(code)}")
        else:
            raise store.damage(places, int(numbers[0]))

    def _damaged(self, store: TokenStore, places: Places, numbers: Int64s, source: Bytes, at: Int64s, scores: Floats) -> None:
        """Note records that are not what they must be, or raise."""
        if not self._keep:
            raise store.damage(places, int(numbers[0]), source, int(at[numbers[0]]))
        self._note(numbers, scores)

    def _note(self, numbers: Int64s, scores: Floats) -> None:
        scores[numbers] = UNREADABLE
        self.reads.n_unreadable += len(numbers)
