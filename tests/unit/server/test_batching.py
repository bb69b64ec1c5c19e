import asyncio
import contextlib
import threading

import pytest

from lexmax.index.representations.sparse import SparseVectors
from lexmax.server.searching.batching import Batcher


class Encoder:
    """Writes a number as a row with that term; "bad" fails; waits while ``gate`` is closed."""

    def __init__(self):
        self.batches = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, texts, search=None):
        self.batches.append(list(texts))
        assert self.gate.wait(10)
        if "short" in texts:
            return {"bm25": SparseVectors.from_rows([])}
        vectors = SparseVectors.from_rows([([int(text)], [1.0]) for text in texts])
        return dict.fromkeys((search or "bm25").split("+"), vectors)


def within_deadline(work):
    asyncio.run(asyncio.wait_for(work, 20))


def rows(encoded):
    vectors = encoded["bm25"]
    return [int(vectors.row(i)[0][0]) for i in range(len(vectors))]


@contextlib.asynccontextmanager
async def busy(encoder, max_batch=256):
    """Yield a Batcher whose encoder is held in a batch ["0"]; leaving lets it go on."""
    batcher = Batcher(encoder, max_batch=max_batch)
    encoder.gate.clear()
    first = asyncio.create_task(batcher.encode(["0"]))
    while not encoder.batches:
        await asyncio.sleep(0.001)
    try:
        yield batcher
    finally:
        encoder.gate.set()
    assert rows(await first) == [0]
    await batcher.close()


def submit(batcher, *requests):
    return [asyncio.create_task(batcher.encode(texts)) for texts in requests]


def test_requests_that_wait_go_together_and_each_gets_its_rows():
    async def run():
        encoder = Encoder()
        async with busy(encoder) as batcher:
            waiting = submit(batcher, ["1", "2"], ["3"], ["4", "5", "6"])
            await asyncio.sleep(0)
            encoder.gate.set()
            assert [rows(vectors) for vectors in await asyncio.gather(*waiting)] == [[1, 2], [3], [4, 5, 6]]
        assert encoder.batches == [["0"], ["1", "2", "3", "4", "5", "6"]]

    within_deadline(run())


def test_a_batch_stops_before_the_limit_and_a_request_is_never_cut():
    async def run():
        encoder = Encoder()
        async with busy(encoder, max_batch=3) as batcher:
            waiting = submit(batcher, ["1", "2"], ["3", "4"], ["5"], ["6", "7", "8", "9"])
            await asyncio.sleep(0)
            encoder.gate.set()
            await asyncio.gather(*waiting)
        assert encoder.batches == [["0"], ["1", "2"], ["3", "4", "5"], ["6", "7", "8", "9"]]

    within_deadline(run())


def test_a_bad_text_fails_its_own_request_alone():
    async def run():
        encoder = Encoder()
        async with busy(encoder) as batcher:
            waiting = submit(batcher, ["1"], ["2", "bad"], ["3"])
            await asyncio.sleep(0)
            encoder.gate.set()
            one, bad, three = await asyncio.gather(*waiting, return_exceptions=True)
            assert (rows(one), rows(three)) == ([1], [3])
            assert isinstance(bad, ValueError)
            assert rows(await batcher.encode(["4"])) == [4]

    within_deadline(run())


def test_an_encoder_that_loses_rows_fails_the_request_and_not_the_worker():
    async def run():
        batcher = Batcher(Encoder(), max_batch=8)
        with pytest.raises(RuntimeError, match="0 rows for 2 texts"):
            await batcher.encode(["short", "1"])
        assert rows(await batcher.encode(["2"])) == [2]
        await batcher.close()

    within_deadline(run())


def test_a_cancelled_request_leaves_the_queue_and_makes_room():
    async def run():
        encoder = Encoder()
        async with busy(encoder, max_batch=2) as batcher:
            one, gone, three = submit(batcher, ["1"], ["2"], ["3"])
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.sleep(0)
            encoder.gate.set()
            assert [rows(vectors) for vectors in await asyncio.gather(one, three)] == [[1], [3]]
        assert gone.cancelled()
        assert encoder.batches == [["0"], ["1", "3"]]

    within_deadline(run())


@pytest.mark.parametrize("text", ["1", "bad"])
def test_a_request_cancelled_while_it_is_encoded_harms_nobody(text):
    async def run():
        encoder = Encoder()
        encoder.gate.clear()
        batcher = Batcher(encoder, max_batch=8)
        (gone,) = submit(batcher, [text])
        while not encoder.batches:
            await asyncio.sleep(0.001)
        gone.cancel()
        await asyncio.sleep(0)
        encoder.gate.set()
        assert rows(await batcher.encode(["2"])) == [2]
        assert gone.cancelled()
        await batcher.close()

    within_deadline(run())


def test_close_encodes_what_waits_and_takes_no_more():
    async def run():
        encoder = Encoder()
        async with busy(encoder) as batcher:
            waiting = submit(batcher, ["1"], ["2"])
            await asyncio.sleep(0)
            closing = asyncio.create_task(batcher.close())
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="closed"):
                await batcher.encode(["3"])
            encoder.gate.set()
            await closing
            assert [rows(task.result()) for task in waiting] == [[1], [2]]

    within_deadline(run())


def test_an_encoder_that_does_not_end_is_left_behind():
    async def run():
        encoder = Encoder()
        encoder.gate.clear()
        batcher = Batcher(encoder, max_batch=8)
        (waiting,) = submit(batcher, ["1"])
        while not encoder.batches:
            await asyncio.sleep(0.001)
        assert batcher.busy
        assert not await batcher.close(0.01)
        encoder.gate.set()
        assert rows(await waiting) == [1]
        assert await batcher.close()

    within_deadline(run())


def test_requests_for_the_same_fields_share_a_batch():
    async def run():
        encoder = Encoder()
        async with busy(encoder) as batcher:
            both = ("bm25", "splade")
            alone = [(text, ("bm25",), "bm25") for text in "125"]
            asked = [*alone[:2], ("3", both, "bm25+splade"), ("4", both[::-1], "splade+bm25"), alone[2]]
            waiting = [asyncio.create_task(batcher.encode([text], fields, search)) for text, fields, search in asked]
            await asyncio.sleep(0.01)
        answers = await asyncio.gather(*waiting)
        assert encoder.batches == [["0"], ["1", "2", "5"], ["3", "4"]]
        assert [set(answer) for answer in answers] == [{"bm25"}, {"bm25"}, set(both), set(both), {"bm25"}]
        assert [rows(answer) for answer in answers] == [[1], [2], [3], [4], [5]]

    within_deadline(run())
