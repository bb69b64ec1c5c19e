"""Joins waiting queries into one call of the encoders.

An encoder takes little longer for sixteen queries than for one, so queries that arrive while it is busy wait, and those for the
same fields go together into its next batch. An idle encoder starts at once: no query is delayed in the hope of company.

::

    request --texts--> queue --all that fit--> encoder thread --rows--> each request
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ...index.representations import Vectors

Encoded = Mapping[str, Vectors]
"""Field -> vectors of queries."""


@dataclass(frozen=True, eq=False)
class _Waiting:
    texts: Sequence[str]
    fields: frozenset[str]
    search: str | None
    vectors: asyncio.Future[Encoded]  # done early when its request was cancelled


class Batcher:
    """Encodes the texts of many requests in common batches, one batch at a time, in a thread of its own.

    Belongs to one event loop. A request that is cancelled while it waits leaves the queue.

    Parameters
    ----------
    encode : callable
        Texts and a search expression to vectors of its fields, one row per text; called in the encoder thread only.
    max_batch : int
        Most texts in one call. A request with more goes alone, in one piece.
    """

    def __init__(self, encode: Callable[[Sequence[str], str | None], Encoded], *, max_batch: int) -> None:
        self._encode_texts = encode
        self._max_batch = max_batch
        self._queue: deque[_Waiting] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lexmax-encode")
        self._worker: asyncio.Task[None] | None = None
        self._closed = False
        self._n_running = 0

    async def encode(self, texts: Sequence[str], fields: Collection[str] = (), search: str | None = None) -> Encoded:
        """Return one row per text, in order, for each of the fields that ``search`` names; raises what an encoder raises.

        Parameters
        ----------
        texts : sequence of str
        fields : collection of str
            Names of the fields; requests with the same ones share a batch.
        search : str or None
            The search expression, None for the default one.

        Raises
        ------
        RuntimeError
            After ``close``.
        """
        if self._closed:
            raise RuntimeError("this Batcher is closed")
        waiting = _Waiting(texts, frozenset(fields), search, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await waiting.vectors

    async def close(self, within_s: float = math.inf) -> bool:
        """Take no more, encode what waits, end the thread; returns False when it is still at work after ``within_s``."""
        self._closed = True
        if self._worker is not None:
            await asyncio.wait({self._worker}, timeout=None if math.isinf(within_s) else within_s)
        self._thread.shutdown(wait=False, cancel_futures=True)
        return not self.busy

    @property
    def busy(self) -> bool:
        """Whether the encoder runs, be it for a request that is gone."""
        return self._n_running > 0

    async def _work(self) -> None:
        while batch := self._take():
            await self._encode(batch)

    def _take(self) -> list[_Waiting]:
        """Pop the oldest and what waits for the same fields, in order, as far as it fits into one batch."""
        batch: list[_Waiting] = []
        left: deque[_Waiting] = deque()
        n_texts, full = 0, False
        for waiting in self._queue:
            if waiting.vectors.done():
                continue
            same = not batch or waiting.fields == batch[0].fields
            full = full or (same and bool(batch) and n_texts + len(waiting.texts) > self._max_batch)
            if same and not full:
                batch.append(waiting)
                n_texts += len(waiting.texts)
            else:
                left.append(waiting)
        self._queue = left
        return batch

    async def _encode(self, batch: list[_Waiting]) -> None:
        parts = [waiting.texts for waiting in batch]
        try:
            encoded = await asyncio.get_running_loop().run_in_executor(self._thread, self._encode_parts, parts, batch[0].search)
        except Exception as error:
            if len(batch) == 1:
                if not batch[0].vectors.done():
                    batch[0].vectors.set_exception(error)
                return
            # One bad text must not fail its neighbours: each request tries alone, and fails alone.
            for waiting in batch:
                if not waiting.vectors.done():
                    await self._encode([waiting])
            return
        for waiting, vectors in zip(batch, encoded, strict=True):
            if not waiting.vectors.done():
                waiting.vectors.set_result(vectors)

    def _encode_parts(self, parts: list[Sequence[str]], search: str | None) -> list[Encoded]:
        """Encode all parts in one call and cut the rows apart again (in the encoder thread)."""
        self._n_running += 1
        try:
            return self._rows(parts, search)
        finally:
            self._n_running -= 1

    def _rows(self, parts: list[Sequence[str]], search: str | None) -> list[Encoded]:
        texts = [text for part in parts for text in part]
        encoded = self._encode_texts(texts, search)
        for vectors in encoded.values():
            if len(vectors) != len(texts):
                raise RuntimeError(f"the encoder gave {len(vectors)} rows for {len(texts)} texts")
        ends = np.cumsum([len(part) for part in parts])
        rows = np.split(np.arange(len(texts), dtype=np.int64), ends[:-1])
        return [{name: vectors.select(part) for name, vectors in encoded.items()} for part in rows]
