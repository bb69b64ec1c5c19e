"""Reads that run before a reranking needs them, as in ESPN (arXiv 2312.05417).

Likely candidates are read while the first stage is still at work, and a thread's next query while it scores this one. They are
hints: whatever was read, the same documents get the same scores.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import numpy as np

from ...index.arrays import Floats, Int32s
from ...index.multivector.field import TokenField
from ...index.multivector.reads import RecordReads
from ..workers import Workers
from .stored_tokens import lent_reads, stores_of

MOST_GUESSED = 256
"""Documents of a query that are read before they are known to be candidates."""


class EarlyReads:
    """Reads for a batch of queries; any thread may begin them, and `close` must end them."""

    def __init__(self, field: TokenField, n_queries: int) -> None:
        self._field, self._lock = field, threading.Lock()
        self._reads: list[RecordReads | None] = [None] * n_queries

    def guess(self, number: int, doc_nums: Int32s) -> None:
        """Begin to read the better half of likely candidates of a query, given best first, if a session is free."""
        self._begin(number, doc_nums[: min(MOST_GUESSED, (len(doc_nums) + 1) // 2)], guessed=True)

    def know(self, number: int, doc_nums: Int32s) -> None:
        """Begin to read the candidates of a query, if a session is free."""
        self._begin(number, doc_nums, guessed=False)

    def _begin(self, number: int, doc_nums: Int32s, *, guessed: bool) -> None:
        with self._lock:
            reads = self._reads[number]
            self._reads[number] = None
        if reads is None:
            reads = lent_reads(self._field, wait=False)
        if reads is None:
            return
        with ExitStack() as undo:
            undo.callback(reads.close)
            for store, positions, _ in stores_of(self._field, np.unique(doc_nums)):
                if store.reader is not None:
                    reads.ask(store, positions, guessed=guessed)
            reads.begin()
            undo.pop_all()
        with self._lock:
            self._reads[number] = reads

    def _take(self, number: int) -> RecordReads | None:
        with self._lock:
            found, self._reads[number] = self._reads[number], None
        return found

    def map(
        self, score: Callable[[int, RecordReads | None], Floats], doc_nums: Sequence[Int32s], workers: Workers, n_threads: int
    ) -> list[Floats]:  # fmt: skip
        """Score all queries in ``n_threads`` threads, each of which begins the reads of its next query before it scores one.

        Parameters
        ----------
        score : callable of number and reads
            Closes the reads.
        doc_nums : sequence of (n,) int32, one per query
        """
        found: dict[int, Floats] = {}

        def finish(number: int, reads: RecordReads | None) -> None:
            if reads is None:
                self.close()  # who may have to wait for a session keeps none
            found[number] = score(number, reads)

        def work(numbers: Iterator[int]) -> None:
            before: tuple[int, RecordReads | None] | None = None
            for number in numbers:
                if before is not None and before[1] is None:
                    finish(*before)
                    before = None
                if len(doc_nums) > 1:
                    self.know(number, doc_nums[number])
                with ExitStack() as undo:
                    reads = self._take(number)
                    if reads is not None:
                        undo.callback(reads.close)
                    if before is not None:
                        finish(*before)
                    undo.pop_all()
                before = number, reads
            if before is not None:
                finish(*before)

        workers.share(work, len(doc_nums), n_threads)
        return [found[number] for number in range(len(doc_nums))]

    def close(self) -> None:
        """End all reads that nobody has taken."""
        for number in range(len(self._reads)):
            reads = self._take(number)
            if reads is not None:
                reads.close()
